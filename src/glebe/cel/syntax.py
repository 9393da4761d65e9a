"""The syntax tree, and text -> tokens."""

from __future__ import annotations

import re
from dataclasses import dataclass, field
from typing import Any, TypeAlias

LONGEST = 100_000
"""Characters of one expression."""


@dataclass(slots=True, eq=False)
class Literal:
    at: int
    value: Any


@dataclass(slots=True, eq=False)
class Ident:
    at: int
    name: str


@dataclass(slots=True, eq=False)
class Select:
    """``operand.field``; ``test``: inside ``has()``; ``optional``: ``operand.?field``."""

    at: int
    operand: Node
    field: str
    test: bool = False
    optional: bool = False


@dataclass(slots=True, eq=False)
class Call:
    """A function or an operator (``_+_``, ``_[_]``, ``_?_:_`` ... by cel-go's names)."""

    at: int
    name: str
    target: Node | None
    args: list[Node]


@dataclass(slots=True, eq=False)
class ListLiteral:
    at: int
    items: list[Node]
    optional: frozenset[int] = frozenset()


@dataclass(slots=True, eq=False)
class MapLiteral:
    at: int
    entries: list[tuple[Node, Node, bool]]


@dataclass(slots=True, eq=False)
class StructLiteral:
    """``Name{field: value}``."""

    at: int
    name: str
    entries: list[tuple[str, Node, bool, int]]


@dataclass(slots=True, eq=False)
class Macro:
    """``range.kind(names..., args...)``: the comprehensions, ``optMap`` and ``optFlatMap``."""

    at: int
    kind: str
    operand: Node
    names: tuple[str, ...]
    args: list[Node] = field(default_factory=list)


Node: TypeAlias = Literal | Ident | Select | Call | ListLiteral | MapLiteral | StructLiteral | Macro


def names_in(node: Node) -> set[str]:
    """Every identifier that stands in a tree (variables of macros, too)."""
    found: set[str] = set()
    waiting: list[Node] = [node]
    while waiting:
        one = waiting.pop()
        if isinstance(one, Ident):
            found.add(one.name)
        elif isinstance(one, Select):
            waiting.append(one.operand)
        elif isinstance(one, Call):
            waiting += one.args if one.target is None else [one.target, *one.args]
        elif isinstance(one, ListLiteral):
            waiting += one.items
        elif isinstance(one, MapLiteral):
            waiting += [part for key, value, _ in one.entries for part in (key, value)]
        elif isinstance(one, StructLiteral):
            waiting += [value for _, value, _, _ in one.entries]
        elif isinstance(one, Macro):
            waiting += [one.operand, *one.args]
    return found


class SyntaxFault(Exception):
    """The text is no expression; ``at`` is an offset into it."""

    def __init__(self, at: int, message: str) -> None:
        super().__init__(message)
        self.at = at
        self.message = message


class UInt(int):
    """CEL's ``uint``."""

    __slots__ = ()


_TOKEN = re.compile(
    r"""
    (?P<space>[\t\r\n\f ]+|//[^\n]*)
  | (?P<float>\d+\.\d+(?:[eE][+-]?\d+)?|\d+[eE][+-]?\d+|\.\d+(?:[eE][+-]?\d+)?)
  | (?P<int>0x[0-9a-fA-F]+[uU]?|\d+[uU]?)
  | (?P<string>[bBrR]{0,2}(?:\"{3}|'{3}|\"|'))
  | (?P<name>[_a-zA-Z][_a-zA-Z0-9]*)
  | (?P<quoted>`[a-zA-Z0-9_.\-/ ]+`)
  | (?P<op>&&|\|\||==|!=|<=|>=|[-+*/%!<>?:.,()\[\]{}])
    """,
    re.VERBOSE,
)
_SIMPLE = {"a": "\a", "b": "\b", "f": "\f", "n": "\n", "r": "\r", "t": "\t", "v": "\v"}
_LENGTHS = {"x": 2, "X": 2, "u": 4, "U": 8}
_KEYWORDS = {"true": True, "false": False, "null": None}
_RESERVED = "as break const continue else for function if import let loop package namespace return var void while"
RESERVED = frozenset(_RESERVED.split())


@dataclass(slots=True)
class Token:
    """``kind``: literal, name, quoted, op or end."""

    kind: str
    text: str
    at: int
    value: Any = None


def tokens(text: str) -> list[Token]:
    """:raises SyntaxFault: a character that no token begins with, or a bad literal."""
    if len(text) > LONGEST:
        raise SyntaxFault(0, f"expression code point size exceeds limit: size: {len(text)}, limit {LONGEST}")
    found: list[Token] = []
    at = 0
    while at < len(text):
        match = _TOKEN.match(text, at)
        if match is None:
            raise SyntaxFault(at, f"Syntax error: token recognition error at: '{text[at]}'")
        kind, word = match.lastgroup or "", match.group()
        start, at = at, match.end()
        if kind == "space":
            continue
        if kind == "string":
            value, at = _string(text, start, at, word)
            found.append(Token("literal", text[start:at], start, value))
        elif kind in ("int", "float"):
            found.append(Token("literal", word, start, _number(word, kind, start)))
        elif kind == "name" and word in _KEYWORDS:
            found.append(Token("literal", word, start, _KEYWORDS[word]))
        else:
            found.append(Token(kind, word, start))
    found.append(Token("end", "<EOF>", len(text)))
    return found


def _number(word: str, kind: str, at: int) -> Any:
    if kind == "float":
        return float(word)
    unsigned = word[-1] in "uU"
    digits = word[:-1] if unsigned else word
    value = int(digits, 16 if digits.startswith("0x") else 10) if len(digits) < 40 else 1 << 70
    if unsigned:
        if value >= 1 << 64:
            raise SyntaxFault(at, "invalid uint literal")
        return UInt(value)
    if value > 1 << 63:  # the negative one is checked when its sign is known
        raise SyntaxFault(at, "invalid int literal")
    return value


def _string(text: str, start: int, at: int, opening: str) -> tuple[Any, int]:
    flags = opening.rstrip("\"'").lower()
    quote = opening[len(flags) :]
    if flags in ("bb", "rr"):
        raise SyntaxFault(start, f"Syntax error: token recognition error at: '{opening}'")
    raw, as_bytes = "r" in flags, "b" in flags
    out: list[str] = []
    octets = bytearray()
    while True:
        if at >= len(text) or (text[at] in "\r\n" and len(quote) == 1):
            raise SyntaxFault(start, f"Syntax error: token recognition error at: '{text[start : start + 20]}'")
        if text.startswith(quote, at):
            return (bytes(octets) if as_bytes else "".join(out)), at + len(quote)
        if text[at] == "\\" and not raw:
            piece, at = _escape(text, at, as_bytes)
        else:
            piece, at = text[at], at + 1
        if as_bytes:
            octets += piece if isinstance(piece, bytes) else piece.encode("utf-8", "surrogatepass")
        else:
            assert isinstance(piece, str)
            out.append(piece)


def _escape(text: str, at: int, as_bytes: bool) -> tuple[str | bytes, int]:
    code = text[at + 1 : at + 2]
    if code in _SIMPLE and code:
        return _SIMPLE[code], at + 2
    if code and code in "\\\"'`?":
        return code, at + 2
    digits, base, end = "", 16, at
    if code in _LENGTHS and code:
        end = at + 2 + _LENGTHS[code]
        digits = text[at + 2 : end]
        complete = len(digits) == _LENGTHS[code]
    else:
        end, base = at + 4, 8
        digits = text[at + 1 : end]
        complete = len(digits) == 3
    try:
        number = int(digits, base) if complete and digits.isalnum() else -1
    except ValueError:
        number = -1
    if number < 0 or number > 0x10FFFF or 0xD800 <= number < 0xE000 or (as_bytes and code in ("u", "U")):
        raise SyntaxFault(at, "unable to unescape string")
    if as_bytes:
        if number > 255:
            raise SyntaxFault(at, "unable to unescape string")
        return bytes([number]), end
    return chr(number), end
