"""The generated pages are what the code says, and everything that users can type or write stands in them."""

from __future__ import annotations

import inspect
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from glebe.cli.app import app
from glebe.cli.exits import MEANING, Exit
from glebe.cli.main import VERBS
from glebe.gpu.catalogue import BOARDS
from glebe.kube.crdgen import Kind
from glebe.metering.kinds import KINDS as METERING_KINDS
from glebe.queueing.kinds import KINDS as QUEUE_KINDS
from glebe.queueing.notactedon import NOT_ACTED_ON

ROOT = Path(__file__).resolve().parents[3]
KINDS = (*QUEUE_KINDS, *METERING_KINDS)

sys.path.insert(0, str(ROOT / "tools"))
try:
    import docs_kinds
    import generate
finally:
    sys.path.pop(0)


def page(name: str) -> str:
    return (ROOT / "docs" / name).read_text(encoding="utf-8")


def test_generated_files_are_up_to_date() -> None:
    done = subprocess.run(
        [sys.executable, "tools/generate.py", "--check"], cwd=ROOT, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr


def test_no_generated_page_is_left_over() -> None:
    made = {path for path in generate.generate() if path.startswith("docs/reference/")}
    there = {str(path.relative_to(ROOT)) for path in (ROOT / "docs/reference").rglob("*.md")}
    assert there == made


# --- the command line


def section(verb: str) -> str:
    return page("cli.md").split(f"\n## glebe {verb}\n")[1].split("\n## ")[0]


@pytest.mark.parametrize("verb", VERBS)
def test_every_verb_and_option_is_documented(verb: str) -> None:
    callbacks: dict[str, Any] = {c.name or c.callback.__name__: c.callback for c in app.registered_commands}
    common = page("cli.md").split("talk to a server\n")[1].split("\n## ")[0]
    for parameter in inspect.signature(callbacks[verb], eval_str=True).parameters.values():
        info = parameter.annotation.__metadata__[0]
        flags = [f for f in (info.default, *(info.param_decls or ())) if str(f).startswith("-")]
        assert info.help, f"{verb} {parameter.name} has no help"
        for flag in flags:
            assert f"`{flag}`" in section(verb) or f"`{flag}`" in common, f"glebe {verb} {flag}"


def test_every_verb_has_an_example() -> None:
    for verb in VERBS:
        assert f"- `glebe {verb}" in section(verb), verb


def test_every_exit_code_is_documented() -> None:
    assert set(MEANING) == set(Exit)
    for code in Exit:
        assert f"| {int(code)} |" in page("cli.md")


# --- kinds


@pytest.mark.parametrize("kind", KINDS, ids=lambda kind: kind.resource.kind)
def test_every_field_of_a_kind_has_a_meaning(kind: Kind) -> None:
    text = (ROOT / docs_kinds.path_of(kind)).read_text(encoding="utf-8")
    found = list(docs_kinds.fields(docs_kinds.schema_of(kind)))
    assert found
    for path, schema, _ in found:
        assert schema.get("description"), f"{kind.resource.kind} {path} has no description"
        assert f"| `{path}` |" in text
    for column in kind.columns:
        assert column.name in text


@pytest.mark.parametrize("kind", KINDS, ids=lambda kind: kind.resource.kind)
def test_fields_that_are_not_acted_on_exist(kind: Kind) -> None:
    known = {path for path, _, _ in docs_kinds.fields(docs_kinds.schema_of(kind))}
    for unused in NOT_ACTED_ON.get(kind.resource.kind, ()):
        assert unused.path in known
        assert {f"{unused.path}.{leaf}" for leaf in unused.leaves} <= known


def test_every_gpu_model_is_documented() -> None:
    for model in BOARDS:
        assert f"| `{model}` |" in page("reference/gpu-models.md")
