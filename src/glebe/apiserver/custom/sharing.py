"""What is made of CustomResourceDefinitions, once per content: ten thousand clusters with one definition share it.

Everything here is immutable and found again by a hash of its content; it lives as long as a cluster uses it.
"""

from __future__ import annotations

import hashlib
import weakref
from collections.abc import Iterable, Mapping
from typing import Any

from glebe.apiserver.types.registry import ResourceInfo


class CustomKind:
    """One established definition: its versions, served or not, and how objects get from one to another.

    ``conversion`` is ``spec.conversion`` (``{"strategy": "None"}`` when it is left out). ``dated``: its specification
    has changed since it was created, so that objects may be stored that an earlier schema let in.
    """

    __slots__ = (
        "__weakref__",
        "conversion",
        "dated",
        "digest",
        "name",
        "served",
        "storage_version",
        "stored_versions",
        "terminating",
        "versions",
    )

    def __init__(
        self,
        name: str,
        digest: str,
        *,
        conversion: Mapping[str, Any],
        stored_versions: tuple[str, ...],
        dated: bool,
        terminating: bool,
    ) -> None:
        self.name = name
        self.digest = digest
        self.conversion = conversion
        self.stored_versions = stored_versions
        self.dated = dated
        self.terminating = terminating
        self.storage_version = ""
        self.versions: dict[str, ResourceInfo] = {}
        self.served: tuple[ResourceInfo, ...] = ()

    def converts(self, info: ResourceInfo) -> bool:
        """See :attr:`ResourceInfo.converts`."""
        if info.version != self.storage_version:
            stored = self.versions[self.storage_version]
            return self.by_webhook or self.dated or info.raw_schema != stored.raw_schema
        return self.dated

    def reads_like(self, other: CustomKind | None) -> bool:
        """Do objects look the same to those who read or watch them under ``other``?"""
        return (
            other is not None
            and [i.version for i in self.served] == [i.version for i in other.served]
            and self.conversion == other.conversion
            and all(i.raw_schema == other.versions[i.version].raw_schema for i in self.served)
            and all(i.selectable_fields == other.versions[i.version].selectable_fields for i in self.served)
        )

    @property
    def by_webhook(self) -> bool:
        return self.conversion.get("strategy") == "Webhook"


class ClusterTypes:
    """The custom resources of a logical cluster: shared by all clusters with the same definitions."""

    __slots__ = ("__weakref__", "fingerprint", "index", "infos", "kinds")

    def __init__(self, kinds: tuple[CustomKind, ...], fingerprint: str) -> None:
        self.kinds = kinds
        self.fingerprint = fingerprint
        found = {(i.group, i.version, i.plural): i for kind in kinds for i in kind.served}
        self.index = dict(sorted(found.items()))
        self.infos = tuple(self.index.values())


_kinds: weakref.WeakValueDictionary[str, CustomKind] = weakref.WeakValueDictionary()
_types: weakref.WeakValueDictionary[str, ClusterTypes] = weakref.WeakValueDictionary()


def known(digest: str) -> CustomKind | None:
    """The kind that was made of a definition with this content, if some cluster still has it."""
    return _kinds.get(digest)


def keep(kind: CustomKind) -> None:
    _kinds[kind.digest] = kind


def cluster_types(kinds: Iterable[CustomKind]) -> ClusterTypes:
    """The types of a cluster with these definitions."""
    ordered = tuple(sorted(kinds, key=lambda k: k.name))
    fingerprint = hashlib.blake2b("\n".join(k.digest for k in ordered).encode(), digest_size=16).hexdigest()
    held = _types.get(fingerprint)
    if held is None:
        _types[fingerprint] = held = ClusterTypes(ordered, fingerprint)
    return held
