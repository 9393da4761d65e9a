"""Generate ``src/glebe/apiserver/protobuf/fields.json``: how built-in kinds look in Kubernetes' protobuf encoding.

Source: the published Go modules ``k8s.io/api``, ``k8s.io/apimachinery``, ``k8s.io/apiextensions-apiserver`` and
``k8s.io/kube-aggregator`` in one version. Any tree that holds them side by side below ``k8s.io`` will do: a module
cache (``go mod download``; folders end in ``@v0.36.2``), Debian's ``/usr/share/gocode/src`` or the staging folder of a
source archive. The committed file was made from v0.36.2. Each package's ``generated.proto`` says numbers and types; the
tags of its Go structs say the names in JSON, what is inlined, and what JSON leaves out when it is empty.

    python tools/gen_protobuf.py TREE            # writes the file
    python tools/gen_protobuf.py TREE --check    # only compares

Form of the file: ``kinds`` maps ``GROUP/VERSION/KIND`` to a message; ``messages`` maps package and message to its
fields, separated by spaces, each ``NAME FLAG NUMBER TYPE`` without spaces, e.g. ``replicas?1int32``. No name: the
message's fields stand in the parent. Types: ``string``, ``int32``, ``int64``, ``bool``, ``double``, ``bytes`` or a
message (with its package when that is another), after ``[]`` for a list and ``{}`` for a map with string keys. Flags
say what JSON has when the wire has nothing or a zero:

``=``  left out when empty            ``?``  there when the wire has it (a pointer)
``!``  always there, zero if absent   ``~``  always there, null if absent
"""

from __future__ import annotations

import json
import re
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parents[1] / "src" / "glebe" / "apiserver"
TARGET = ROOT / "protobuf" / "fields.json"
META = "io.k8s.apimachinery.pkg.apis.meta.v1"
SCALARS = {"string", "int32", "int64", "bool", "double", "bytes"}
#: messages that the decoder knows by name, because their JSON is not their fields
SPECIAL = {
    "io.k8s.apimachinery.pkg.api.resource.Quantity",
    "io.k8s.apimachinery.pkg.runtime.RawExtension",
    "io.k8s.apimachinery.pkg.util.intstr.IntOrString",
    *(f"{META}.{name}" for name in ("Time", "MicroTime", "FieldsV1")),
    *(
        f"io.k8s.apiextensions-apiserver.pkg.apis.apiextensions.v1.{name}"
        for name in ("JSON", "JSONSchemaPropsOrArray", "JSONSchemaPropsOrBool", "JSONSchemaPropsOrStringArray")
    ),
}


@dataclass(frozen=True)
class Tag:
    """One field of a Go struct: its type and what JSON makes of it."""

    type: str
    json: str
    options: tuple[str, ...]


def folder(tree: Path, package: str) -> Path:
    """Where a package's sources are: ``io.k8s.api.batch.v1`` -> TREE/k8s.io/api[@VERSION]/batch/v1."""
    module, *rest = package.removeprefix("io.k8s.").split(".")
    for base in (tree / "k8s.io", tree):
        found = [base / module, *sorted(base.glob(f"{module}@*"))]
        for candidate in reversed(found):
            if (path := candidate.joinpath(*rest)).is_dir():
                return path
    raise SystemExit(f"{tree} has no sources of k8s.io/{module}: see the top of tools/gen_protobuf.py")


_MESSAGE = re.compile(r"^message (\w+) \{\n(.*?)^\}", re.M | re.S)
_FIELD = re.compile(r"^  (?:(optional|repeated) ([.\w]+)|map<string, ([.\w]+)>) (\w+) = (\d+);", re.M)
_STRUCT = re.compile(r"^type (\w+) struct \{\n(.*?)^\}", re.M | re.S)
_LIST = re.compile(r"^type (\w+) \[\]\w+", re.M)
_GO_FIELD = re.compile(r"^\t(?:\w+\s+)?([^\s`]+)\s+`([^`]*)`", re.M)


@cache
def protos(path: Path) -> dict[str, list[tuple[str, str, str, int]]]:
    """Message -> (``[]``, ``{}`` or nothing, type, name, number) of each field."""
    text = (path / "generated.proto").read_text()
    return {
        name: [
            ("{}" if in_map else "[]" if label == "repeated" else "", in_map or plain, field, int(number))
            for label, plain, in_map, field, number in _FIELD.findall(body)
        ]
        for name, body in _MESSAGE.findall(text)
    }


@cache
def structs(path: Path) -> tuple[dict[str, dict[int, Tag]], set[str]]:
    """(struct -> field number -> tag, types that are lists) of a Go package."""
    found: dict[str, dict[int, Tag]] = {}
    lists: set[str] = set()
    for source in sorted(path.glob("*.go")):
        if source.name.startswith("zz_generated") or source.name in (
            "generated.pb.go",
            "types_swagger_doc_generated.go",
        ):
            continue
        text = source.read_text()
        lists.update(_LIST.findall(text))
        for name, body in _STRUCT.findall(text):
            for kind, tags in _GO_FIELD.findall(body):
                as_json = re.search(r'json:"([^"]*)"', tags)
                as_proto = re.search(r'protobuf:"\w+,(\d+),', tags)
                if as_json and as_proto:
                    json_name, *options = as_json[1].split(",")
                    found.setdefault(name, {})[int(as_proto[1])] = Tag(kind, json_name, tuple(options))
    return found, lists


def _flag(shape: str, scalar: bool, tag: Tag) -> str:
    if tag.type.startswith("*"):
        return "?" if "omitempty" in tag.options else "~"
    if shape or tag.type == "[]byte":
        return "=" if "omitempty" in tag.options else "~"
    if not scalar:
        return "=" if "omitzero" in tag.options else "!"
    return "=" if "omitempty" in tag.options else "!"


def message(tree: Path, name: str) -> tuple[str, list[str]]:
    """(the fields of a message, the messages in them), as the file has them."""
    package, _, short = name.rpartition(".")
    path = folder(tree, package)
    tags, lists = structs(path)
    fields, needed = [], []
    for shape, raw, field, number in protos(path)[short]:
        kind = raw
        if raw not in SCALARS:
            full = raw.lstrip(".").replace("k8s.io.", "io.k8s.", 1) if "." in raw else f"{package}.{raw}"
            needed.append(full)
            kind = full.removeprefix(f"{package}.")
        if short in lists:
            fields.append(f"={number}{shape}{kind}")
            continue
        tag = tags.get(short, {}).get(number)
        if tag is None:
            raise SystemExit(f"{name}.{field}: its Go struct has no field {number}")
        inline = "inline" in tag.options
        if not (inline or tag.json):
            raise SystemExit(f"{name}.{field}: it has no name in JSON")
        fields.append(f"{tag.json}{_flag(shape, raw in SCALARS, tag)}{number}{shape}{kind}")
    return " ".join(fields), needed


def kinds() -> Iterator[tuple[str, str]]:
    """What may come or go as a body: served kinds and their lists, what their subresources take, options, errors."""
    rows: list[dict[str, Any]] = json.loads((ROOT / "data" / "resources.json").read_bytes())
    packages = {(row["group"], row["version"]): row["schema"].rpartition(".")[0] for row in rows}
    for row in rows:
        yield f"{row['group']}/{row['version']}/{row['kind']}", row["schema"]
        if "list" in row["verbs"]:
            yield f"{row['group']}/{row['version']}/{row['kind']}List", f"{row['schema']}List"
        for sub in row.get("subresources", {}).values():
            group, version, kind = sub["kind"]
            if kind.endswith("Options"):
                continue  # a connection's, in its query
            yield f"{group}/{version}/{kind}", f"{packages[group, version]}.{kind}"
    for kind in ("DeleteOptions", "PartialObjectMetadata", "PartialObjectMetadataList"):
        yield f"meta.k8s.io/v1/{kind}", f"{META}.{kind}"
    yield "meta.k8s.io/v1beta1/PartialObjectMetadata", f"{META}.PartialObjectMetadata"
    yield "meta.k8s.io/v1beta1/PartialObjectMetadataList", f"{META}beta1.PartialObjectMetadataList"
    yield "/v1/Status", f"{META}.Status"


def generate(tree: Path) -> str:
    wanted = dict(kinds())
    todo, done = sorted(set(wanted.values())), {}
    while todo:
        name = todo.pop()
        if name not in done and name not in SPECIAL:
            done[name], needed = message(tree, name)
            todo += needed
    packages: dict[str, dict[str, str]] = {}
    for name in sorted(done):
        package, _, short = name.rpartition(".")
        packages.setdefault(package, {})[short] = done[name]
    return json.dumps({"kinds": dict(sorted(wanted.items())), "messages": packages}, indent=0) + "\n"


def main() -> int:
    arguments = [a for a in sys.argv[1:] if a != "--check"]
    if len(arguments) != 1:
        print(__doc__, file=sys.stderr)
        return 2
    text = generate(Path(arguments[0]))
    if TARGET.is_file() and TARGET.read_text() == text:
        return 0
    if "--check" in sys.argv[1:]:
        print("stale, run python tools/gen_protobuf.py TREE: fields.json")
        return 1
    TARGET.write_text(text)
    return 0


if __name__ == "__main__":
    sys.exit(main())
