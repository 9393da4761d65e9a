"""CustomResourceDefinitions: what they make the server serve."""

from __future__ import annotations

from types import MappingProxyType

from glebe.apiserver.types.registry import PrinterColumn, ResourceInfo, ScalePaths, SubresourceInfo
from glebe.kube.objects import Object

_VERBS = ("create", "delete", "deletecollection", "get", "list", "patch", "update", "watch")
_SUB_VERBS = ("get", "patch", "update")


def resource_infos(crd: Object) -> tuple[ResourceInfo, ...]:
    """One :class:`ResourceInfo` for each served version of ``crd``."""
    spec = crd["spec"]
    names = spec["names"]
    storage = next((v["name"] for v in spec["versions"] if v.get("storage")), "")
    out = []
    for version in spec["versions"]:
        if not version.get("served"):
            continue
        subresources: dict[str, SubresourceInfo] = {}
        declared = version.get("subresources") or {}
        scale = None
        if "status" in declared:
            subresources["status"] = SubresourceInfo(
                "status", spec["group"], version["name"], names["kind"], _SUB_VERBS
            )
        if (raw := declared.get("scale")) is not None:
            subresources["scale"] = SubresourceInfo("scale", "autoscaling", "v1", "Scale", _SUB_VERBS)
            scale = ScalePaths(raw["specReplicasPath"], raw["statusReplicasPath"], raw.get("labelSelectorPath", ""))
        columns = tuple(
            PrinterColumn(
                c["name"],
                c["type"],
                c["jsonPath"],
                c.get("format", ""),
                c.get("description", ""),
                c.get("priority", 0),
            )
            for c in version.get("additionalPrinterColumns") or ()
        )
        out.append(
            ResourceInfo(
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
                storage_version=storage,
                is_custom=True,
                selectable_fields=tuple(f["jsonPath"].lstrip(".") for f in version.get("selectableFields") or ()),
                scale=scale,
                subresource_infos=MappingProxyType(subresources),
                raw_schema=(version.get("schema") or {}).get("openAPIV3Schema"),
            )
        )
    return tuple(out)
