"""Which volumes anybody may still get, and what decided pods will get before the API knows it."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, field

from glebe.kube.objects import Object
from glebe.kube.storage import class_of


@dataclass(slots=True)
class Decision:
    """What one pod gets on its node: volumes by claim (``namespace/name``), and claims for which one is to be made."""

    node: str
    static: dict[str, str] = field(default_factory=dict)
    made: list[str] = field(default_factory=list)
    told: dict[str, str] = field(default_factory=dict)  # claim -> the version in which its node was written


class Ledger:
    """Free volumes by class, and decisions by pod."""

    def __init__(self) -> None:
        self._free: dict[str, dict[str, Object]] = {}
        self._class_of: dict[str, str] = {}
        self._reserved: dict[str, dict[str, None]] = {}  # claim -> volumes that name it
        self._claim_of: dict[str, str] = {}
        self.decisions: dict[str, Decision] = {}

    def take_in(self, old: Object | None, new: Object | None) -> None:
        """A volume came, changed or went."""
        name = (new or old or {})["metadata"]["name"]
        before = self._class_of.pop(name, None)
        if before is not None:
            del self._free[before][name]
            if not self._free[before]:
                del self._free[before]
        claim = self._claim_of.pop(name, None)
        if claim is not None:
            del self._reserved[claim][name]
            if not self._reserved[claim]:
                del self._reserved[claim]
        if new is None:
            return
        ref = (new.get("spec") or {}).get("claimRef")
        if ref:
            if (new.get("status") or {}).get("phase") != "Bound":
                path = f"{ref.get('namespace')}/{ref.get('name')}"
                self._claim_of[name] = path
                self._reserved.setdefault(path, {})[name] = None
        elif (new.get("status") or {}).get("phase") == "Available":
            kind = class_of(new)
            self._class_of[name] = kind
            self._free.setdefault(kind, {})[name] = new

    def free(self, kind: str) -> Iterable[Object]:
        """Volumes of a class that are nobody's."""
        return self._free.get(kind, {}).values()

    def reserved(self, claim: str) -> list[str]:
        """Volumes that name the claim."""
        return list(self._reserved.get(claim, ()))

    def taken(self) -> set[str]:
        """Volumes that decided pods get."""
        return {name for decision in self.decisions.values() for name in decision.static.values()}

    def decided(self, claim: str) -> tuple[str, str] | None:
        """(node, volume or "") that a decided pod has chosen for the claim."""
        for decision in self.decisions.values():
            if claim in decision.static:
                return decision.node, decision.static[claim]
            if claim in decision.made:
                return decision.node, ""
        return None
