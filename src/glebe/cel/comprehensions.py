"""Comprehensions: going over lists and maps, at the cost of one step for each element."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from typing import Any

from glebe.cel.budget import EvalError, OutOfBudget
from glebe.cel.values import no_overload

Frame = list[Any]
Step = Callable[[Frame], Any]


def iteration(
    operand: Step, places: list[int], convert: Callable[[Any], Any] | None
) -> Callable[[Frame], Iterator[None]]:
    """Goes over the range with the variables in their places, at the cost of one step each."""
    first = places[0]
    second = places[1] if len(places) == 2 else 0

    def run(frame: Frame) -> Iterator[None]:
        over = operand(frame)
        budget = frame[0]
        if type(over) is list:
            for position, item in enumerate(over):
                budget.left -= 1
                if budget.left < 0:
                    raise OutOfBudget
                value = item if convert is None else convert(item)
                if second:
                    frame[first], frame[second] = position, value
                else:
                    frame[first] = value
                yield
        elif isinstance(over, dict):
            for key, value in list(over.items()):
                budget.spend(1)
                frame[first] = key
                if second:
                    frame[second] = value
                yield
        else:
            raise no_overload("comprehension range")

    return run


_Over = Callable[[Frame], Iterator[None]]


def fold(absorbing: bool, frame: Frame, steps: Iterable[Step]) -> bool:
    """``&&`` and ``||`` over steps: the first that is ``absorbing`` decides; an error counts only if none does."""
    error: EvalError | None = None
    for step in steps:
        try:
            value = step(frame)
        except EvalError as caught:
            error = error or caught
            continue
        if type(value) is not bool:
            error = error or no_overload()
        elif value is absorbing:
            return absorbing
    if error is not None:
        raise error
    return not absorbing


def _quantifier(absorbing: bool) -> Callable[[_Over, list[int], list[Step]], Step]:
    def make(over: _Over, places: list[int], args: list[Step]) -> Step:
        (body,) = args
        return lambda frame: fold(absorbing, frame, (body for _ in over(frame)))

    return make


def _exists_one(over: _Over, places: list[int], args: list[Step]) -> Step:
    (body,) = args
    return lambda frame: sum(_truth(body(frame)) for _ in over(frame)) == 1


def _truth(value: Any) -> bool:
    if type(value) is not bool:
        raise no_overload()
    return value


def _filter(over: _Over, places: list[int], args: list[Step]) -> Step:
    (body,) = args
    place = places[0]

    def run(frame: Frame) -> list[Any]:
        frame[0].spend(10)
        return [frame[place] for _ in over(frame) if _truth(body(frame))]

    return run


def _transform_list(over: _Over, places: list[int], args: list[Step]) -> Step:
    body = args[-1]
    guard = args[0] if len(args) == 2 else None

    def run(frame: Frame) -> list[Any]:
        frame[0].spend(10)
        return [body(frame) for _ in over(frame) if guard is None or _truth(guard(frame))]

    return run


def _transform_map(over: _Over, places: list[int], args: list[Step]) -> Step:
    body = args[-1]
    guard = args[0] if len(args) == 2 else None
    place = places[0]

    def run(frame: Frame) -> dict[Any, Any]:
        frame[0].spend(30)
        out: dict[Any, Any] = {}
        for _ in over(frame):
            if guard is None or _truth(guard(frame)):
                out[frame[place]] = body(frame)
        return out

    return run


def _transform_entry(over: _Over, places: list[int], args: list[Step]) -> Step:
    body = args[-1]
    guard = args[0] if len(args) == 2 else None

    def run(frame: Frame) -> dict[Any, Any]:
        frame[0].spend(30)
        out: dict[Any, Any] = {}
        for _ in over(frame):
            if guard is not None and not _truth(guard(frame)):
                continue
            entry = body(frame)
            if not isinstance(entry, dict):
                raise no_overload("transformMapEntry")
            for key, value in entry.items():
                frame[0].spend(1)
                if key in out:
                    raise EvalError(f"insert failed: key {key} already exists")
                out[key] = value
        return out

    return run


COMPREHENSIONS: dict[str, Callable[[_Over, list[int], list[Step]], Step]] = {
    "all": _quantifier(False),
    "exists": _quantifier(True),
    "exists_one": _exists_one,
    "filter": _filter,
    "map": _transform_list,
    "transformList": _transform_list,
    "transformMap": _transform_map,
    "transformMapEntry": _transform_entry,
}
