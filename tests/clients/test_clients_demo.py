"""The demo tells its whole story, and the README shows what it says."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

from glebe_up import GLEBE

ROOT = Path(__file__).resolve().parents[2]

sys.path.insert(0, str(ROOT / "tools"))
try:
    import docs_demo
finally:
    sys.path.pop(0)


def test_the_demo_happens_as_the_readme_shows(tmp_path: Path) -> None:
    command = [*GLEBE, "demo", "--data-dir", str(tmp_path / "data")]
    done = subprocess.run(command, capture_output=True, text=True, timeout=200, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    readme = (ROOT / "README.md").read_text(encoding="utf-8")
    assert len(docs_demo.documented(readme)) > 80
    difference = docs_demo.difference(readme, done.stdout)
    assert not difference, f"the README is not true any more (python tools/docs_demo.py writes it anew):\n{difference}"


def test_a_broken_promise_fails_the_demo(tmp_path: Path) -> None:
    command = [*GLEBE, "demo", "--data-dir", str(tmp_path / "data"), "--deadline", "3"]
    done = subprocess.run(command, capture_output=True, text=True, timeout=60, check=False)
    assert done.returncode == 1
    assert "The demo failed: the deadline passed while waiting until" in done.stderr
