"""One discovery and one OpenAPI of what this server answers and what others do."""

from __future__ import annotations

import asyncio
import hashlib
from typing import TYPE_CHECKING, Any

import orjson

from glebe.apiserver.aggregation.priorities import group_key, priorities, version_key
from glebe.apiserver.aggregation.proxying import Proxy
from glebe.apiserver.aggregation.remotes import Remote
from glebe.apiserver.dialing import DialError
from glebe.kube.transport import User

if TYPE_CHECKING:
    from glebe.apiserver.server import ApiServer

#: So long an answer about what a remote serves is believed.
FRESH = 30.0
_JSON = "application/json"
_AGGREGATED = "application/json;g=apidiscovery.k8s.io;v=v2;as=APIGroupDiscoveryList,application/json"
#: Who asks when the server itself wants to know.
AGGREGATOR = User("system:kube-aggregator", ("system:masters",))


class Documents:
    """What remotes say of themselves, kept for a while, and joined with our own documents."""

    def __init__(self, server: ApiServer, proxy: Proxy) -> None:
        self._server = server
        self._proxy = proxy
        self._held: dict[tuple[str, str, str], tuple[float, Any]] = {}

    def forget(self, cluster: str, name: str) -> None:
        """The remote ``name`` of the cluster has changed."""
        for key in [k for k in self._held if k[:2] == (cluster, name)]:
            del self._held[key]

    async def _ask(self, cluster: str, remote: Remote, path: str, accept: str = _JSON) -> Any:
        """A JSON document of a remote; None when there is none."""
        key, now = (cluster, remote.name, path), self._server.env.clock.now()
        held = self._held.get(key)
        if held is not None and now < held[0] + FRESH:
            return held[1]
        found: Any = None
        try:
            status, body, _ = await self._proxy.fetch(cluster, remote, path, AGGREGATOR, accept)
            if status == 200:
                found = orjson.loads(body)
        except (DialError, TimeoutError, orjson.JSONDecodeError):
            found = None
        self._held[key] = (now, found)
        return found

    # -- discovery -----------------------------------------------------------------------------------------------

    def groups(self, own: dict[str, Any], remotes: dict[tuple[str, str], Remote]) -> dict[str, Any]:
        """``/apis`` in the old form: what APIServices declare is enough."""
        versions: dict[str, list[tuple[str, int, int]]] = {}
        for group in own["groups"]:
            for entry in group["versions"]:
                minimum, priority = priorities(group["name"], entry["version"])
                versions.setdefault(group["name"], []).append((entry["version"], minimum, priority))
        for (name, version), remote in remotes.items():
            held = [v for v in versions.get(name, ()) if v[0] != version]
            versions[name] = [*held, (version, remote.group_priority, remote.version_priority)]
        ordered = sorted(versions, key=lambda g: group_key(g, max(v[1] for v in versions[g])))
        return {**own, "groups": [_group(name, versions[name]) for name in ordered]}

    def group(self, own: dict[str, Any] | None, name: str, remotes: dict[tuple[str, str], Remote]) -> dict[str, Any]:
        """``/apis/GROUP``."""
        concerned = {key: remote for key, remote in remotes.items() if key[0] == name}
        listed = self.groups({"groups": [own] if own is not None else []}, concerned)
        return {"kind": "APIGroup", "apiVersion": "v1", **listed["groups"][0]}

    async def aggregated(
        self, cluster: str, own: dict[str, Any], remotes: dict[tuple[str, str], Remote]
    ) -> dict[str, Any]:
        """``/apis`` in the aggregated form: what each remote serves is asked there."""
        found = await asyncio.gather(*(self._resources(cluster, remote) for remote in remotes.values()))
        items: dict[str, dict[str, Any]] = {}
        order: dict[str, int] = {}
        ranks: dict[tuple[str, str], int] = {}
        for item in own["items"]:
            name = item["metadata"].get("name", "")
            items[name] = {**item, "versions": list(item["versions"])}
            for version in item["versions"]:
                order[name], ranks[(name, version["version"])] = priorities(name, version["version"])
        for remote, resources in zip(remotes.values(), found, strict=True):
            item = items.setdefault(remote.group, {"metadata": {"name": remote.group}, "versions": []})
            item["versions"] = [v for v in item["versions"] if v["version"] != remote.version]
            freshness = "Current" if resources is not None else "Stale"
            item["versions"].append({"version": remote.version, "resources": resources or [], "freshness": freshness})
            order[remote.group] = max(order.get(remote.group, 0), remote.group_priority)
            ranks[(remote.group, remote.version)] = remote.version_priority
        for name, item in items.items():
            item["versions"].sort(key=lambda v: version_key(v["version"], ranks[(name, v["version"])]))
        return {**own, "items": [items[name] for name in sorted(items, key=lambda g: group_key(g, order[g]))]}

    async def _resources(self, cluster: str, remote: Remote) -> list[dict[str, Any]] | None:
        """The aggregated form of a remote's resources; None when it does not answer."""
        document = await self._ask(cluster, remote, "/apis", _AGGREGATED)
        if isinstance(document, dict) and document.get("kind") == "APIGroupDiscoveryList":
            for item in document.get("items") or ():
                for version in item.get("versions") or ():
                    if (item["metadata"].get("name"), version.get("version")) == (remote.group, remote.version):
                        return list(version.get("resources") or ())
        listed = await self._ask(cluster, remote, f"/apis/{remote.group}/{remote.version}")
        if not isinstance(listed, dict):
            return None
        return _from_legacy(remote, listed.get("resources") or [])

    # -- OpenAPI -------------------------------------------------------------------------------------------------

    async def openapi_index(
        self, cluster: str, own: dict[str, Any], remotes: dict[tuple[str, str], Remote]
    ) -> dict[str, Any]:
        """``/openapi/v3``."""
        paths = dict(own["paths"])
        for (group, version), remote in remotes.items():
            name = f"apis/{group}/{version}"
            paths.pop(name, None)
            index = await self._ask(cluster, remote, "/openapi/v3")
            entry = (index.get("paths") or {}).get(name) if isinstance(index, dict) else None
            if isinstance(entry, dict):
                paths[name] = entry
        return {"paths": dict(sorted(paths.items()))}

    async def openapi_v2(
        self, cluster: str, own: bytes, remotes: dict[tuple[str, str], Remote]
    ) -> tuple[bytes, str] | None:
        """``/openapi/v2`` with the remotes' parts, and its ETag; None when no remote has any."""
        parts = []
        for (group, version), remote in remotes.items():
            document = await self._ask(cluster, remote, "/openapi/v2")
            if isinstance(document, dict):
                prefix = f"/apis/{group}/{version}/"
                paths = {p: item for p, item in (document.get("paths") or {}).items() if p.startswith(prefix)}
                parts.append((paths, document.get("definitions") or {}))
        if not parts:
            return None
        whole = orjson.loads(own)
        for paths, definitions in parts:
            whole["paths"].update(paths)
            whole["definitions"] = {**definitions, **whole["definitions"]}
        body = orjson.dumps(whole)
        return body, hashlib.sha512(body).hexdigest().upper()


def _group(name: str, versions: list[tuple[str, int, int]]) -> dict[str, Any]:
    ordered = sorted(versions, key=lambda v: version_key(v[0], v[2]))
    entries = [{"groupVersion": f"{name}/{v[0]}", "version": v[0]} for v in ordered]
    return {"name": name, "versions": entries, "preferredVersion": entries[0]}


def _from_legacy(remote: Remote, resources: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """An ``APIResourceList`` in the aggregated form."""
    out: dict[str, dict[str, Any]] = {}
    for resource in resources:
        name, _, sub = resource["name"].partition("/")
        kind = {
            "group": resource.get("group") or remote.group,
            "version": resource.get("version") or remote.version,
            "kind": resource["kind"],
        }
        if sub:
            below = {"subresource": sub, "responseKind": kind, "verbs": resource["verbs"]}
            if name in out:
                out[name].setdefault("subresources", []).append(below)
            continue
        out[name] = {
            "resource": name,
            "responseKind": kind,
            "scope": "Namespaced" if resource.get("namespaced") else "Cluster",
            "singularResource": resource.get("singularName") or "",
            "verbs": resource["verbs"],
        }
        for field in ("shortNames", "categories"):
            if resource.get(field):
                out[name][field] = resource[field]
    return list(out.values())
