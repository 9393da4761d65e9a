"""How much an expression can cost at most, from how big its inputs can be (cel-go's and Kubernetes' cost estimators).

Numbers are Python's: they do not overflow, however hopeless the expression is.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from glebe.cel import authorization
from glebe.cel.checker import Checked
from glebe.cel.syntax import (
    Call,
    Ident,
    ListLiteral,
    Literal,
    Macro,
    MapLiteral,
    Node,
    Select,
    StructLiteral,
)

_UNKNOWN = 1 << 64


@dataclass(frozen=True, slots=True)
class Estimate:
    """``size``: characters, items or entries of the value; 1 for scalars."""

    cost: int
    size: int


def estimate(tree: Node, checked: Checked) -> int:
    """The most that one evaluation can cost."""
    return _Estimator(checked).of(tree).cost


def _tenth(size: int) -> int:
    return (size + 9) // 10


class _Estimator:
    def __init__(self, checked: Checked) -> None:
        self._checked = checked

    def of(self, node: Node) -> Estimate:
        return _VISITORS[type(node)](self, node)

    def _size(self, node: Node) -> int:
        """What its type says about how big a value can be."""
        kind = self._checked.type_of(node)
        if kind.largest >= 0:
            return kind.largest
        if kind.kind in ("string", "bytes", "list", "map", "dyn"):
            return _UNKNOWN
        return 1

    def _literal(self, node: Literal) -> Estimate:
        return Estimate(0, len(node.value) if isinstance(node.value, (str, bytes)) else 1)

    def _ident(self, node: Ident) -> Estimate:
        return Estimate(0 if id(node) in self._checked.names else 1, self._size(node))

    def _select(self, node: Select) -> Estimate:
        if id(node) in self._checked.names:
            return Estimate(0, 1)
        operand = self.of(node.operand)
        return Estimate(operand.cost + (0 if node.test else 1), 1 if node.test else self._size(node))

    def _list(self, node: ListLiteral) -> Estimate:
        return Estimate(10 + sum(self.of(item).cost for item in node.items), len(node.items))

    def _map(self, node: MapLiteral) -> Estimate:
        cost = sum(self.of(key).cost + self.of(value).cost for key, value, _ in node.entries)
        return Estimate(30 + cost, len(node.entries))

    def _struct(self, node: StructLiteral) -> Estimate:
        return Estimate(40 + sum(self.of(value).cost for _, value, _, _ in node.entries), 1)

    def _call(self, node: Call) -> Estimate:
        if node.name == "_?_:_":
            condition, yes, no = (self.of(arg) for arg in node.args)
            return Estimate(condition.cost + max(yes.cost, no.cost), max(yes.size, no.size))
        parts = [self.of(arg) for arg in node.args]
        if node.target is not None and id(node) not in self._checked.names:
            parts.insert(0, self.of(node.target))
        cost = sum(part.cost for part in parts)
        if node.name in ("_&&_", "_||_"):
            return Estimate(cost, 1)
        sizes = [part.size for part in parts]
        own, size = self._function(node, sizes)
        return Estimate(cost + own, size)

    def _function(self, node: Call, sizes: list[int]) -> tuple[int, int]:
        """(cost of the call itself, size of its result)."""
        if node.name in _COMPARED:
            return max(1, _tenth(min(sizes))), 1
        if node.name == "@in":
            return max(1, sizes[1]) if self._checked.type_of(node.args[1]).kind != "map" else 1, 1
        if node.name == "_+_":
            sized = self._checked.type_of(node).kind in ("string", "bytes", "list", "dyn")
            return (max(1, _tenth(sum(sizes))), sum(sizes)) if sized else (1, 1)
        if node.name in ("_[_]", "_[?_]"):
            return 1, self._size(node)
        overloads = self._checked.overloads.get(id(node), [])
        cost = max((_COSTS[o.cost](sizes) for o in overloads), default=1)
        result = self._checked.type_of(node)
        if result.kind in ("string", "bytes", "list", "map", "dyn") and result.largest < 0:
            return cost, max(sum(sizes), 1) if node.name in _SIZED else _UNKNOWN
        return cost, max(result.largest, 1)

    def _macro(self, node: Macro) -> Estimate:
        over = self.of(node.operand)
        body = sum(self.of(arg).cost for arg in node.args)
        if node.kind in ("optMap", "optFlatMap"):
            return Estimate(over.cost + body + 2, self._size(node))
        if node.kind == "bind":
            return Estimate(over.cost + body + 10, self._size(node))
        each, size = _ITERATIONS[node.kind], 1
        if node.kind not in ("all", "exists", "exists_one"):
            size = over.size
        return Estimate(over.cost + over.size * (each + body) + 1 + (10 if size != 1 else 0), size)


#: functions whose result is known to be no longer than what they are given; as upstream, nothing is known of others
_SIZED = frozenset(
    {"lowerAscii", "upperAscii", "substring", "trim", "replace", "split", "join", "find", "findAll", "charAt"}
)
_COMPARED = frozenset({"_==_", "_!=_", "_<_", "_<=_", "_>_", "_>=_"})
_ITERATIONS = {
    "all": 3,
    "exists": 4,
    "exists_one": 4,
    "filter": 13,
    "map": 12,
    "transformList": 12,
    "transformMap": 12,
    "transformMapEntry": 12,
}


def _regex(sizes: list[int]) -> int:
    return _tenth(sizes[0] + 1) * max(1, (sizes[1] + 3) // 4)


_COSTS: dict[str, Callable[[list[int]], int]] = {
    "": lambda sizes: 1,
    "text": lambda sizes: max(1, _tenth(sizes[0])),
    "second": lambda sizes: max(1, _tenth(sizes[1])),
    "product": lambda sizes: max(1, _tenth(sizes[0]) * max(1, _tenth(sizes[1]))),
    "regex": _regex,
    "items": lambda sizes: max(1, sizes[0]),
    "items*items": lambda sizes: max(1, sizes[0] * sizes[1]),
    "check": lambda sizes: authorization.CHECK_COST,
}
_VISITORS: dict[type, Callable[..., Estimate]] = {
    Literal: _Estimator._literal,
    Ident: _Estimator._ident,
    Select: _Estimator._select,
    ListLiteral: _Estimator._list,
    MapLiteral: _Estimator._map,
    StructLiteral: _Estimator._struct,
    Call: _Estimator._call,
    Macro: _Estimator._macro,
}
