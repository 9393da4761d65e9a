"""Node affinity, required and preferred, against the labels of flavors and nodes."""

from __future__ import annotations

from collections.abc import Callable, Mapping

from glebe.scheduling.model import Expression, Preferred

Terms = tuple[tuple[Expression, ...], ...]


def chosen_by(terms: Terms, labels: Mapping[str, str]) -> bool:
    """May pods of this affinity use a flavor with these node labels?

    As in Kueue, only what is said of the flavor's own labels counts: other labels are the nodes' affair. A term that
    says nothing of them leaves the choice open.
    """
    for term in terms:
        own = [e for e in term if e.key in labels]
        if all(_holds(e, labels[e.key]) for e in own):
            return True
    return not terms


def lets_on(terms: Terms, labels: Mapping[str, str]) -> bool:
    """May pods of this affinity run on a node with these labels? Some term must hold, if there are any."""
    return not terms or any(all(_holds_on(e, labels) for e in term) for term in terms)


def liking(preferred: tuple[Preferred, ...], labels: Mapping[str, str]) -> int:
    """How much pods prefer a node with these labels: the sum of the weights of the terms that hold."""
    return sum(p.weight for p in preferred if p.term and all(_holds_on(e, labels) for e in p.term))


def _holds_on(expression: Expression, labels: Mapping[str, str]) -> bool:
    value = labels.get(expression.key)
    if value is None:
        return expression.operator in ("NotIn", "DoesNotExist")
    return _holds(expression, value)


def _holds(expression: Expression, value: str) -> bool:
    return _OPERATORS[expression.operator](value, expression.values)


def _number(text: str) -> int | None:
    try:
        return int(text)
    except ValueError:
        return None


def _compared(value: str, values: tuple[str, ...], sign: int) -> bool:
    have, want = _number(value), _number(values[0]) if values else None
    return have is not None and want is not None and (have - want) * sign > 0


#: What is true of a label that is there.
_OPERATORS: dict[str, Callable[[str, tuple[str, ...]], bool]] = {
    "In": lambda value, values: value in values,
    "NotIn": lambda value, values: value not in values,
    "Exists": lambda value, values: True,
    "DoesNotExist": lambda value, values: False,
    "Gt": lambda value, values: _compared(value, values, 1),
    "Lt": lambda value, values: _compared(value, values, -1),
}
