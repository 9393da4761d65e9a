"""Reading a YAML document field by field, with errors that name file, field and remedy."""

from __future__ import annotations

import difflib
import re
from collections.abc import Iterable
from typing import Any

from glebe.kube import quantity

_NAME = re.compile(r"[a-z0-9]([-a-z0-9]*[a-z0-9])?")


class FleetError(ValueError):
    """A fleet file that cannot be used: ``FILE: FIELD: PROBLEM; REMEDY``."""

    def __init__(self, file: str, field: str, problem: str, remedy: str) -> None:
        where = f"{file}: {field}" if field else file
        super().__init__(f"{where}: {problem}; {remedy}")
        self.file = file
        self.field = field
        self.problem = problem
        self.remedy = remedy


class Fields:
    """One mapping of the document, at a path such as ``pools[0].gpu``."""

    def __init__(self, file: str, path: str, value: Any) -> None:
        self.file = file
        self.path = path
        if not isinstance(value, dict):
            raise self.error("", f"must be a mapping of fields, not {_kind(value)}", "indent the fields below it")
        self.value: dict[Any, Any] = value

    def at(self, key: str) -> str:
        """The path of a field of this mapping."""
        return f"{self.path}.{key}" if self.path and key else self.path or key

    def error(self, key: str, problem: str, remedy: str) -> FleetError:
        return FleetError(self.file, self.at(key), problem, remedy)

    def only(self, *known: str) -> None:
        """Refuse keys that are not ``known``."""
        for key in self.value:
            if key not in known:
                close = difflib.get_close_matches(str(key), known, n=1)
                hint = f'did you mean "{close[0]}"?' if close else f"known fields are: {', '.join(known)}"
                raise self.error(str(key), "unknown field", hint)

    def child(self, key: str) -> Fields | None:
        """The mapping under ``key``, ``None`` when it is absent or empty."""
        value = self.value.get(key)
        return None if value is None else Fields(self.file, self.at(key), value)

    def items(self, key: str) -> list[Any]:
        """The list under ``key``, empty when absent."""
        value = self.value.get(key)
        if value is None:
            return []
        if not isinstance(value, list):
            raise self.error(key, f"must be a list, not {_kind(value)}", 'start each entry with "- "')
        return value

    def text(self, key: str, default: str | None = None) -> str:
        """A string; required when there is no default."""
        value = self.value.get(key)
        if value is None:
            if default is None:
                raise self.error(key, "is required", "add it")
            return default
        if not isinstance(value, str):
            raise self.error(key, f"must be text, not {_kind(value)}", f'write it in quotes: "{value}"')
        return value

    def name(self, key: str, default: str | None = None) -> str:
        """A DNS label, at most 50 characters so that node names made from it stay within limits."""
        value = self.text(key, default)
        if len(value) > 50 or not _NAME.fullmatch(value):
            remedy = "use at most 50 lower-case letters, digits and dashes, starting and ending with a letter or digit"
            raise self.error(key, f'"{value}" is not a usable name', remedy)
        return value

    def integer(self, key: str, default: int | None = None, *, low: int = 0, high: int = 100_000) -> int:
        value = self.value.get(key)
        if value is None:
            if default is None:
                raise self.error(key, "is required", f"give a whole number from {low} to {high}")
            return default
        if isinstance(value, bool) or not isinstance(value, int):
            raise self.error(key, f"must be a whole number, not {_show(value)}", f"give one from {low} to {high}")
        if not low <= value <= high:
            raise self.error(key, f"{value} is out of range", f"give a whole number from {low} to {high}")
        return value

    def boolean(self, key: str, default: bool) -> bool:
        value = self.value.get(key, default)
        if not isinstance(value, bool):
            raise self.error(key, f"must be true or false, not {_show(value)}", "write true or false without quotes")
        return value

    def quantity(self, key: str, default: str) -> str:
        """A positive Kubernetes quantity, kept as it is written."""
        value = self.value.get(key, default)
        text = str(value)
        try:
            if isinstance(value, bool) or quantity.parse(text) <= 0:
                raise ValueError
        except ValueError:
            problem = f"{_show(value)} is not a positive quantity"
            raise self.error(key, problem, "write one such as 64, 500m, 512Gi or 2Ti") from None
        return text

    def string_map(self, key: str) -> dict[str, str]:
        """A mapping of text to text, such as labels."""
        child = self.child(key)
        if child is None:
            return {}
        for name, value in child.value.items():
            if not isinstance(name, str) or not isinstance(value, str):
                raise child.error(str(name), f"must be text, not {_kind(value)}", f'write it in quotes: "{value}"')
        return dict(child.value)


def unique(file: str, names: Iterable[tuple[str, str]]) -> None:
    """Refuse two fields (path, name) with the same name."""
    seen: dict[str, str] = {}
    for path, name in names:
        if name in seen:
            raise FleetError(file, path, f'"{name}" is already used by {seen[name]}', "give each a name of its own")
        seen[name] = path


def _kind(value: Any) -> str:
    names = {dict: "a mapping", list: "a list", str: "text", bool: "true/false", int: "a number", float: "a number"}
    return "nothing" if value is None else names.get(type(value), type(value).__name__)


def _show(value: Any) -> str:
    return f'"{value}"' if isinstance(value, str) else str(value)
