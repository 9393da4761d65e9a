"""Manifest files: read them, and apply them to a cluster, as ``kubectl apply -f`` would."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from glebe.kube import resources
from glebe.kube.client import Client
from glebe.kube.objects import Object
from glebe.kube.resources import Resource

#: The kinds that Glebe's own code knows, by (apiVersion, kind).
KNOWN: dict[tuple[str, str], Resource] = {
    (value.api_version, value.kind): value for value in vars(resources).values() if isinstance(value, Resource)
}


def read_manifests(path: Path) -> list[Object]:
    """All documents of a YAML file.

    :raises ValueError: when the file is not YAML or a document is no object of a known kind.
    """
    import yaml

    loader: Any = getattr(yaml, "CSafeLoader", yaml.SafeLoader)
    try:
        documents = [d for d in yaml.load_all(path.read_text(encoding="utf-8"), Loader=loader) if d]
    except yaml.YAMLError as error:
        raise ValueError(f"{path}: not YAML: {error}") from error
    for number, document in enumerate(documents, 1):
        if not isinstance(document, dict) or (document.get("apiVersion"), document.get("kind")) not in KNOWN:
            raise ValueError(f"{path}: document {number} is not an object of a kind that Glebe knows")
    return documents


async def apply_all(client: Client, objects: list[Object], *, field_manager: str = "glebe-apply") -> None:
    """Server-side apply, in order."""
    for obj in objects:
        resource = KNOWN[obj["apiVersion"], obj["kind"]]
        await client.apply(resource, obj, field_manager=field_manager, force=True)
