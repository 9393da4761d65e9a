"""Which resources a logical cluster serves: the built-in ones, shared by all, and its own custom ones.

The built-in table is data (``apiserver/data/resources.json``); a kind's schema is decoded when it is first asked for.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from functools import cache, cached_property
from importlib import resources as package_files
from types import MappingProxyType
from typing import TYPE_CHECKING, Any

import orjson

from glebe.kube.objects import Object
from glebe.kube.resources import Resource

if TYPE_CHECKING:
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
    subresource_infos: Mapping[str, SubresourceInfo] = field(
        default_factory=lambda: MappingProxyType({}), compare=False, repr=False
    )
    #: a custom resource's own openAPIV3Schema
    raw_schema: Mapping[str, Any] | None = field(default=None, compare=False, repr=False)

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
        storage_version=row.get("storage", row["version"]),
        selectable_fields=tuple(row.get("fields", ())),
        subresource_infos=MappingProxyType(subresources),
    )


@cache
def builtins() -> tuple[ResourceInfo, ...]:
    """Every built-in resource, in the order in which discovery lists them."""
    data = (package_files.files("glebe.apiserver") / "data" / "resources.json").read_bytes()
    return tuple(_builtin(row) for row in orjson.loads(data))


@cache
def _builtin_index() -> dict[tuple[str, str, str], ResourceInfo]:
    return {(i.group, i.version, i.plural): i for i in builtins()}


@cache
def _builtin_kinds() -> dict[tuple[str, str, str], ResourceInfo]:
    return {(i.group, i.version, i.kind): i for i in builtins()}


class _ClusterTypes:
    """The custom resources of one logical cluster."""

    __slots__ = ("by_crd", "generation", "index", "kinds")

    def __init__(self) -> None:
        self.by_crd: dict[str, tuple[ResourceInfo, ...]] = {}
        self.index: dict[tuple[str, str, str], ResourceInfo] = {}
        self.kinds: dict[tuple[str, str, str], ResourceInfo] = {}
        self.generation = 0

    def replace(self, name: str, infos: tuple[ResourceInfo, ...]) -> None:
        for old in self.by_crd.pop(name, ()):
            self.index.pop((old.group, old.version, old.plural), None)
            self.kinds.pop((old.group, old.version, old.kind), None)
        if infos:
            self.by_crd[name] = infos
        for info in infos:
            self.index[(info.group, info.version, info.plural)] = info
            self.kinds[(info.group, info.version, info.kind)] = info


class TypeRegistry:
    """The resources of one server. Built-ins are shared; custom resources belong to a logical cluster."""

    def __init__(self) -> None:
        self._clusters: dict[str, _ClusterTypes] = {}
        self._changes = 0

    def lookup(self, cluster: str, group: str, version: str, plural: str) -> ResourceInfo | None:
        """The resource behind ``/apis/GROUP/VERSION/PLURAL`` in ``cluster``, or None."""
        key = (group, version, plural)
        found = _builtin_index().get(key)
        if found is None and (own := self._clusters.get(cluster)) is not None:
            found = own.index.get(key)
        return found

    def resources(self, cluster: str) -> Iterable[ResourceInfo]:
        """Everything served in ``cluster``: built-ins in discovery's order, then custom ones by group and name."""
        yield from builtins()
        if (own := self._clusters.get(cluster)) is not None:
            for key in sorted(own.index):
                yield own.index[key]

    def generation(self, cluster: str) -> int:
        """Changes whenever the cluster's custom resources do: a key for caches of discovery and OpenAPI."""
        own = self._clusters.get(cluster)
        return own.generation if own is not None else 0

    def set_crd(self, cluster: str, crd: Object) -> tuple[ResourceInfo, ...]:
        """Serve what a CustomResourceDefinition declares, if its names are accepted; replaces what it served before."""
        from glebe.apiserver.custom.definitions import (
            resource_infos,  # late: only clusters with custom resources need it
        )

        infos = resource_infos(crd)
        self._replace(cluster, crd["metadata"]["name"], infos)
        return infos

    def _replace(self, cluster: str, name: str, infos: tuple[ResourceInfo, ...]) -> None:
        own = self._clusters.setdefault(cluster, _ClusterTypes())
        own.replace(name, infos)
        # Counted for all clusters together: a later cluster of the same name must not meet an earlier one's numbers.
        self._changes += 1
        own.generation = self._changes

    def remove_crd(self, cluster: str, crd: Object | str) -> None:
        """Stop serving a CustomResourceDefinition (the object or its name)."""
        name = crd if isinstance(crd, str) else crd["metadata"]["name"]
        if cluster in self._clusters:
            self._replace(cluster, name, ())

    def remove_cluster(self, cluster: str) -> None:
        """Forget a logical cluster's custom resources."""
        self._clusters.pop(cluster, None)
