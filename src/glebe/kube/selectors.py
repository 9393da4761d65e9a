"""Label and field selectors, with upstream's meaning: also for labels that are not there.

``!=`` and ``notin`` select objects *without* the label, too; ``>`` and ``<`` compare integers and never select an
object without the label.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, Final

IN: Final = "In"
NOT_IN: Final = "NotIn"
EXISTS: Final = "Exists"
DOES_NOT_EXIST: Final = "DoesNotExist"
GREATER: Final = "Gt"
LESS: Final = "Lt"

_NAME = r"[A-Za-z0-9](?:[-A-Za-z0-9_.]{0,61}[A-Za-z0-9])?"
_KEY = re.compile(rf"(?:[a-z0-9](?:[-a-z0-9.]{{0,251}}[a-z0-9])?/)?{_NAME}", re.ASCII)
_VALUE = re.compile(rf"(?:{_NAME})?", re.ASCII)
_REQUIREMENT = re.compile(
    r"\s*(?:"
    r"!\s*(?P<absent>[^\s,=!<>()]+)"
    r"|(?P<key>[^\s,=!<>()]+)\s*(?:"
    r"(?P<set>\b(?:in|notin))\s*\((?P<values>[^()]*)\)"
    r"|(?P<op>==|!=|=|>|<)\s*(?P<value>[^\s,=!<>()]*)"
    r")?"
    r")\s*(?:,|$)"
)


class SelectorError(ValueError):
    """A selector that cannot be parsed."""


@dataclass(frozen=True, slots=True)
class Requirement:
    """One term: ``key operator values``."""

    key: str
    operator: str
    values: tuple[str, ...] = ()

    def matches(self, labels: Mapping[str, str]) -> bool:
        value = labels.get(self.key)
        match self.operator:
            case "In":
                return value is not None and value in self.values
            case "NotIn":
                return value is None or value not in self.values
            case "Exists":
                return value is not None
            case "DoesNotExist":
                return value is None
            case _:
                return _compare(value, self.operator, self.values[0])

    def __str__(self) -> str:
        match self.operator:
            case "Exists":
                return self.key
            case "DoesNotExist":
                return f"!{self.key}"
            case "Gt" | "Lt":
                return f"{self.key}{'>' if self.operator == GREATER else '<'}{self.values[0]}"
            case "In" if len(self.values) == 1:
                return f"{self.key}={self.values[0]}"
            case "NotIn" if len(self.values) == 1:
                return f"{self.key}!={self.values[0]}"
        word = "in" if self.operator == IN else "notin"
        return f"{self.key} {word} ({','.join(self.values)})"


def _compare(value: str | None, operator: str, bound: str) -> bool:
    if value is None:
        return False
    try:
        number = int(value)
    except ValueError:
        return False
    return number > int(bound) if operator == GREATER else number < int(bound)


@dataclass(frozen=True, slots=True)
class LabelSelector:
    """A conjunction of requirements; the empty one selects everything."""

    requirements: tuple[Requirement, ...] = ()
    nothing: bool = False

    @classmethod
    def parse(cls, text: str) -> LabelSelector:
        """Parse kubectl's and the API's string form: ``a=b,c in (x,y),d notin (z),e,!f,g>3``.

        :raises SelectorError: ``text`` is not a selector.
        """
        terms: list[Requirement] = []
        position = 0
        if not text.strip():
            return cls()
        while position < len(text):
            match = _REQUIREMENT.match(text, position)
            if match is None or match.end() == position:
                raise SelectorError(f"unable to parse requirement: {text[position:]!r} in label selector {text!r}")
            terms.append(_requirement(match))
            position = match.end()
        if text.rstrip().endswith(","):
            raise SelectorError(f"label selector {text!r} ends with a comma: a requirement is missing")
        return cls(tuple(terms))

    @classmethod
    def from_object(cls, selector: Mapping[str, Any] | None) -> LabelSelector:
        """From a ``metav1.LabelSelector``; ``None`` selects nothing and ``{}`` everything.

        :raises SelectorError: unknown operator, bad key or value.
        """
        if selector is None:
            return cls(nothing=True)
        labels = selector.get("matchLabels") or {}
        terms = [_checked(Requirement(key, IN, (labels[key],))) for key in sorted(labels)]
        for expression in selector.get("matchExpressions") or ():
            values = tuple(expression.get("values") or ())
            terms.append(_checked(Requirement(expression["key"], expression["operator"], values)))
        return cls(tuple(terms))

    def matches(self, labels: Mapping[str, str] | None) -> bool:
        """Whether an object with ``labels`` is selected."""
        if self.nothing:
            return False
        present = labels or {}
        return all(term.matches(present) for term in self.requirements)

    @property
    def empty(self) -> bool:
        """Whether it selects everything."""
        return not self.requirements and not self.nothing

    def __str__(self) -> str:
        return ",".join(str(term) for term in self.requirements)


def _requirement(match: re.Match[str]) -> Requirement:
    if match["absent"]:
        return _checked(Requirement(match["absent"], DOES_NOT_EXIST))
    key = match["key"]
    if match["set"]:
        values = tuple(sorted({part.strip() for part in match["values"].split(",")}))
        return _checked(Requirement(key, IN if match["set"] == "in" else NOT_IN, values))
    match match["op"]:
        case None:
            return _checked(Requirement(key, EXISTS))
        case "=" | "==":
            return _checked(Requirement(key, IN, (match["value"],)))
        case "!=":
            return _checked(Requirement(key, NOT_IN, (match["value"],)))
        case operator:
            return _checked(Requirement(key, GREATER if operator == ">" else LESS, (match["value"],)))


def _checked(term: Requirement) -> Requirement:
    if not _KEY.fullmatch(term.key):
        raise SelectorError(f"invalid label key {term.key!r}: [prefix/]name, name of at most 63 letters, digits, -_.")
    if term.operator in (IN, NOT_IN):
        if not term.values:
            raise SelectorError(f"label key {term.key!r}: operator {term.operator} needs at least one value")
    elif term.operator in (EXISTS, DOES_NOT_EXIST):
        if term.values:
            raise SelectorError(f"label key {term.key!r}: operator {term.operator} takes no values")
    elif term.operator in (GREATER, LESS):
        if len(term.values) != 1 or not re.fullmatch(r"[+-]?\d+", term.values[0], re.ASCII):
            raise SelectorError(f"label key {term.key!r}: operator {term.operator} needs exactly one integer")
        return term
    else:
        raise SelectorError(f"{term.operator!r} is not a valid label selector operator")
    for value in term.values:
        if not _VALUE.fullmatch(value):
            raise SelectorError(f"invalid label value {value!r} for key {term.key!r}: at most 63 letters, digits, -_.")
    return term


@dataclass(frozen=True, slots=True)
class FieldTerm:
    """``path=value`` or ``path!=value``."""

    path: str
    equal: bool
    value: str


@dataclass(frozen=True, slots=True)
class FieldSelector:
    """A conjunction of field comparisons; the empty one selects everything."""

    terms: tuple[FieldTerm, ...] = ()

    @classmethod
    def parse(cls, text: str) -> FieldSelector:
        r"""Parse ``metadata.name=x,status.phase!=Failed``; ``\,``, ``\=`` and ``\\`` are escapes in values.

        :raises SelectorError: ``text`` is not a field selector.
        """
        terms = [_field_term(part, text) for part in _split_escaped(text) if part]
        return cls(tuple(terms))

    def matches(self, get_field: Callable[[str], str]) -> bool:
        """Whether the object whose field at a path is ``get_field(path)`` (``""`` when absent) is selected."""
        return all((get_field(term.path) == term.value) is term.equal for term in self.terms)

    def required(self, path: str) -> str | None:
        """The value that ``path`` must have, if the selector says so (``metadata.name=x`` -> one object)."""
        for term in self.terms:
            if term.equal and term.path == path:
                return term.value
        return None

    @property
    def empty(self) -> bool:
        return not self.terms


def _split_escaped(text: str) -> list[str]:
    parts, start, escaped = [], 0, False
    for position, char in enumerate(text):
        if escaped:
            escaped = False
        elif char == "\\":
            escaped = True
        elif char == ",":
            parts.append(text[start:position])
            start = position + 1
    parts.append(text[start:])
    return parts


def _field_term(part: str, whole: str) -> FieldTerm:
    match = re.match(r"([^=!\\]*?)\s*(!=|==|=)", part)
    if match is None or not match[1].strip():
        raise SelectorError(f"invalid field selector {whole!r}: can't understand {part!r}; write path=value")
    raw = part[match.end() :]
    value = re.sub(r"\\([\\,=])", r"\1", raw)
    if re.search(r"(?<!\\)(?:\\\\)*\\(?![\\,=])", raw) or re.search(r"(?<!\\)(?:\\\\)*=", raw):
        raise SelectorError(f"invalid field selector {whole!r}: unescaped or unknown character in {raw!r}")
    return FieldTerm(match[1].strip(), match[2] != "!=", value)


def escape_field(value: str) -> str:
    """``value`` as it may stand in a field selector."""
    return re.sub(r"([\\,=])", r"\\\1", value)


def field_of(obj: Mapping[str, Any], path: str) -> str:
    """The scalar at a dotted ``path`` of ``obj`` as field selectors see it: ``""`` when absent, ``true``/``false``."""
    value: Any = obj
    for part in path.split("."):
        value = value.get(part) if isinstance(value, Mapping) else None
        if value is None:
            return ""
    if isinstance(value, bool):
        return "true" if value else "false"
    return str(value)
