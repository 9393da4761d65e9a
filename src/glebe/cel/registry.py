"""Functions: what they take, what they give, what they cost, and the Python that does it."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import cache
from typing import Any

from glebe.cel import types as t
from glebe.cel.budget import Budget
from glebe.cel.syntax import UInt
from glebe.cel.values import Duration, Lazy, Optional, Timestamp, TypeValue, no_overload

Implementation = Callable[..., Any]

#: kind of a static type -> the Python classes of its values (libraries add theirs)
CLASSES: dict[str, tuple[type, ...]] = {
    "bool": (bool,),
    "int": (int,),
    "uint": (UInt,),
    "double": (float,),
    "string": (str,),
    "bytes": (bytes,),
    "null": (type(None),),
    "list": (list,),
    "map": (dict, Lazy),
    "timestamp": (Timestamp,),
    "duration": (Duration,),
    "optional": (Optional,),
    "type": (TypeValue,),
}


@dataclass(frozen=True, slots=True)
class Overload:
    """One way to call a function. ``run(budget, *args)``: it spends what it costs before it works.

    ``member``: the first argument stands before the dot.
    """

    name: str
    member: bool
    args: tuple[t.Type, ...]
    result: t.Type
    run: Implementation
    cost: str = ""

    def takes(self, classes: tuple[type, ...]) -> bool:
        """Do values of these Python classes fit?"""
        return all(_fits(kind, given) for kind, given in zip(self.args, classes, strict=True))


def _fits(kind: t.Type, given: type) -> bool:
    if kind.kind in ("dyn", "free", "param"):
        return True
    wanted = CLASSES[kind.kind]
    return given in wanted or (kind.kind not in ("int", "bool") and issubclass(given, wanted))


class Library:
    """Overloads by name; ``add`` declares one in the notation ``string.find(string) -> string``."""

    def __init__(self) -> None:
        self._by_name: dict[str, list[Overload]] = {}

    def add(self, signature: str, run: Implementation, cost: str = "") -> None:
        """``cost``: how the static estimate counts it (:mod:`.estimate`); "" is 1."""
        head, _, result = signature.partition("->")
        name, _, rest = head.strip().partition("(")
        args = list(_split(rest.rstrip().removesuffix(")")))
        member = False
        receiver, dot, last = name.rpartition(".")
        if "(" not in name and dot and receiver.startswith("@"):
            member, name, args = True, last, [receiver[1:], *args]
        types = tuple(t.parse_type(a) for a in args)
        overload = Overload(name, member, types, t.parse_type(result), run, cost)
        self._by_name.setdefault(name, []).append(overload)

    def member(self, receiver: str, rest: str, run: Implementation, cost: str = "") -> None:
        """``member("list(A)", "sum() -> A", ...)``."""
        head, _, result = rest.partition("->")
        name, _, args = head.strip().partition("(")
        types = tuple(t.parse_type(a) for a in (receiver, *_split(args.rstrip().removesuffix(")"))))
        self._by_name.setdefault(name, []).append(Overload(name, True, types, t.parse_type(result), run, cost))

    def overloads(self, name: str, member: bool, arity: int) -> list[Overload]:
        """All ways to call ``name`` with so many arguments (the receiver counted)."""
        return [o for o in self._by_name.get(name, ()) if o.member == member and len(o.args) == arity]

    def knows(self, name: str) -> bool:
        return name in self._by_name


def _split(args: str) -> Iterator[str]:
    depth, piece = 0, ""
    for char in args:
        if char == "," and depth == 0:
            yield piece
            piece = ""
            continue
        depth += (char == "(") - (char == ")")
        piece += char
    if piece.strip():
        yield piece


def dispatcher(name: str, candidates: list[Overload]) -> Implementation:
    """One function that chooses the overload by its arguments' classes, and remembers the choice."""
    if len(candidates) == 1 and all(a.kind in ("dyn", "param") for a in candidates[0].args):
        return candidates[0].run
    chosen: dict[tuple[type, ...], Implementation] = {}
    limit = 256  # classes are few: this is a guard, not a working set

    def call(budget: Budget, *args: Any) -> Any:
        classes = tuple(map(type, args))
        run = chosen.get(classes)
        if run is None:
            run = next((o.run for o in candidates if o.takes(classes)), None)
            if run is None:
                raise no_overload(name)
            if len(chosen) < limit:
                chosen[classes] = run
        return run(budget, *args)

    return call


@cache
def standard() -> Library:
    """All libraries of Kubernetes, loaded when the first expression is compiled."""
    from glebe.cel import authorization, collections, kubernetes, network, standard, strings

    library = Library()
    for module in (standard, strings, collections, kubernetes, network, authorization):
        module.declare(library)
    return library
