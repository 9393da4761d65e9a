"""CustomResourceDefinitions: what they make the server serve."""

from __future__ import annotations

import hashlib
from types import MappingProxyType
from typing import Any

import orjson

from glebe.apiserver.custom import sharing
from glebe.apiserver.custom.sharing import CustomKind
from glebe.apiserver.types.definitionfacts import has_condition
from glebe.apiserver.types.registry import PrinterColumn, ResourceInfo, ScalePaths, SubresourceInfo
from glebe.kube.objects import Object

#: in the order in which upstream's discovery lists them
_VERBS = ("delete", "deletecollection", "get", "list", "patch", "create", "update", "watch")
_SUB_VERBS = ("get", "patch", "update")
_NO_CONVERSION = {"strategy": "None"}


def custom_kind(crd: Object) -> CustomKind | None:
    """What ``crd`` makes the server serve; None while it is not established."""
    if not has_condition(crd, "Established"):
        return None
    names = _names(crd)
    status, meta = crd.get("status") or {}, crd["metadata"]
    content = [
        meta["name"],
        {k: v for k, v in crd["spec"].items() if k != "names"},
        names,
        status.get("storedVersions") or [],
        has_condition(crd, "Terminating"),
        meta.get("generation", 1) > 1,
    ]
    digest = hashlib.blake2b(orjson.dumps(content, option=orjson.OPT_SORT_KEYS), digest_size=16).hexdigest()
    held = sharing.known(digest)
    if held is None:
        held = _make(crd, digest, names)
        sharing.keep(held)
    return held


def _names(crd: Object) -> dict[str, Any]:
    """The names that were accepted: after a change they may differ from those that are asked for."""
    accepted = (crd.get("status") or {}).get("acceptedNames") or {}
    names: dict[str, Any] = accepted if accepted.get("plural") else crd["spec"]["names"]
    return names


def _make(crd: Object, digest: str, names: dict[str, Any]) -> CustomKind:
    spec, status = crd["spec"], crd.get("status") or {}
    kind = CustomKind(
        crd["metadata"]["name"],
        digest,
        conversion=spec.get("conversion") or _NO_CONVERSION,
        stored_versions=tuple(status.get("storedVersions") or ()),
        dated=crd["metadata"].get("generation", 1) > 1,
        terminating=has_condition(crd, "Terminating"),
    )
    kind.storage_version = next((v["name"] for v in spec["versions"] if v.get("storage")), "")
    kind.versions = {v["name"]: _info(spec, names, v, kind) for v in spec["versions"]}
    kind.served = tuple(kind.versions[v["name"]] for v in spec["versions"] if v.get("served"))
    return kind


def _deprecation(spec: dict[str, Any], names: dict[str, Any], version: dict[str, Any]) -> str:
    if not version.get("deprecated"):
        return ""
    usual = f"{spec['group']}/{version['name']} {names['kind']} is deprecated"
    return version.get("deprecationWarning") or usual


def _info(spec: dict[str, Any], names: dict[str, Any], version: dict[str, Any], kind: CustomKind) -> ResourceInfo:
    subresources: dict[str, SubresourceInfo] = {}
    declared = version.get("subresources") or {}
    scale = None
    if "status" in declared:
        subresources["status"] = SubresourceInfo("status", spec["group"], version["name"], names["kind"], _SUB_VERBS)
    if (raw := declared.get("scale")) is not None:
        subresources["scale"] = SubresourceInfo("scale", "autoscaling", "v1", "Scale", _SUB_VERBS)
        scale = ScalePaths(raw["specReplicasPath"], raw["statusReplicasPath"], raw.get("labelSelectorPath", ""))
    columns = tuple(
        PrinterColumn(
            c["name"], c["type"], c["jsonPath"], c.get("format", ""), c.get("description", ""), c.get("priority", 0)
        )
        for c in version.get("additionalPrinterColumns") or ()
    )
    return ResourceInfo(
        group=spec["group"],
        version=version["name"],
        plural=names["plural"],
        singular=names.get("singular") or names["kind"].lower(),
        kind=names["kind"],
        list_kind=names.get("listKind") or f"{names['kind']}List",
        namespaced=spec.get("scope") == "Namespaced",
        verbs=_VERBS,
        short_names=tuple(names.get("shortNames") or ()),
        categories=tuple(names.get("categories") or ()),
        subresources=tuple(subresources),
        printer_columns=columns,
        storage_version=kind.storage_version,
        is_custom=True,
        selectable_fields=tuple(f["jsonPath"].lstrip(".") for f in version.get("selectableFields") or ()),
        scale=scale,
        subresource_infos=MappingProxyType(subresources),
        raw_schema=(version.get("schema") or {}).get("openAPIV3Schema"),
        deprecation=_deprecation(spec, names, version),
        custom=kind,
    )
