"""Generate ``src/glebe/apiserver/data`` from published packages.

Sources: ``lightkube-models`` (which resources there are, their verbs, scopes and subresources) and
``kubernetes-validate`` (every kind's schema, with list types and merge keys). ``api_facts`` adds what neither holds.
Run it after upgrading either package: ``python tools/gen_types.py`` (``--check`` only compares).
"""

from __future__ import annotations

import ast
import importlib.util
import json
import sys
import zlib
from collections.abc import Iterable, Iterator
from functools import cache
from pathlib import Path
from typing import Any

import api_facts as facts

DATA = Path(__file__).resolve().parents[1] / "src" / "glebe" / "apiserver" / "data"
RELEASE = "v1.36.0"

#: lightkube's names of a resource's methods -> API verbs.
_VERBS = {"post": "create", "put": "update"}


def _package(name: str) -> Path:
    spec = importlib.util.find_spec(name)
    if spec is None or not spec.submodule_search_locations:
        raise SystemExit(f"package {name} is not installed")
    return Path(next(iter(spec.submodule_search_locations)))


def _api_infos() -> list[tuple[bool, dict[str, Any]]]:
    """Every ``res.ApiInfo(...)`` in lightkube's resource modules: (namespaced, its arguments), parsed, not imported."""
    found = []
    for path in sorted((_package("lightkube") / "resources").glob("*.py")):
        for node in ast.parse(path.read_text()).body:
            if not isinstance(node, ast.ClassDef):
                continue
            base = ast.unparse(node.bases[0]) if node.bases else ""
            for statement in node.body:
                if not (isinstance(statement, ast.Assign) and ast.unparse(statement.targets[0]) == "_api_info"):
                    continue
                call = statement.value
                assert isinstance(call, ast.Call)
                args: dict[str, Any] = {}
                for keyword in call.keywords:
                    value = keyword.value
                    values = value.args if isinstance(value, ast.Call) else None
                    args[str(keyword.arg)] = (
                        [ast.literal_eval(v) for v in values] if values is not None else ast.literal_eval(value)
                    )
                found.append(("Namespaced" in base, args))
    return found


def _verbs(raw: list[str]) -> list[str]:
    return sorted({_VERBS.get(v, v) for v in raw if not v.startswith("global_")})


@cache
def definitions() -> dict[str, dict[str, Any]]:
    """Every schema of the release, in OpenAPI's form: ``$ref`` is a bare name, no null types, no apiVersion enums."""
    folder = _package("kubernetes_validate") / "kubernetes-json-schema" / f"{RELEASE}-local"
    raw = json.loads((folder / "_definitions.json").read_text())["$defs"]
    enums = {field: values for values, fields in facts.ENUMS.items() for field in fields}
    out = {}
    for name, definition in raw.items():
        short = ".".join(name.split(".")[-3:])
        clean = _openapi(definition)
        clean.update(_SPECIAL.get(short.rpartition(".")[2], {}) if "properties" not in clean else {})
        for field, prop in clean.get("properties", {}).items():
            prop.pop("enum", None)
            if values := enums.get(f"{short}.{field}"):
                prop.get("items", prop)["enum"] = list(values)
        out[name] = clean
    return out


#: Definitions whose JSON form differs from their schema: what a reader of these files needs to know.
_SPECIAL: dict[str, dict[str, Any]] = {
    "Quantity": {"type": "string", "format": "quantity"},
    "IntOrString": {"type": "string", "format": "int-or-string"},
}


def _openapi(schema: dict[str, Any]) -> dict[str, Any]:
    out: dict[str, Any] = {}
    for key, value in sorted(schema.items()):
        if key == "$ref":
            out[key] = value.rpartition("/")[2]
        elif key == "type" and isinstance(value, list):
            out[key] = next(v for v in value if v != "null")
        elif key == "properties":
            out[key] = {name: _openapi(prop) for name, prop in sorted(value.items())}
        elif key in ("items", "additionalProperties") and isinstance(value, dict):
            out[key] = _openapi(value)
        elif key != "oneOf":
            out[key] = value
    return out


def _kinds() -> dict[tuple[str, str, str], str]:
    """(group, version, kind) -> definition."""
    return {
        (gvk["group"], gvk["version"], gvk["kind"]): name
        for name, definition in definitions().items()
        for gvk in definition.get("x-kubernetes-group-version-kind", ())
        if len(definition["x-kubernetes-group-version-kind"]) == 1
    }


def _references(schema: Any) -> Iterator[str]:
    if isinstance(schema, dict):
        if isinstance(ref := schema.get("$ref"), str):
            yield ref
        for key, value in schema.items():
            yield from (
                (r for v in value.values() for r in _references(v)) if key == "properties" else _references(value)
            )


def _reachable(roots: Iterable[str]) -> list[str]:
    """The definitions that the served resources need."""
    seen: set[str] = set()
    todo = list(roots)
    while todo:
        name = todo.pop()
        if name not in seen:
            seen.add(name)
            todo += _references(definitions()[name])
    return sorted(seen)


_ALWAYS = tuple(
    f"io.k8s.apimachinery.pkg.apis.meta.v1.{kind}"
    for kind in ("ObjectMeta", "ListMeta", "Status", "DeleteOptions", "WatchEvent", "APIGroupList", "APIResourceList")
)


def schema_files(rows: list[dict[str, Any]]) -> dict[str, bytes]:
    """Per package of definitions (``io.k8s.api.batch.v1``) one file of schemas and one of their descriptions.

    Descriptions are needed by OpenAPI only and are the bulk, so they are kept apart and compressed.
    """
    kinds = _kinds()
    roots = {*_ALWAYS, *(row["schema"] for row in rows)}
    for row in rows:
        roots.add(kinds.get((row["group"], row["version"], f"{row['kind']}List"), row["schema"]))
        for sub in row.get("subresources", {}).values():
            if tuple(sub["kind"]) in kinds:  # the options of connections are queries, not objects
                roots.add(kinds[tuple(sub["kind"])])
    schemas: dict[str, dict[str, Any]] = {}
    docs: dict[str, dict[str, Any]] = {}
    for name in _reachable(sorted(roots)):
        package, _, kind = name.rpartition(".")
        definition = json.loads(json.dumps(definitions()[name]))
        described = [definition.pop("description", ""), {}]
        for field, prop in definition.get("properties", {}).items():
            if text := prop.pop("description", ""):
                described[1][field] = text
        schemas.setdefault(package, {})[kind] = definition
        docs.setdefault(package, {})[kind] = described
    out = {f"schema-{package}.json": _compact(content) for package, content in schemas.items()}
    return out | {f"docs-{package}.json.z": zlib.compress(_compact(content), 9) for package, content in docs.items()}


def _compact(content: Any) -> bytes:
    return json.dumps(content, separators=(",", ":"), ensure_ascii=False).encode()


def _infos() -> list[tuple[bool, dict[str, Any]]]:
    """What the published list has, and what the facts add to it, in the list's form."""
    found = _api_infos()
    for (group, version, kind), (plural, namespaced, verbs, subresources) in facts.EXTRA.items():
        row = {"resource": [group, version, kind], "plural": plural}
        found.append((namespaced, {**row, "verbs": list(verbs)}))
        for name in subresources:
            parent = {"parent": row["resource"], "action": name}
            found.append((namespaced, {**row, **parent, "verbs": ["get", "patch", "update"]}))
    for (group, kind, name), (options, verbs) in facts.CONNECTIONS.items():
        version = facts.GROUPS[group][0]
        plural = next(i["plural"] for _, i in found if i["resource"] == [group, version, kind])
        row = {"resource": [group, version, options], "plural": plural, "verbs": list(verbs)}
        found.append((True, {**row, "parent": [group, version, kind], "action": name}))
    return found


def resources() -> list[dict[str, Any]]:
    """One row per served resource, in discovery's order."""
    infos = _infos()
    kinds = _kinds()
    rows: dict[tuple[str, str, str], dict[str, Any]] = {}
    for namespaced, info in infos:
        group, version, kind = info["resource"]
        schema = kinds.get((group, version, kind))
        if "parent" in info or version not in facts.GROUPS.get(group, ()) or (group, kind) in facts.OMITTED:
            continue
        if schema is None:  # newer than RELEASE
            continue
        row: dict[str, Any] = {
            "group": group,
            "version": version,
            "plural": info["plural"],
            "kind": kind,
            "verbs": list(facts.VERBS.get((group, kind), _verbs(info["verbs"]))),
            "schema": schema,
        }
        if (group, version, kind) in facts.EXTRA:
            row["optional"] = True
        if namespaced:
            row["namespaced"] = True
        if short := facts.SHORT_NAMES.get((group, kind)):
            row["short"] = list(short)
        if categories := [c for c, members in sorted(facts.CATEGORIES.items()) if (group, kind) in members]:
            row["categories"] = categories
        if fields := facts.SELECTABLE_FIELDS.get((group, kind)):
            row["fields"] = list(fields)
        rows[(group, version, info["plural"])] = row
    for _, info in infos:
        if "parent" not in info:
            continue
        group, version, parent_kind = info["parent"]
        if (group, parent_kind, info["action"]) in facts.OMITTED:
            continue
        if info["action"] in facts.CONNECTION_NAMES and not info["resource"][2].endswith("Options"):
            continue
        parent = rows.get((group, version, info["plural"]))
        if parent is not None:
            parent.setdefault("subresources", {})[info["action"]] = {
                "kind": info["resource"],
                "verbs": _verbs(info["verbs"]),
            }
    order = list(facts.GROUPS)
    return [
        {**row, **({"subresources": dict(sorted(row["subresources"].items()))} if "subresources" in row else {})}
        for _, row in sorted(
            rows.items(),
            key=lambda item: (order.index(item[0][0]), facts.GROUPS[item[0][0]].index(item[0][1]), item[0][2]),
        )
    ]


def files() -> dict[str, bytes]:
    """Name -> content of every generated file."""
    rows = resources()
    lines = ",\n".join(json.dumps(row, separators=(",", ":")) for row in rows)
    return {"resources.json": f"[\n{lines}\n]\n".encode(), **schema_files(rows)}


def _same(path: Path, content: bytes) -> bool:
    """Equal once decompressed: zlib's output may differ between its versions."""
    if not path.is_file():
        return False
    old = path.read_bytes()
    return old == content or (path.suffix == ".z" and zlib.decompress(old) == zlib.decompress(content))


def main() -> int:
    check = "--check" in sys.argv[1:]
    wanted = files()
    ours = [p for pattern in ("schema-*", "docs-*", "resources.json") for p in DATA.glob(pattern)]
    stale = [path.name for path in ours if path.name not in wanted]
    if not check:
        for name in stale:
            (DATA / name).unlink()
    for name, content in wanted.items():
        path = DATA / name
        if _same(path, content):
            continue
        stale.append(name)
        if not check:
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_bytes(content)
    if check and stale:
        print(f"stale, run python tools/gen_types.py: {', '.join(stale)}")
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
