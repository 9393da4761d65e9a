"""Which resources a logical cluster serves: the built-in ones, shared by all, and its own custom ones.

The built-in table is data (``apiserver/data/resources.json``); a kind's schema is decoded when it is first asked for.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from functools import cache, cached_property
from types import MappingProxyType
from typing import TYPE_CHECKING, Any

from glebe.apiserver.types import release, runtimeconfig
from glebe.kube.objects import EVERY, Object
from glebe.kube.resources import Resource

if TYPE_CHECKING:
    from glebe.apiserver.custom.sharing import ClusterTypes, CustomKind
    from glebe.apiserver.types.conversion import Conversion
    from glebe.apiserver.types.schema import Schema


@dataclass(frozen=True, slots=True)
class SubresourceInfo:
    """What stands below one object, e.g. ``status``; ``group``, ``version`` and ``kind`` are of the body it takes."""

    name: str
    group: str
    version: str
    kind: str
    verbs: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class PrinterColumn:
    """One column of a custom resource's table (``additionalPrinterColumns``)."""

    name: str
    type: str
    json_path: str
    format: str = ""
    description: str = ""
    priority: int = 0


@dataclass(frozen=True, slots=True)
class ScalePaths:
    """Where a custom resource keeps what its ``scale`` subresource shows (dotted JSON paths, with a leading dot)."""

    spec_replicas: str
    status_replicas: str
    label_selector: str = ""


@dataclass(frozen=True)
class ResourceInfo:
    """One REST collection in one version: everything that the server must know about it.

    ``verbs`` are the API's (create, delete, deletecollection, get, list, patch, update, watch). ``subresources`` are
    names; ``subresource(name)`` says more. ``storage_version`` is the version in which objects are stored.
    """

    group: str
    version: str
    plural: str
    singular: str
    kind: str
    list_kind: str
    namespaced: bool
    verbs: tuple[str, ...]
    short_names: tuple[str, ...] = ()
    categories: tuple[str, ...] = ()
    subresources: tuple[str, ...] = ()
    printer_columns: tuple[PrinterColumn, ...] = ()
    storage_version: str = ""
    is_custom: bool = False
    #: dotted paths that field selectors may name, besides metadata.name and metadata.namespace
    selectable_fields: tuple[str, ...] = ()
    scale: ScalePaths | None = None
    #: the full name of a built-in kind's schema, e.g. io.k8s.api.batch.v1.Job
    definition: str = ""
    #: upstream serves it only when it is told to
    optional: bool = False
    subresource_infos: Mapping[str, SubresourceInfo] = field(
        default_factory=lambda: MappingProxyType({}), compare=False, repr=False
    )
    #: a custom resource's own openAPIV3Schema
    raw_schema: Mapping[str, Any] | None = field(default=None, compare=False, repr=False)
    #: what users of a deprecated version are told
    deprecation: str = ""
    #: the definition that a custom resource is one version of
    custom: CustomKind | None = field(default=None, compare=False, repr=False)

    @cached_property
    def api_version(self) -> str:
        """``v1`` or ``batch/v1``, as it stands in an object."""
        return f"{self.group}/{self.version}" if self.group else self.version

    @cached_property
    def group_resource(self) -> str:
        """``pods`` or ``jobs.batch``: the name under which objects are stored and rights are given."""
        return f"{self.plural}.{self.group}" if self.group else self.plural

    @cached_property
    def conversion(self) -> Conversion | None:
        """How a built-in form that is not the stored one is kept; None for all others."""
        if self.is_custom:
            return None
        from glebe.apiserver.types.conversion import conversion_of  # late: a conversion knows other kinds

        return conversion_of(self.group, self.version, self.plural)

    @cached_property
    def stored_as(self) -> str:
        """The group resource under which the objects are stored."""
        return self.conversion.stored_as if self.conversion is not None else self.group_resource

    @cached_property
    def resource(self) -> Resource:
        """The client's view of the same collection."""
        return Resource(self.group, self.version, self.plural, self.kind, self.namespaced)

    @cached_property
    def schema(self) -> Schema | None:
        """The kind's schema, decoded on first use; None for what is stored without one."""
        from glebe.apiserver.types import schema  # late: decoding a schema needs the data files, lookups do not

        return schema.load(self)

    @cached_property
    def has_status(self) -> bool:
        """Status is written through its own subresource only."""
        return "status" in self.subresources

    @cached_property
    def converts(self) -> bool:
        """Stored objects may have to be converted or defaulted before they can be read in this version."""
        return self.custom is not None and self.custom.converts(self)

    def subresource(self, name: str) -> SubresourceInfo | None:
        return self.subresource_infos.get(name)


def _subresource(name: str, row: dict[str, Any]) -> SubresourceInfo:
    group, version, kind = row["kind"]
    return SubresourceInfo(name, group, version, kind, tuple(row["verbs"]))


def _builtin(row: dict[str, Any]) -> ResourceInfo:
    subresources = {name: _subresource(name, sub) for name, sub in row.get("subresources", {}).items()}
    kind = row["kind"]
    return ResourceInfo(
        group=row["group"],
        version=row["version"],
        plural=row["plural"],
        singular=kind.lower(),
        kind=kind,
        list_kind=f"{kind}List",
        namespaced=row.get("namespaced", False),
        verbs=tuple(row["verbs"]),
        short_names=tuple(row.get("short", ())),
        categories=tuple(row.get("categories", ())),
        subresources=tuple(subresources),
        definition=row["schema"],
        optional=row.get("optional", False),
        storage_version=row.get("storage", row["version"]),
        selectable_fields=tuple(row.get("fields", ())),
        subresource_infos=MappingProxyType(subresources),
    )


@cache
def builtins() -> tuple[ResourceInfo, ...]:
    """Every built-in resource that is served, in the order in which discovery lists them."""
    return tuple(_builtin(row) for row in runtimeconfig.served_rows())


@cache
def known() -> tuple[ResourceInfo, ...]:
    """Every built-in resource, served or not."""
    return tuple(_builtin(row) for row in release.resource_rows())


@cache
def _builtin_index() -> dict[tuple[str, str, str], ResourceInfo]:
    return {(i.group, i.version, i.plural): i for i in builtins()}


@cache
def _builtin_names() -> frozenset[tuple[str, str]]:
    return frozenset((i.group, i.plural) for i in builtins())


@cache
def _builtin_kinds() -> dict[tuple[str, str, str], ResourceInfo]:
    return {(i.group, i.version, i.kind): i for i in builtins()}


class TypeRegistry:
    """The resources of one server. Built-ins are shared; custom resources belong to a logical cluster, and clusters
    whose definitions have the same content share what was made of them.
    """

    def __init__(self) -> None:
        self._clusters: dict[str, ClusterTypes] = {}
        self._changed_at: dict[tuple[str, str], int] = {}
        self._together: dict[tuple[str, str, str], ResourceInfo] | None = None
        self._attached: dict[tuple[str, str, str], ResourceInfo] = {}
        self._attached_mark = ""

    def attach(self, infos: Iterable[ResourceInfo]) -> None:
        """Serve further resources in every cluster, which somebody answers (``ApiServer.answered``) and nobody stores.

        They describe themselves by ``raw_schema`` and are marked as custom. Before the server starts.
        """
        self._attached |= {(info.group, info.version, info.plural): info for info in infos}
        self._attached_mark = "".join("+" + "/".join(address) for address in self._attached)

    def _every(self) -> dict[tuple[str, str, str], ResourceInfo]:
        """The custom resources of all clusters (``*``): of several under one name any will do."""
        if self._together is None:
            found: dict[tuple[str, str, str], ResourceInfo] = {}
            for types in {id(t): t for t in self._clusters.values()}.values():
                found |= types.index
            self._together = dict(sorted(found.items()))
        return self._together

    def lookup(self, cluster: str, group: str, version: str, plural: str) -> ResourceInfo | None:
        """The resource behind ``/apis/GROUP/VERSION/PLURAL`` in ``cluster``, or None."""
        key = (group, version, plural)
        found = _builtin_index().get(key)
        if found is None and (own := self._clusters.get(cluster)) is not None:
            found = own.index.get(key)
        elif found is None and cluster == EVERY:
            found = self._every().get(key)
        if found is None and self._attached:
            found = self._attached.get(key)
        return found

    def is_builtin(self, group: str, plural: str) -> bool:
        """Is there a built-in resource of this name, in any version?"""
        return (group, plural) in _builtin_names()

    def resources(self, cluster: str) -> Iterable[ResourceInfo]:
        """Everything served in ``cluster``: built-ins in discovery's order, then custom ones by group and name, then
        those that somebody answers: where two groups have one name, it means the custom one."""
        yield from builtins()
        if (own := self._clusters.get(cluster)) is not None:
            yield from own.infos
        elif cluster == EVERY:
            yield from self._every().values()
        yield from self._attached.values()

    def custom_kinds(self, cluster: str) -> tuple[CustomKind, ...]:
        """The established definitions of a cluster, by name."""
        own = self._clusters.get(cluster)
        return own.kinds if own is not None else ()

    def custom_kind(self, cluster: str, name: str) -> CustomKind | None:
        """What the definition called ``name`` makes the cluster serve; None while it is not established."""
        return next((k for k in self.custom_kinds(cluster) if k.name == name), None)

    def fingerprint(self, cluster: str) -> str:
        """Of the cluster's custom resources and what is attached: a key for caches of discovery and OpenAPI that all
        registries of a process share; "" for none."""
        own = self._clusters.get(cluster)
        if own is None and cluster == EVERY:
            return self._attached_mark + str(sorted({t.fingerprint for t in self._clusters.values()}))
        return self._attached_mark + own.fingerprint if own is not None else self._attached_mark

    def changed_at(self, cluster: str, group_resource: str) -> int:
        """Objects of a custom resource with this revision or an older one may have been stored under another schema."""
        return self._changed_at.get((cluster, group_resource), 0)

    def set_crd(self, cluster: str, crd: Object) -> tuple[ResourceInfo, ...]:
        """Serve what a CustomResourceDefinition declares if it is established; replaces what it served before."""
        from glebe.apiserver.custom.definitions import custom_kind  # late: only clusters with custom resources need it

        kind = custom_kind(crd)
        name = crd["metadata"]["name"]
        self._replace(cluster, name, kind)
        if kind is not None and kind.dated:
            self._changed_at[(cluster, name)] = int(crd["metadata"].get("resourceVersion") or 0)
        else:
            self._changed_at.pop((cluster, name), None)
        return kind.served if kind is not None else ()

    def _replace(self, cluster: str, name: str, kind: CustomKind | None) -> None:
        from glebe.apiserver.custom.sharing import cluster_types

        self._together = None
        own = self._clusters.get(cluster)
        kept = [k for k in own.kinds if k.name != name] if own is not None else []
        if kind is not None:
            kept.append(kind)
        if kept:
            self._clusters[cluster] = cluster_types(kept)
        else:
            self._clusters.pop(cluster, None)

    def remove_crd(self, cluster: str, crd: Object | str) -> None:
        """Stop serving a CustomResourceDefinition (the object or its name)."""
        name = crd if isinstance(crd, str) else crd["metadata"]["name"]
        self._changed_at.pop((cluster, name), None)
        if cluster in self._clusters:
            self._replace(cluster, name, None)

    def remove_cluster(self, cluster: str) -> None:
        """Forget a logical cluster's custom resources."""
        own = self._clusters.pop(cluster, None)
        if own is not None:
            self._together = None
        for kind in own.kinds if own is not None else ():
            self._changed_at.pop((cluster, kind.name), None)
