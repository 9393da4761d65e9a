"""One convention for sentences: no full stop at the end, small letter first; whoever shows them joins them."""

from __future__ import annotations

import ast
from collections.abc import Iterator
from pathlib import Path

import pytest

import glebe

SOURCE = Path(glebe.__file__).parent
#: What is told with a decision, a condition or an event.
FILES = [
    path
    for floor in ("queueing", "scheduling")
    for path in sorted((SOURCE / floor).rglob("*.py"))
    if path.parent.name not in ("types", "measures")  # fields and metrics are described in whole sentences
]
FILES.append(SOURCE / "platform" / "views.py")


def sentences(path: Path) -> Iterator[tuple[int, str]]:
    """String constants and the ends of f-strings, without docstrings; only texts of several words."""
    tree = ast.parse(path.read_text(encoding="utf-8"))
    docs = {id(node.value) for node in ast.walk(tree) if isinstance(node, ast.Expr)}
    parts = {id(part) for node in ast.walk(tree) if isinstance(node, ast.JoinedStr) for part in node.values}
    for node in ast.walk(tree):
        last: ast.expr | None = node if isinstance(node, ast.Constant) and id(node) not in parts else None
        if isinstance(node, ast.JoinedStr) and node.values:
            last = node.values[-1]
        if isinstance(last, ast.Constant) and isinstance(last.value, str) and id(last) not in docs:
            whole = ast.unparse(node)
            if " " in whole:
                yield last.lineno, last.value


@pytest.mark.parametrize("path", FILES, ids=lambda path: f"{path.parent.name}/{path.name}")
def test_no_sentence_ends_with_a_full_stop(path: Path) -> None:
    ended = [(line, text) for line, text in sentences(path) if text.rstrip().endswith(".")]
    wrong = [f"{path.name}:{line}: {text}" for line, text in ended if text != "."]  # but for Kueue's own "...: 2/2."
    assert not wrong
