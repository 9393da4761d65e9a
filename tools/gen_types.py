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


def resources() -> list[dict[str, Any]]:
    """One row per served resource, in discovery's order."""
    infos = _api_infos()
    rows: dict[tuple[str, str, str], dict[str, Any]] = {}
    for namespaced, info in infos:
        group, version, kind = info["resource"]
        if "parent" in info or version not in facts.GROUPS.get(group, ()) or (group, kind) in facts.OMITTED:
            continue
        row: dict[str, Any] = {
            "group": group,
            "version": version,
            "plural": info["plural"],
            "kind": kind,
            "verbs": _verbs(info["verbs"]),
        }
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
        if "parent" not in info or info["action"] in facts.OMITTED_SUBRESOURCES:
            continue
        group, version, _ = info["parent"]
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
    rows = ",\n".join(json.dumps(row, separators=(",", ":")) for row in resources())
    return {"resources.json": f"[\n{rows}\n]\n".encode()}


def main() -> int:
    check = "--check" in sys.argv[1:]
    stale = []
    for name, content in files().items():
        path = DATA / name
        if path.is_file() and path.read_bytes() == content:
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
