"""OpenAPI documents of a logical cluster: what ``kubectl explain`` and clients' validation read.

Built when asked for, from the schema data and its descriptions; custom resources are described by their own schemas.
"""

from __future__ import annotations

import hashlib
import zlib
from collections.abc import Iterable, Iterator
from functools import lru_cache
from importlib import resources as package_files
from typing import Any

import orjson

from glebe.apiserver.discovery import groups as discovery
from glebe.apiserver.types.registry import ResourceInfo, TypeRegistry
from glebe.apiserver.types.schema import package

RELEASE = "v1.36"
_META = "io.k8s.apimachinery.pkg.apis.meta.v1"
_OBJECT_META = f"{_META}.ObjectMeta"
_LIST_META = f"{_META}.ListMeta"
#: verb -> method of a path, for collections and for single objects
_COLLECTION = {"list": "get", "create": "post", "deletecollection": "delete"}
_OBJECT = {"get": "get", "update": "put", "patch": "patch", "delete": "delete"}
_ACTIONS = {"create": "post", "update": "put"}
_PATCHES = (
    "application/apply-patch+yaml",
    "application/json-patch+json",
    "application/merge-patch+json",
    "application/strategic-merge-patch+json",
)


def v2(registry: TypeRegistry, cluster: str) -> dict[str, Any]:
    """``/openapi/v2``: one document of everything."""
    infos = list(registry.resources(cluster))
    definitions: dict[str, Any] = {}
    for name in _reachable(i.definition for i in infos if i.definition):
        definitions[name] = _definition(name, "#/definitions/", refs_alone=False)
    for info in infos:
        if info.is_custom:
            definitions.update(_custom_definitions(info, "#/definitions/"))
    return {
        "swagger": "2.0",
        "info": {"title": "Kubernetes", "version": RELEASE},
        "paths": {path: item for info in infos for path, item in _paths(info, version2=True)},
        "definitions": definitions,
    }


def v3_index(registry: TypeRegistry, cluster: str) -> dict[str, Any]:
    """``/openapi/v3``: where each group version's document is; the address changes with its content."""
    paths = {}
    for group, versions in discovery.groups(registry, cluster).items():
        for version, infos in versions.items():
            name = f"apis/{group}/{version}" if group else f"api/{version}"
            paths[name] = {"serverRelativeURL": f"/openapi/v3/{name}?hash={_hash(infos)}"}
    return {"paths": dict(sorted(paths.items()))}


def v3_group(registry: TypeRegistry, cluster: str, group: str, version: str) -> dict[str, Any] | None:
    """The document of one group version; None when it is not served."""
    infos = discovery.groups(registry, cluster).get(group, {}).get(version)
    if infos is None:
        return None
    prefix = "#/components/schemas/"
    schemas: dict[str, Any] = {}
    names = [i.definition for i in infos if i.definition]
    if any(i.is_custom for i in infos):
        names += [_OBJECT_META, _LIST_META]
    for name in _reachable(names):
        schemas[name] = _definition(name, prefix, refs_alone=True)
    for info in infos:
        if info.is_custom:
            schemas.update(_custom_definitions(info, prefix))
    return {
        "openapi": "3.0.0",
        "info": {"title": "Kubernetes", "version": RELEASE},
        "paths": {path: item for info in infos for path, item in _paths(info, version2=False)},
        "components": {"schemas": schemas},
    }


def _hash(infos: list[ResourceInfo]) -> str:
    """Of what a document is made from; making it just to hash it would cost more than serving it."""
    digest = hashlib.sha256(RELEASE.encode())
    for info in infos:
        digest.update(repr(info).encode())
        if info.raw_schema is not None:
            digest.update(orjson.dumps(info.raw_schema))
    return digest.hexdigest().upper()


# ------------------------------------------------------------------------------------------------------- definitions


@lru_cache(maxsize=2)
def _docs(name: str) -> dict[str, Any]:
    """Descriptions of a package's definitions: kind -> [text, {field: text}]."""
    data = (package_files.files("glebe.apiserver") / "data" / f"docs-{name}.json.z").read_bytes()
    loaded: dict[str, Any] = orjson.loads(zlib.decompress(data))
    return loaded


def _references(node: Any) -> Iterator[str]:
    if type(node) is dict:
        if type(ref := node.get("$ref")) is str:
            yield ref
        for key, value in node.items():
            if key == "properties":
                for child in value.values():
                    yield from _references(child)
            elif key in ("items", "additionalProperties"):
                yield from _references(value)


def _raw(name: str) -> dict[str, Any]:
    module, _, kind = name.rpartition(".")
    found: dict[str, Any] = package(module)[kind]
    return found


def _reachable(names: Iterable[str]) -> list[str]:
    seen: set[str] = set()
    todo = list(names)
    while todo:
        name = todo.pop()
        if name not in seen:
            seen.add(name)
            todo.extend(_references(_raw(name)))
    return sorted(seen)


def _definition(name: str, prefix: str, *, refs_alone: bool) -> dict[str, Any]:
    """One definition with its descriptions. OpenAPI v3 (``refs_alone``) allows nothing beside a ``$ref``."""
    module, _, kind = name.rpartition(".")
    text, fields = _docs(module)[kind]
    out: dict[str, Any] = _node(_raw(name), prefix, refs_alone)
    if text:
        out["description"] = text
    for field, description in fields.items():
        prop = out["properties"][field]
        if refs_alone and "$ref" in prop:
            prop = {"allOf": [{"$ref": prop["$ref"]}]}
        out["properties"][field] = {**prop, "description": description}
    return out


def _node(raw: Any, prefix: str, refs_alone: bool) -> Any:
    if type(raw) is not dict:
        return raw
    out: dict[str, Any] = {}
    for key, value in raw.items():
        if key == "$ref":
            out[key] = prefix + value
        elif key == "properties":
            out[key] = {name: _node(child, prefix, refs_alone) for name, child in value.items()}
        elif key in ("items", "additionalProperties"):
            out[key] = _node(value, prefix, refs_alone)
        else:
            out[key] = value
    if refs_alone and "$ref" in out and len(out) > 1:
        out["allOf"] = [{"$ref": out.pop("$ref")}]
    return out


def _custom_definitions(info: ResourceInfo, prefix: str) -> dict[str, Any]:
    """A custom resource's kind and its list."""
    name = f"{'.'.join(reversed(info.group.split('.')))}.{info.version}.{info.kind}"
    schema = dict(info.raw_schema or {"type": "object"})
    meta = {"allOf": [{"$ref": prefix + _OBJECT_META}]} if "components" in prefix else {"$ref": prefix + _OBJECT_META}
    text = {"type": "string"}
    if not schema.get("x-kubernetes-preserve-unknown-fields") or "properties" in schema:
        properties = {**schema.get("properties", {}), "apiVersion": text, "kind": text, "metadata": meta}
        schema["properties"] = properties
    kind = {"group": info.group, "version": info.version}
    schema["x-kubernetes-group-version-kind"] = [{**kind, "kind": info.kind}]
    items = {"type": "array", "items": {"$ref": prefix + name}}
    listed = {
        "type": "object",
        "required": ["items"],
        "properties": {"apiVersion": text, "kind": text, "items": items, "metadata": {"$ref": prefix + _LIST_META}},
        "x-kubernetes-group-version-kind": [{**kind, "kind": info.list_kind}],
    }
    return {name: schema, f"{name}List": listed}


# ------------------------------------------------------------------------------------------------------------- paths


def _parameter(name: str, version2: bool, kind: str = "string", where: str = "query") -> dict[str, Any]:
    out: dict[str, Any] = {"name": name, "in": where}
    if where == "path":
        out["required"] = True
    return {**out, "type": kind} if version2 else {**out, "schema": {"type": kind}}


_WRITES = ("dryRun", "fieldManager", "fieldValidation")


def _operation(info: ResourceInfo, action: str, version2: bool) -> dict[str, Any]:
    names: tuple[str, ...] = ()
    if action in ("create", "update", "patch"):
        names = _WRITES
    elif action in ("delete", "deletecollection"):
        names = ("dryRun", "gracePeriodSeconds", "propagationPolicy")
    elif action == "list":
        names = ("continue", "fieldSelector", "labelSelector", "limit", "resourceVersion", "watch")
    out: dict[str, Any] = {
        "operationId": f"{action}{info.kind}",
        "responses": {"200": {"description": "OK"}},
        "x-kubernetes-action": _ACTIONS.get(action, action),
        "x-kubernetes-group-version-kind": {"group": info.group, "version": info.version, "kind": info.kind},
    }
    if names:
        out["parameters"] = [_parameter(name, version2) for name in names]
    if action == "patch":
        out["parameters"].append(_parameter("force", version2, "boolean"))
        types = [t for t in _PATCHES if not (info.is_custom and "strategic" in t)]
        if version2:
            out["consumes"] = types
        else:
            out["requestBody"] = {"content": {t: {"schema": {"type": "object"}} for t in types}}
    return out


def _paths(info: ResourceInfo, *, version2: bool) -> Iterator[tuple[str, dict[str, Any]]]:
    root = f"/apis/{info.group}/{info.version}" if info.group else f"/api/{info.version}"
    base = f"{root}/namespaces/{{namespace}}/{info.plural}" if info.namespaced else f"{root}/{info.plural}"
    scope = [_parameter("namespace", version2, where="path")] if info.namespaced else []
    named = [*scope, _parameter("name", version2, where="path")]
    if info.namespaced and "list" in info.verbs:
        yield f"{root}/{info.plural}", {"get": _operation(info, "list", version2)}
    found = {method: _operation(info, verb, version2) for verb, method in _COLLECTION.items() if verb in info.verbs}
    if found:
        yield base, {**found, "parameters": scope} if scope else found
    found = {method: _operation(info, verb, version2) for verb, method in _OBJECT.items() if verb in info.verbs}
    if found:
        yield f"{base}/{{name}}", {**found, "parameters": named}
