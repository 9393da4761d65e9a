"""Charts in ``tests/charts``, rendered as Helm renders them, and applied as it applies them."""

from __future__ import annotations

import hashlib
from pathlib import Path
from string import Template

import orjson
import yaml

from glebe.kube.client import Client
from glebe.kube.objects import Object
from glebe.kube.resources import Resource

CHARTS = Path(__file__).parents[2] / "charts"


def render(chart: str, **values: str) -> str:
    """The chart's manifests; ``CHECKSUM`` is that of the rendered ConfigMap."""
    text = (CHARTS / f"{chart}.yaml").read_text(encoding="utf-8")
    config = "".join(part for part in text.split("\n---\n") if "kind: ConfigMap" in part)
    checksum = hashlib.sha256(Template(config).safe_substitute(values).encode()).hexdigest()
    return Template(text).substitute(values, CHECKSUM=checksum)


def objects(text: str, namespace: str) -> list[Object]:
    """The manifests as objects in ``namespace``."""
    out = [obj for obj in yaml.safe_load_all(text) if obj]
    for obj in out:
        obj["metadata"].setdefault("namespace", namespace)
    return out


async def resources(client: Client) -> dict[tuple[str, str], Resource]:
    """By API version and kind, as discovery tells them."""
    groups = orjson.loads((await client.raw("GET", "/apis")).body)["groups"]
    versions = ["v1", *(v["groupVersion"] for g in groups for v in g["versions"])]
    out = {}
    for each in versions:
        path = f"/apis/{each}" if "/" in each else f"/api/{each}"
        group, _, version = each.rpartition("/")
        for entry in orjson.loads((await client.raw("GET", path)).body)["resources"]:
            if "/" not in entry["name"]:
                kind = entry["kind"]
                out[each, kind] = Resource(group, version, entry["name"], kind, bool(entry["namespaced"]))
    return out


async def apply(client: Client, text: str, namespace: str = "default") -> None:
    """Server-side apply, as Helm 4 does."""
    known = await resources(client)
    for obj in objects(text, namespace):
        await client.apply(known[obj["apiVersion"], obj["kind"]], obj, field_manager="helm", force=True)
