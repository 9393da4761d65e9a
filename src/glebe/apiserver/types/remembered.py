"""Work on pods' specs that need not be done again: most are stamped from few templates.

What a step of a write finds out about a spec (its types are right, nothing is to be filled in, no rule is broken, which
fields it has) depends on its content alone, so that it can be kept by a digest of that. The memories are bounded, and
shared by all logical clusters. Fields that differ from pod to pod while they change nothing (:data:`VARYING`) are left
out of the digest; whoever asks must see to them himself.
"""

from __future__ import annotations

from collections.abc import Callable
from hashlib import sha256
from typing import Any, Generic, TypeVar

import orjson

T = TypeVar("T")

VARYING = ("hostname", "nodeName")
"""Texts that stand for themselves: no other field's meaning depends on them."""

_KEPT = 2048
_MISSES, _NOW_AND_THEN = 32, 8
_PLAIN = orjson.OPT_PASSTHROUGH_DATETIME | orjson.OPT_PASSTHROUGH_SUBCLASS | orjson.OPT_PASSTHROUGH_DATACLASS


def digest(value: Any) -> bytes:
    """Of JSON: equal for equal texts only (1 and 1.0, or another order of fields, are other texts).

    :raises TypeError: it is no JSON (dates of a YAML body), or nested too deeply.
    """
    return sha256(orjson.dumps(value, option=_PLAIN)).digest()


def digest_of_spec(spec: dict[str, Any]) -> bytes:
    """The same of a pod's spec, whatever its varying texts are, and whether or not it has them."""
    for name in VARYING:
        if type(spec.get(name)) is str:
            return digest({k: v for k, v in spec.items() if k not in VARYING or type(v) is not str})
    return digest(spec)


class Memory(Generic[T]):
    """Results by digest; when full, the older half goes.

    Where nothing comes twice, looking costs more than it saves: after many misses it is tried now and then only.
    """

    __slots__ = ("_found", "_kept", "_misses", "_turn")

    def __init__(self, kept: int = _KEPT) -> None:
        self._found: dict[bytes, T] = {}
        self._kept = kept
        self._misses = 0
        self._turn = 0

    def look(self) -> bool:
        """Whether to look this time; to be asked once for each piece of work."""
        if self._misses < _MISSES:
            return True
        self._turn = (self._turn + 1) % _NOW_AND_THEN
        return not self._turn

    def is_worth_it(self) -> bool:
        """What the last :meth:`look` said: a result that was not looked for need not be kept."""
        return self._misses < _MISSES or not self._turn

    def get(self, key: bytes) -> T | None:
        found = self._found.get(key)
        self._misses = self._misses + 1 if found is None else 0
        return found

    def put(self, key: bytes, result: T) -> None:
        found = self._found
        if len(found) >= self._kept:
            for old in list(found)[: self._kept // 2]:
                del found[old]
        found[key] = result


def once(check: Callable[[Any], bool]) -> Callable[[Any], bool]:
    """``check`` of pods' specs, not repeated for what it said yes to."""
    right: Memory[bool] = Memory()

    def look(value: Any) -> bool:
        if type(value) is not dict or not right.look():
            return check(value)
        try:
            key = digest_of_spec(value)
        except TypeError:
            return check(value)
        if right.get(key):
            return True
        if not check(value):
            return False
        right.put(key, True)
        return True

    return look
