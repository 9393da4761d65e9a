"""What a service account token can be bound to: a pod, a node or a secret, with which it ends."""

from __future__ import annotations

from typing import Any, TypeAlias

from glebe.apiserver.auth import Lookup
from glebe.kube import errors
from glebe.kube.objects import Object

Bound: TypeAlias = dict[str, Any]
"""The claim ``kubernetes.io`` of a token."""

_KINDS = {"Pod": ("pods", "pod", True), "Secret": ("secrets", "secret", True), "Node": ("nodes", "node", False)}


def bind(lookup: Lookup, cluster: str, account: Object, reference: dict[str, Any]) -> Bound:
    """The claims for a TokenRequest's ``boundObjectRef``.

    :param account: the service account's metadata.
    :raises ApiError: 400 for other kinds and for pods of other accounts, 404, 409 for another object of the name.
    """
    version, kind, name = (str(reference.get(k) or "") for k in ("apiVersion", "kind", "name"))
    resource, claim, namespaced = _KINDS.get(kind, ("", "", False)) if version in ("", "v1") else ("", "", False)
    if not resource:
        raise errors.bad_request(f"cannot bind token to object of type {version}, Kind={kind}")
    found = lookup.read(cluster, resource, account["namespace"] if namespaced else "", name)
    if found is None:
        raise errors.not_found("", resource, name)
    uid = found["metadata"]["uid"]
    out: Bound = {claim: {"name": name, "uid": uid}}
    if kind == "Pod":
        if (found["spec"].get("serviceAccountName") or "") != account["name"]:
            raise errors.bad_request(
                f'cannot bind token for serviceaccount "{account["name"]}" to pod running with different '
                "serviceaccount name."
            )
        if node := found["spec"].get("nodeName"):
            out["node"] = _node(lookup, cluster, node)
    if reference.get("uid") not in (None, "", uid):
        why = (
            f"the UID in the bound object reference ({reference['uid']}) does not match the UID in record. "
            "The object might have been deleted and then recreated"
        )
        raise errors.conflict("", kind, name, why)
    return out


def _node(lookup: Lookup, cluster: str, name: str) -> Bound:
    node = lookup.read(cluster, "nodes", "", name)
    return {"name": name} if node is None else {"name": name, "uid": node["metadata"]["uid"]}
