"""Which group versions of which cluster are answered elsewhere: the APIServices that name a service."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from glebe.apiserver.aggregation.presence import RESOURCE
from glebe.apiserver.dialing import decode_bundle
from glebe.apiserver.store import EVERY_CLUSTER, Entry, Event
from glebe.kube.objects import Object

if TYPE_CHECKING:
    from glebe.apiserver.store import Store


@dataclass(frozen=True, slots=True)
class Remote:
    """One group version that another server answers."""

    name: str
    group: str
    version: str
    namespace: str
    service: str
    port: int
    ca_bundle: bytes
    insecure: bool
    group_priority: int
    version_priority: int
    available: bool
    revision: int

    @property
    def reference(self) -> dict[str, Any]:
        """As a ``ServiceReference``."""
        return {"namespace": self.namespace, "name": self.service, "port": self.port}


def remote_of(obj: Object, revision: int = 0) -> Remote | None:
    """The remote that an APIService declares; None for a local one."""
    spec = obj.get("spec") or {}
    service = spec.get("service")
    if not service:
        return None
    conditions = (obj.get("status") or {}).get("conditions") or ()
    return Remote(
        obj["metadata"]["name"],
        spec.get("group") or "",
        spec.get("version") or "",
        service.get("namespace") or "",
        service.get("name") or "",
        int(service.get("port") or 443),
        decode_bundle(spec.get("caBundle")),
        bool(spec.get("insecureSkipTLSVerify")),
        int(spec.get("groupPriorityMinimum") or 0),
        int(spec.get("versionPriority") or 0),
        any(c.get("type") == "Available" and c.get("status") == "True" for c in conditions),
        revision,
    )


class Remotes:
    """All of a server's remotes, kept up with the store: by cluster, then by (group, version)."""

    def __init__(self) -> None:
        self._clusters: dict[str, dict[tuple[str, str], Remote]] = {}

    def __bool__(self) -> bool:
        return bool(self._clusters)

    def load(self, store: Store) -> None:
        """Read what is there."""
        page = store.range(RESOURCE, EVERY_CLUSTER)
        for cluster, entry in zip(page.clusters or (), page.entries, strict=True):
            self._take(cluster, entry)

    def follow(self, event: Event) -> Remote | None:
        """An APIService was written or is gone; the remote that it declares now, if any."""
        if not event.name:  # the whole cluster went
            self._clusters.pop(event.cluster, None)
            return None
        if event.previous is not None and (old := remote_of(event.previous.view())) is not None:
            self._drop(event.cluster, old)
        return None if event.deleted else self._take(event.cluster, event.entry)

    def _take(self, cluster: str, entry: Entry) -> Remote | None:
        found = remote_of(entry.view(), entry.revision)
        if found is not None:
            self._clusters.setdefault(cluster, {})[(found.group, found.version)] = found
        return found

    def _drop(self, cluster: str, old: Remote) -> None:
        held = self._clusters.get(cluster)
        if held is not None and held.pop((old.group, old.version), None) is not None and not held:
            del self._clusters[cluster]

    def of(self, cluster: str) -> dict[tuple[str, str], Remote]:
        """The cluster's remotes."""
        return self._clusters.get(cluster) or {}

    def all(self) -> Iterable[tuple[str, Remote]]:
        """(cluster, remote) of every one."""
        return [(cluster, remote) for cluster, held in self._clusters.items() for remote in held.values()]
