"""How the checks put what they found."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping
from typing import Any, NamedTuple, TypeAlias

Spec: TypeAlias = Mapping[str, Any]


class Violation(NamedTuple):
    reason: str
    detail: str

    def text(self) -> str:
        return f"{self.reason} ({self.detail})" if self.detail else self.reason


Check: TypeAlias = Callable[[Mapping[str, Any], Spec], "Violation | None"]
"""(pod metadata, pod spec) to what is wrong."""


def quoted(items: Iterable[str]) -> str:
    return ", ".join(f'"{item}"' for item in items)


def plural(word: str, count: int) -> str:
    """``volume``, ``volumes``."""
    return word if count == 1 else word + "s"


def containers(spec: Spec) -> Iterator[Mapping[str, Any]]:
    """All of them, in the order in which they are checked."""
    for field in ("initContainers", "containers", "ephemeralContainers"):
        yield from spec.get(field) or ()


def context(holder: Mapping[str, Any]) -> Mapping[str, Any]:
    """The securityContext of a container or a pod's spec."""
    return holder.get("securityContext") or {}


def named(names: list[str]) -> str:
    """``container "a"``, ``containers "a", "b"``."""
    return f"{plural('container', len(names))} {quoted(names)}"


def setters(pod: bool, names: list[str]) -> str:
    """``pod and container "a"``; empty when nobody."""
    return " and ".join((["pod"] if pod else []) + ([named(names)] if names else []))


def bad_containers(spec: Spec, is_bad: Callable[[Mapping[str, Any]], bool]) -> list[str]:
    """Names of the containers whose securityContext is bad."""
    return [c.get("name", "") for c in containers(spec) if is_bad(context(c))]


def is_windows(spec: Spec) -> bool:
    return (spec.get("os") or {}).get("name") == "windows"


def has_user_namespace(spec: Spec) -> bool:
    return spec.get("hostUsers") is False
