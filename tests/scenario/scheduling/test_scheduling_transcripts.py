"""Every transcript says exactly what the core says. ``GLEBE_UPDATE=1`` rewrites them; read the difference."""

from __future__ import annotations

import os
from pathlib import Path

import pytest
from transcript import Transcript

HERE = Path(__file__).parent


@pytest.mark.parametrize("name", sorted(p.name for p in HERE.glob("*.txt")))
def test_transcript(name: str) -> None:
    text = (HERE / name).read_text()
    played = Transcript().play(text)
    if os.environ.get("GLEBE_UPDATE"):
        (HERE / name).write_text(played)
    else:
        assert played == text
