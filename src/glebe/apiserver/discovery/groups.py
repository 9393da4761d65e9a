"""What the server says about itself: versions, groups and resources, in the old form and the aggregated one."""

from __future__ import annotations

import base64
import hashlib
from collections.abc import Iterable
from functools import lru_cache
from typing import Any

from glebe.apiserver.types.registry import ResourceInfo, SubresourceInfo, TypeRegistry

#: Kinds that upstream stores in another form than the served one, and says so in ``storageVersionHash``.
_STORED_AS: dict[tuple[str, str], tuple[str, str]] = {
    ("events.k8s.io", "Event"): ("", "v1"),
    ("autoscaling", "HorizontalPodAutoscaler"): ("autoscaling", "v2"),
    ("admissionregistration.k8s.io", "MutatingAdmissionPolicy"): ("admissionregistration.k8s.io", "v1beta1"),
    ("admissionregistration.k8s.io", "MutatingAdmissionPolicyBinding"): ("admissionregistration.k8s.io", "v1beta1"),
    ("apiextensions.k8s.io", "CustomResourceDefinition"): ("apiextensions.k8s.io", "v1beta1"),
}
#: What a custom kind that is being removed still answers.
_ENDING_VERBS = ["delete", "deletecollection", "get", "list", "watch"]


@lru_cache(maxsize=1024)
def _hash_of(group: str, version: str, kind: str) -> str:
    return base64.b64encode(hashlib.sha256(f"{group}/{version}/{kind}".encode()).digest()[:8]).decode()


def storage_version_hash(info: ResourceInfo) -> str:
    """Tells clients when the stored form of a resource changes; "" for what is not stored or stored elsewhere."""
    if "list" not in info.verbs or "create" not in info.verbs:
        return ""
    if info.custom is not None and not any(i.version == info.storage_version for i in info.custom.served):
        return ""
    group, version = _STORED_AS.get((info.group, info.kind), (info.group, info.storage_version))
    return _hash_of(group, version, info.kind)


def verbs_of(info: ResourceInfo) -> list[str]:
    """What may be asked of a collection and its objects."""
    return _ENDING_VERBS if info.custom is not None and info.custom.terminating else list(info.verbs)


def groups(registry: TypeRegistry, cluster: str) -> dict[str, dict[str, list[ResourceInfo]]]:
    """Group -> version (preferred first) -> resources, in order."""
    out: dict[str, dict[str, list[ResourceInfo]]] = {}
    for info in registry.resources(cluster):
        out.setdefault(info.group, {}).setdefault(info.version, []).append(info)
    for group, versions in out.items():
        if len(versions) > 1 and all(i.is_custom for found in versions.values() for i in found):
            out[group] = dict(sorted(versions.items(), key=lambda item: version_order(item[0])))
    return out


def version_order(version: str) -> tuple[int, int, int, str]:
    """Stable before beta before alpha, higher before lower, as upstream prefers versions."""
    digits = version[1:]
    for rank, stage in ((1, "beta"), (2, "alpha")):
        major, found, minor = digits.partition(stage)
        if found and major.isdecimal():
            return (rank, -int(major), -int(minor or 0), version)
    return (0, -int(digits), 0, version) if version[:1] == "v" and digits.isdecimal() else (3, 0, 0, version)


def api_versions() -> dict[str, Any]:
    """``/api`` in the old form."""
    address = {"clientCIDR": "0.0.0.0/0", "serverAddress": ""}
    return {"kind": "APIVersions", "versions": ["v1"], "serverAddressByClientCIDRs": [address]}


def _group_entry(name: str, versions: Iterable[str]) -> dict[str, Any]:
    entries = [{"groupVersion": f"{name}/{v}", "version": v} for v in versions]
    return {"name": name, "versions": entries, "preferredVersion": entries[0]}


def group_list(registry: TypeRegistry, cluster: str) -> dict[str, Any]:
    """``/apis`` in the old form."""
    found = [_group_entry(name, versions) for name, versions in groups(registry, cluster).items() if name]
    return {"kind": "APIGroupList", "apiVersion": "v1", "groups": found}


def group(registry: TypeRegistry, cluster: str, name: str) -> dict[str, Any] | None:
    """``/apis/GROUP``; None when there is no such group."""
    versions = groups(registry, cluster).get(name)
    if not name or versions is None:
        return None
    return {"kind": "APIGroup", "apiVersion": "v1", **_group_entry(name, versions)}


def resource_list(registry: TypeRegistry, cluster: str, group: str, version: str) -> dict[str, Any] | None:
    """``/api/v1`` and ``/apis/GROUP/VERSION``; None when there is no such version."""
    infos = groups(registry, cluster).get(group, {}).get(version)
    if infos is None:
        return None
    entries: list[dict[str, Any]] = []
    for info in infos:
        entry: dict[str, Any] = {
            "name": info.plural,
            "singularName": info.singular,
            "namespaced": info.namespaced,
            "kind": info.kind,
            "verbs": verbs_of(info),
        }
        if info.short_names:
            entry["shortNames"] = list(info.short_names)
        if info.categories:
            entry["categories"] = list(info.categories)
        if stored := storage_version_hash(info):
            entry["storageVersionHash"] = stored
        entries.append(entry)
        for sub in info.subresource_infos.values():
            below: dict[str, Any] = {
                "name": f"{info.plural}/{sub.name}",
                "singularName": "",
                "namespaced": info.namespaced,
                "kind": sub.kind,
                "verbs": list(sub.verbs),
            }
            if (sub.group, sub.version) != (group, version):
                below |= {"group": sub.group, "version": sub.version}
            entries.append(below)
    head = {"kind": "APIResourceList", "apiVersion": "v1"} if group else {"kind": "APIResourceList"}
    return {**head, "groupVersion": f"{group}/{version}" if group else version, "resources": entries}


def aggregated(registry: TypeRegistry, cluster: str, *, core: bool, version: str = "v2") -> dict[str, Any]:
    """``/api`` (``core``) or ``/apis`` as one ``APIGroupDiscoveryList`` (``version``: v2 or v2beta1)."""
    items = []
    for name, versions in groups(registry, cluster).items():
        if core != (name == ""):
            continue
        entries = [
            {"version": v, "resources": [_aggregated_resource(i) for i in infos], "freshness": "Current"}
            for v, infos in versions.items()
        ]
        items.append({"metadata": {"name": name} if name else {}, "versions": entries})
    api = f"apidiscovery.k8s.io/{version}"
    return {"kind": "APIGroupDiscoveryList", "apiVersion": api, "metadata": {}, "items": items}


def _aggregated_resource(info: ResourceInfo) -> dict[str, Any]:
    # Upstream leaves group and version of built-in kinds empty: they are those of the document's version.
    group, version = (info.group, info.version) if info.is_custom else ("", "")
    out: dict[str, Any] = {
        "resource": info.plural,
        "responseKind": {"group": group, "version": version, "kind": info.kind},
        "scope": "Namespaced" if info.namespaced else "Cluster",
        "singularResource": info.singular,
        "verbs": verbs_of(info),
    }
    if info.short_names:
        out["shortNames"] = list(info.short_names)
    if info.categories:
        out["categories"] = list(info.categories)
    if info.subresource_infos:
        out["subresources"] = [
            {
                "subresource": sub.name,
                "responseKind": _response_kind(info, sub),
                "verbs": list(sub.verbs),
            }
            for sub in info.subresource_infos.values()
        ]
    return out


def _response_kind(info: ResourceInfo, sub: SubresourceInfo) -> dict[str, str]:
    if not info.is_custom and (sub.group, sub.version) == (info.group, info.version):
        return {"group": "", "version": "", "kind": sub.kind}
    return {"group": sub.group, "version": sub.version, "kind": sub.kind}


def media_type(accept: str) -> str:
    """Which aggregated version an ``Accept`` header asks for first (``v2``, ``v2beta1``), or "" for the old form."""
    for part in accept.split(","):
        parameters = dict(p.strip().partition("=")[::2] for p in part.split(";")[1:])
        kind = part.split(";")[0].strip()
        if parameters.get("g") == "apidiscovery.k8s.io" and kind in ("application/json", "*/*"):
            if parameters.get("v") in ("v2", "v2beta1"):
                return parameters["v"]
        elif kind in ("application/json", "*/*") and "g" not in parameters:
            return ""
    return ""
