"""The gate that namespaces are for everything created in them."""

from __future__ import annotations

from glebe.apiserver.request.call import Call
from glebe.apiserver.store import Key
from glebe.kube import errors

#: Namespaces that every logical cluster has from its first moment and that may not be deleted (all but the last).
DEFAULT = ("default", "kube-system", "kube-public", "kube-node-lease")
IMMORTAL = DEFAULT[:3]


def require_namespace(call: Call, name: str = "") -> None:
    """The namespace must exist and not be ending.

    :raises ApiError: 404, or 403 with the cause NamespaceTerminating.
    """
    namespace = call.route.namespace
    entry = call.server.store.get(Key("namespaces", call.cluster, "", namespace))
    if entry is None:
        raise errors.not_found("", "namespaces", namespace)
    meta = entry.view()["metadata"]
    if "deletionTimestamp" not in meta:
        return
    why = f"unable to create new content in namespace {namespace} because it is being terminated"
    error = errors.forbidden(call.info.group, call.info.plural, name, why)
    error.details["causes"] = [
        {
            "reason": "NamespaceTerminating",
            "message": f"namespace {namespace} is being terminated",
            "field": "metadata.namespace",
        }
    ]
    raise error
