"""The demo tells its whole story, and the README shows what it says."""

from __future__ import annotations

import re
import subprocess
from pathlib import Path

from glebe_up import GLEBE

ROOT = Path(__file__).resolve().parents[2]


def shape(line: str) -> str:
    """A line without what differs from run to run: numbers, units that depend on them, and the width of columns."""
    line = re.sub(r"[0-9][0-9.,:TZ-]*(m\d+s|h\d+m|[smh])?\b", "#", line)
    return re.sub(r"\s+", " ", line).strip()


def transcript() -> list[str]:
    """The README's transcript, line by line."""
    readme = (ROOT / "README.md").read_text(encoding="utf-8")
    blocks = re.findall(r"```console\n(.*?)```", readme, re.DOTALL)
    return next(block for block in blocks if "== A private GPU cloud" in block).strip("\n").splitlines()


def test_the_demo_happens_as_the_readme_shows(tmp_path: Path) -> None:
    command = [*GLEBE, "demo", "--data-dir", str(tmp_path / "data")]
    done = subprocess.run(command, capture_output=True, text=True, timeout=200, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    told = [shape(line) for line in done.stdout.strip("\n").splitlines()]
    shown = [line if line == "[...]" else shape(line) for line in transcript()]
    at, skipping = 0, False
    for line in shown:
        if line == "[...]":
            skipping = True
            continue
        if skipping:
            assert line in told[at:], f"the demo does not say (any more): {line}"
            at = told.index(line, at)
        assert told[at] == line, f"the demo says {told[at]!r}, the README {line!r}"
        at, skipping = at + 1, False
    assert at == len(told), f"the README leaves out the end: {told[at:]}"


def test_a_broken_promise_fails_the_demo(tmp_path: Path) -> None:
    command = [*GLEBE, "demo", "--data-dir", str(tmp_path / "data"), "--deadline", "3"]
    done = subprocess.run(command, capture_output=True, text=True, timeout=60, check=False)
    assert done.returncode == 1
    assert "The demo failed: the deadline passed while waiting until" in done.stderr
