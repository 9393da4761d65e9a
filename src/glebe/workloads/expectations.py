"""What a controller has asked for and has not yet seen in its cache.

A cache lags behind the API. A controller that counts pods while its own creations are on their way creates too many;
so it notes each creation (by the name that it chose) and each deletion (by uid), and leaves numbers alone until the
cache shows them. Names make doubt resolvable: after a lost answer, or when an event does not come for a while, a look
at the API says whether the object exists.
"""

from __future__ import annotations

from dataclasses import dataclass, field

from glebe.kube.clock import Clock
from glebe.kube.objects import Object, ObjectKey, is_deleting

PATIENCE = 20.0
"""Seconds without the expected event until the API is asked."""


@dataclass(slots=True)
class _Awaited:
    creations: dict[str, float] = field(default_factory=dict)  # name -> when it may be doubted
    deletions: dict[str, float] = field(default_factory=dict)  # uid -> when it may be doubted


class Expectations:
    """Per owner. All methods are cheap and synchronous."""

    def __init__(self, clock: Clock) -> None:
        self._clock = clock
        self._awaited: dict[ObjectKey, _Awaited] = {}

    def creating(self, owner: ObjectKey, name: str) -> None:
        """Call before the creation is sent."""
        self._of(owner).creations[name] = self._clock.now() + PATIENCE

    def deleting(self, owner: ObjectKey, uid: str) -> None:
        """Call before the deletion is sent."""
        self._of(owner).deletions[uid] = self._clock.now() + PATIENCE

    def unsure(self, owner: ObjectKey, name: str) -> None:
        """The answer to a creation was lost: it may or may not have taken effect."""
        self._of(owner).creations[name] = self._clock.now()

    def created_not(self, owner: ObjectKey, name: str) -> None:
        """The creation did not take effect."""
        self._drop(owner, name=name)

    def deleted_not(self, owner: ObjectKey, uid: str) -> None:
        """The deletion did not take effect."""
        self._drop(owner, uid=uid)

    def observed(self, owner: ObjectKey, old: Object | None, new: Object | None) -> None:
        """Tell every change that the cache sees."""
        if owner not in self._awaited:
            return
        obj = new or old
        if obj is None:
            return
        self._drop(owner, name=obj["metadata"]["name"])
        if new is None or is_deleting(new):
            self._drop(owner, uid=obj["metadata"].get("uid", ""))

    def settled(self, owner: ObjectKey) -> bool:
        """Whether everything asked for has been seen. Deletions in doubt are forgiven: they can be repeated."""
        awaited = self._awaited.get(owner)
        if awaited is None:
            return True
        now = self._clock.now()
        for uid in [u for u, at in awaited.deletions.items() if at <= now]:
            self._drop(owner, uid=uid)
        return owner not in self._awaited

    def doubtful(self, owner: ObjectKey) -> list[str]:
        """Names of creations to look up in the API."""
        awaited = self._awaited.get(owner)
        now = self._clock.now()
        return [n for n, at in awaited.creations.items() if at <= now] if awaited else []

    def wait(self, owner: ObjectKey) -> float | None:
        """Seconds until something becomes doubtful."""
        awaited = self._awaited.get(owner)
        if awaited is None:
            return None
        times = [*awaited.creations.values(), *awaited.deletions.values()]
        return max(0.0, min(times) - self._clock.now()) if times else None

    def forget(self, owner: ObjectKey) -> None:
        """The owner is gone."""
        self._awaited.pop(owner, None)

    def _of(self, owner: ObjectKey) -> _Awaited:
        return self._awaited.setdefault(owner, _Awaited())

    def _drop(self, owner: ObjectKey, *, name: str | None = None, uid: str | None = None) -> None:
        awaited = self._awaited.get(owner)
        if awaited is None:
            return
        if name is not None:
            awaited.creations.pop(name, None)
        if uid is not None:
            awaited.deletions.pop(uid, None)
        if not awaited.creations and not awaited.deletions:
            del self._awaited[owner]
