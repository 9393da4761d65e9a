"""The ConfigMaps, Secrets and tokens that a pod refers to, fetched before its containers are made."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from glebe.kube.client import Client
from glebe.kube.errors import ApiError, is_not_found
from glebe.kube.objects import Object
from glebe.kube.resources import CONFIGMAPS, SECRETS, SERVICE_ACCOUNTS
from glebe.node.values.environment import Source, decode_secret


def references(pod: Object) -> list[tuple[str, str]]:
    """(kind, name) of every ConfigMap ("configmap") and Secret ("secret") that the pod names, once each."""
    found: dict[tuple[str, str], None] = {}
    spec = pod["spec"]
    for container in [*(spec.get("initContainers") or []), *spec["containers"]]:
        for item in container.get("envFrom") or ():
            _add(found, item, "Ref")
        for item in container.get("env") or ():
            _add(found, item.get("valueFrom") or {}, "KeyRef")
    for volume in spec.get("volumes") or ():
        for part in (volume, *((volume.get("projected") or {}).get("sources") or ())):
            _add(found, part, "")
    return list(found)


def _add(found: dict[tuple[str, str], None], item: dict[str, Any], suffix: str) -> None:
    for kind in ("configMap", "secret"):
        reference = item.get(kind + suffix)
        if isinstance(reference, dict):
            name = reference.get("secretName") or reference.get("name") or ""
            found[kind.lower(), name] = None


async def fetch(client: Client, pod: Object) -> Source:
    """Read them all.

    :raises ApiError: a read was refused for another reason than that there is no such object.
    """
    data: dict[tuple[str, str], Mapping[str, str]] = {}
    for kind, name in references(pod):
        try:
            resource = CONFIGMAPS if kind == "configmap" else SECRETS
            obj = await client.get(resource, name, pod["metadata"]["namespace"])
        except ApiError as error:
            if not is_not_found(error):
                raise
            continue
        data[kind, name] = decode_secret(obj) if kind == "secret" else obj.get("data") or {}
    for part in token_sources(pod):
        token = await _token(client, pod, part)
        if token:
            data["token", token_key(part)] = {"token": token}
    return lambda kind, name: data.get((kind, name))


def token_sources(pod: Object) -> list[dict[str, Any]]:
    """The ``serviceAccountToken`` sources of the pod's projected volumes."""
    parts = [p for v in pod["spec"].get("volumes") or () for p in (v.get("projected") or {}).get("sources") or ()]
    return [p["serviceAccountToken"] for p in parts if "serviceAccountToken" in p]


def token_key(part: dict[str, Any]) -> str:
    """Under which name a token that a volume wants is kept."""
    return f"{part.get('audience') or ''} {part.get('expirationSeconds') or ''}"


async def _token(client: Client, pod: Object, part: dict[str, Any]) -> str:
    """A token of the pod's account, bound to the pod; empty on a server that issues none.

    :raises ApiError: e.g. the account does not exist (yet).
    """
    meta = pod["metadata"]
    spec: dict[str, Any] = {
        "boundObjectRef": {"apiVersion": "v1", "kind": "Pod", "name": meta["name"], "uid": meta["uid"]},
        "expirationSeconds": part.get("expirationSeconds") or 3600,
    }
    if part.get("audience"):
        spec["audiences"] = [part["audience"]]
    body = {"apiVersion": "authentication.k8s.io/v1", "kind": "TokenRequest", "metadata": {}, "spec": spec}
    account = pod["spec"].get("serviceAccountName") or "default"
    try:
        made = await client.create(SERVICE_ACCOUNTS, body, meta["namespace"], name=account, subresource="token")
    except ApiError as error:
        if error.code == 405:
            return ""
        raise
    return str(made["status"]["token"])
