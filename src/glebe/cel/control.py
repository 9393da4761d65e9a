"""What decides which of its arguments are evaluated: ``&&``, ``||``, ``!``, ``?:``, and what optionals hold."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from glebe.cel.comprehensions import Frame, Step, fold
from glebe.cel.values import Optional, no_overload, type_name


def _junction(absorbing: bool) -> Callable[[list[Step]], Step]:
    """``&&`` and ``||``: an error counts only if no other argument decides."""
    return lambda args: lambda frame: fold(absorbing, frame, args)


def _negation(args: list[Step]) -> Step:
    (only,) = args

    def run(frame: Frame) -> bool:
        frame[0].spend(1)
        value = only(frame)
        if type(value) is not bool:
            raise no_overload(f"!_ applied to ({type_name(value)})")
        return not value

    return run


def _choice(args: list[Step]) -> Step:
    condition, yes, no = args

    def run(frame: Frame) -> Any:
        value = condition(frame)
        if type(value) is not bool:
            raise no_overload()
        return yes(frame) if value else no(frame)

    return run


def or_value(optional: Step, other: Step, unwrap: bool) -> Step:
    def run(frame: Frame) -> Any:
        frame[0].spend(1)
        value = optional(frame)
        if type(value) is not Optional:
            raise no_overload("orValue" if unwrap else "or")
        if value.present:
            return value.value if unwrap else value
        return other(frame)

    return run


def opt_map(operand: Step, place: int, body: Step, wrap: bool) -> Step:
    def run(frame: Frame) -> Any:
        frame[0].spend(1)
        value = operand(frame)
        if type(value) is not Optional:
            raise no_overload("optMap")
        if not value.present:
            return value
        frame[place] = value.value
        result = body(frame)
        if wrap:
            return Optional(True, result)
        if type(result) is not Optional:
            raise no_overload("optFlatMap")
        return result

    return run


def bound(value: Step, place: int, body: Step) -> Step:
    """``cel.bind``: evaluated once, when the body first needs it or not at all; here always, which is no difference
    but for a value that fails and is not needed."""

    def run(frame: Frame) -> Any:
        frame[0].spend(1)
        frame[place] = value(frame)
        return body(frame)

    return run


SPECIAL: dict[str, Callable[[list[Step]], Step]] = {
    "_&&_": _junction(False),
    "_||_": _junction(True),
    "!_": _negation,
    "_?_:_": _choice,
}
