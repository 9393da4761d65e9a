"""The paths of OpenAPI documents: what may be asked of each resource, with which parameters, answered by what."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from glebe.apiserver.discovery.openapi import definitions as d
from glebe.apiserver.types.registry import ResourceInfo, SubresourceInfo
from glebe.apiserver.verbs.deleting import RETURNED

_PATCH_TYPES = (
    "application/apply-patch+yaml",
    "application/json-patch+json",
    "application/merge-patch+json",
    "application/strategic-merge-patch+json",
)
_WRITE = ("dryRun", "fieldManager", "fieldValidation")
_LIST = (
    "allowWatchBookmarks",
    "continue",
    "fieldSelector",
    "labelSelector",
    "limit",
    "resourceVersion",
    "resourceVersionMatch",
    "sendInitialEvents",
    "timeoutSeconds",
)
_DELETE = ("dryRun", "gracePeriodSeconds", "orphanDependents", "propagationPolicy")
_KINDS = {
    "allowWatchBookmarks": "boolean",
    "force": "boolean",
    "gracePeriodSeconds": "integer",
    "limit": "integer",
    "orphanDependents": "boolean",
    "sendInitialEvents": "boolean",
    "timeoutSeconds": "integer",
    "watch": "boolean",
}
#: API verb -> (HTTP method, action in the document, start of the operation's id, parameters, description)
_VERBS: dict[str, tuple[str, str, str, tuple[str, ...], str]] = {
    "list": ("get", "list", "list", (*_LIST, "watch"), "list or watch objects of kind {kind}"),
    "create": ("post", "post", "create", _WRITE, "create {a} {kind}"),
    "deletecollection": (
        "delete",
        "deletecollection",
        "deleteCollection",
        (*_DELETE, *_LIST),
        "delete collection of {kind}",
    ),
    "get": ("get", "get", "read", (), "read the specified {kind}"),
    "update": ("put", "put", "replace", _WRITE, "replace the specified {kind}"),
    "patch": ("patch", "patch", "patch", (*_WRITE, "force"), "partially update the specified {kind}"),
    "delete": ("delete", "delete", "delete", _DELETE, "delete {a} {kind}"),
}
_COLLECTION, _OBJECT = ("list", "create", "deletecollection"), ("get", "update", "patch", "delete")
_OPTIONS = f"{d.META}.DeleteOptions"


class Paths:
    """Writes the paths of resources for one version of OpenAPI (``prefix`` says which)."""

    def __init__(self, prefix: str) -> None:
        self._prefix = prefix
        self._version2 = prefix == d.PREFIX_V2

    def of(self, info: ResourceInfo) -> Iterator[tuple[str, dict[str, Any]]]:
        """(path, item) of a resource and its subresources."""
        root = f"/apis/{info.group}/{info.version}" if info.group else f"/api/{info.version}"
        base = f"{root}/namespaces/{{namespace}}/{info.plural}" if info.namespaced else f"{root}/{info.plural}"
        scope = [self._parameter("namespace", "path")] if info.namespaced else []
        pretty = [self._parameter("pretty")]
        named = [self._parameter("name", "path"), *scope, *pretty]
        if info.namespaced and "list" in info.verbs:
            item = self._operation(info, "list", everywhere=True)
            yield f"{root}/{info.plural}", {"get": item, "parameters": pretty}
        if found := {_VERBS[v][0]: self._operation(info, v) for v in _COLLECTION if v in info.verbs}:
            yield base, {**found, "parameters": [*scope, *pretty]}
        if found := {_VERBS[v][0]: self._operation(info, v) for v in _OBJECT if v in info.verbs}:
            yield f"{base}/{{name}}", {**found, "parameters": named}
        for sub in info.subresource_infos.values():
            verbs = [v for v in (*_OBJECT, "create") if v in sub.verbs]
            if found := {_VERBS[v][0]: self._operation(info, v, sub) for v in verbs}:
                yield f"{base}/{{name}}/{sub.name}", {**found, "parameters": named}

    def _parameter(self, name: str, where: str = "query") -> dict[str, Any]:
        kind = _KINDS.get(name, "string")
        out: dict[str, Any] = {"name": name, "in": where}
        if where == "path":
            out["required"] = True
        if self._version2:
            return {**out, "type": kind, "uniqueItems": True}
        return {**out, "schema": {"type": kind, "uniqueItems": True}}

    def _operation(
        self, info: ResourceInfo, verb: str, sub: SubresourceInfo | None = None, everywhere: bool = False
    ) -> dict[str, Any]:
        _, action, start, names, text = _VERBS[verb]
        group, version = _camel(info.group.partition(".")[0] or "core"), _camel(info.version)
        scope = "Namespaced" if info.namespaced and not everywhere else ""
        kind = sub.kind if sub is not None else info.kind
        gvk = (sub.group, sub.version) if sub is not None else (info.group, info.version)
        start = "deleteCollection" if verb == "deletecollection" else start
        if verb == "deletecollection":
            operation = f"delete{group}{version}Collection{scope}{info.kind}"
        else:
            operation = f"{start}{group}{version}{scope}{info.kind}{_camel(sub.name) if sub is not None else ''}"
        out: dict[str, Any] = {
            "description": text.format(kind=info.kind, a="an" if info.kind[0] in "AEIOU" else "a"),
            "operationId": operation + ("ForAllNamespaces" if everywhere else ""),
            "parameters": [self._parameter(name) for name in names],
            "responses": self._responses(info, verb, sub),
            "tags": [f"{info.group.partition('.')[0] or 'core'}_{info.version}"],
            "x-kubernetes-action": action,
            "x-kubernetes-group-version-kind": {"group": gvk[0], "version": gvk[1], "kind": kind},
        }
        self._body(out, info, verb, sub)
        if self._version2:
            out["produces"] = ["application/json", "application/yaml"]
            if not info.is_custom:
                out["produces"].append("application/vnd.kubernetes.protobuf")
            out["schemes"] = ["https"]
        if not out["parameters"]:
            del out["parameters"]
        return out

    def _body(self, out: dict[str, Any], info: ResourceInfo, verb: str, sub: SubresourceInfo | None) -> None:
        if verb == "patch":
            types: list[str] = [t for t in _PATCH_TYPES if not (info.is_custom and "strategic" in t)]
            name = f"{d.META}.Patch"
        elif verb in ("create", "update"):
            types, name = ["*/*"], self._kind(info, sub)
        elif verb in ("delete", "deletecollection"):
            types, name = ["*/*"], _OPTIONS
        else:
            if self._version2:
                out["consumes"] = ["*/*"]
            return
        schema: dict[str, Any] = {"$ref": self._prefix + name} if (name and d.has(name)) or info.is_custom else {}
        if verb == "patch" and not d.has(name):
            schema = {"type": "object"}
        needed = verb not in ("delete", "deletecollection")
        if self._version2:
            body: dict[str, Any] = {"name": "body", "in": "body", "schema": schema}
            out["parameters"].append({**body, "required": True} if needed else body)
            out["consumes"] = types
        else:
            out["requestBody"] = {"content": {t: {"schema": schema} for t in types}}
            if needed:
                out["requestBody"]["required"] = True

    def _kind(self, info: ResourceInfo, sub: SubresourceInfo | None) -> str:
        if sub is None or (sub.group, sub.version, sub.kind) == (info.group, info.version, info.kind):
            return d.name_of(info)
        return subresource_definition(sub)

    def _responses(self, info: ResourceInfo, verb: str, sub: SubresourceInfo | None) -> dict[str, Any]:
        if verb == "list":
            name = d.name_of(info, info.list_kind)
        elif verb in ("delete", "deletecollection"):
            returned = verb == "delete" and info.group_resource in RETURNED and info.plural != "namespaces"
            name = d.name_of(info) if returned else f"{d.META}.Status"
        else:
            name = self._kind(info, sub)
        if not info.is_custom and not d.has(name):
            name = ""
        good = {"create": ("200", "201", "202"), "update": ("200", "201"), "patch": ("200", "201")}
        codes = {"delete": ("200", "202"), **good}.get(verb, ("200",))
        words = {"200": "OK", "201": "Created", "202": "Accepted"}
        out: dict[str, Any] = {code: self._content(words[code], name) for code in codes}
        out["401"] = {"description": "Unauthorized"}
        return out

    def _content(self, text: str, name: str) -> dict[str, Any]:
        schema: dict[str, Any] = {"$ref": self._prefix + name} if name else {"type": "object"}
        if self._version2:
            return {"description": text, "schema": schema}
        types = ("application/json", "application/yaml")
        return {"description": text, "content": {t: {"schema": schema} for t in types}}


def subresource_definition(sub: SubresourceInfo) -> str:
    """The definition of what a subresource takes, e.g. ``autoscaling/v1 Scale``."""
    group = sub.group.partition(".")[0] or "core"
    return f"io.k8s.api.{group}.{sub.version}.{sub.kind}"


def needed_definitions(info: ResourceInfo) -> Iterator[str]:
    """The built-in definitions that a resource's paths and its own definition refer to."""
    if info.is_custom:
        yield from (d.OBJECT_META, d.LIST_META)
    else:
        yield from (n for n in (info.definition, d.name_of(info, info.list_kind)) if n and d.has(n))
    for sub in info.subresource_infos.values():
        name = subresource_definition(sub)
        if d.has(name):
            yield name
    yield from (n for n in (f"{d.META}.Status", _OPTIONS, f"{d.META}.Patch") if d.has(n))


def _camel(text: str) -> str:
    return text[:1].upper() + text[1:]
