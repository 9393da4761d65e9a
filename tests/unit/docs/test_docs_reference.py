"""What users can type, write or read is documented, and the pages are what the code says."""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path

import pytest

from glebe.cli.exits import MEANING, Exit
from glebe.cli.main import VERBS
from glebe.metering.kinds import KINDS as METERING_KINDS
from glebe.queueing.kinds import KINDS as QUEUE_KINDS
from glebe.scheduling.model import Reason

ROOT = Path(__file__).resolve().parents[3]
DOCS = ROOT / "docs"


def page(name: str) -> str:
    return (DOCS / name).read_text(encoding="utf-8")


def test_generated_files_are_up_to_date() -> None:
    done = subprocess.run(
        [sys.executable, "tools/generate.py", "--check"], cwd=ROOT, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr


@pytest.mark.parametrize("verb", VERBS)
def test_every_verb_is_documented(verb: str) -> None:
    section = page("cli.md").split(f"## glebe {verb}\n")[1].split("\n## ")[0]
    assert len(section.split("\n\n")[2]) > 20, "a sentence about what it does"


def test_every_exit_code_is_documented() -> None:
    assert set(MEANING) == set(Exit)
    for code in Exit:
        assert f"| {int(code)} |" in page("cli.md")


@pytest.mark.parametrize("reason", list(Reason))
def test_every_reason_is_documented(reason: Reason) -> None:
    assert f"| `{reason}` |" in page("reference.md")


def test_every_kind_and_field_has_a_meaning() -> None:
    text = page("reference.md")
    for kind in (*QUEUE_KINDS, *METERING_KINDS):
        assert f"\n## {kind.resource.kind}\n" in text
    empty = [line for line in text.splitlines() if re.fullmatch(r"\| `[^`]+` \| .* \|\s+\|", line)]
    assert not empty


def test_links_between_pages_lead_somewhere() -> None:
    for path in [ROOT / "README.md", *DOCS.glob("*.md")]:
        for target in re.findall(r"\]\(([^)#:]+)(?:#[^)]*)?\)", path.read_text(encoding="utf-8")):
            assert (path.parent / target).exists(), f"{path.name} links to {target}"


def test_readme_names_every_page() -> None:
    readme = (ROOT / "README.md").read_text(encoding="utf-8")
    for path in DOCS.glob("*.md"):
        assert f"docs/{path.name}" in readme, path.name
