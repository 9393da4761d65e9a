"""Which of a Deployment's ReplicaSets has the present template, and what a new one looks like."""

from __future__ import annotations

import hashlib
from collections.abc import Iterable
from typing import Any

import orjson

from glebe.kube.objects import Object, labels_of, owner_reference

HASH_LABEL = "pod-template-hash"
_ALPHABET = "bcdfghjklmnpqrstvwxz2456789"
_HASH_LENGTH = 10
_MAX_NAME = 253


def name_of(obj: Object) -> str:
    return str(obj["metadata"]["name"])


def age_rank(obj: Object) -> tuple[str, str]:
    """Oldest first."""
    return str(obj["metadata"].get("creationTimestamp", "")), name_of(obj)


def size(replica_set: Object) -> int:
    """Replicas that the set's spec asks for."""
    value = replica_set["spec"].get("replicas")
    return 1 if value is None else int(value)


def counted(replica_set: Object, what: str) -> int:
    """A number of the set's status."""
    return int((replica_set.get("status") or {}).get(what) or 0)


def available(replica_set: Object) -> int:
    """Available replicas that stay: those above the set's size are about to go."""
    return min(counted(replica_set, "availableReplicas"), size(replica_set))


def total(sets: Iterable[Object]) -> int:
    """Replicas that all sets ask for."""
    return sum(size(s) for s in sets)


def plain(template: Object) -> Any:
    """A template without its hash label and without fields that say nothing, for comparison."""
    meta = dict(template.get("metadata") or {})
    meta["labels"] = {k: v for k, v in (meta.get("labels") or {}).items() if k != HASH_LABEL}
    return _pruned({**template, "metadata": meta})


def _pruned(value: Any) -> Any:
    """Without what says nothing: absent, ``null`` and empty are the same, and so is the zero of a plain field."""
    if isinstance(value, dict):
        return {k: p for k, v in value.items() if (p := _pruned(v)) or (k not in _PLAIN and _speaks(k, p))}
    if isinstance(value, list):
        return [_pruned(v) for v in value]
    return value


def _speaks(field: str, value: Any) -> bool:
    return field in _SAID_BY_PRESENCE if value in ({}, []) else value is not None


_SAID_BY_PRESENCE = frozenset(
    {
        "emptyDir",
        "securityContext",
        "labelSelector",
        "namespaceSelector",
        "matchLabelKeys",
        "sleep",
        "configMap",
        "secret",
    }
)
_PLAIN = frozenset({
    "hostNetwork", "hostPID", "hostIPC", "stdin", "stdinOnce", "tty", "readOnly", "value", "subPath", "subPathExpr",
    "hostname", "subdomain", "nodeName", "priorityClassName", "workingDir", "initialDelaySeconds", "hostPort", "hostIP",
    "mountPath", "path", "medium",
})  # fmt: skip
"""Fields that are no pointers upstream: their zero is as good as absence."""


def same_template(left: Object, right: Object) -> bool:
    """Whether two templates make the same pods. The hash label does not count."""
    return left == right or bool(plain(left) == plain(right))


def find_new(deployment: Object, sets: list[Object]) -> Object | None:
    """The oldest set (of ``sets``, oldest first) that has the Deployment's present template."""
    template = deployment["spec"]["template"]
    wanted: Any = None
    for one in sets:
        wanted = plain(template) if wanted is None else wanted
        if plain(one["spec"]["template"]) == wanted:
            return one
    return None


def template_hash(template: Object, collisions: int | None) -> str:
    """Letters and digits that depend on the template (and the number of collisions so far) only."""
    text = orjson.dumps(plain(template), option=orjson.OPT_SORT_KEYS)
    if collisions is not None:
        text += b"\0" + str(collisions).encode()
    number = int.from_bytes(hashlib.blake2b(text, digest_size=8).digest(), "big")
    out = ""
    for _ in range(_HASH_LENGTH):
        number, digit = divmod(number, len(_ALPHABET))
        out += _ALPHABET[digit]
    return out


def new_set(deployment: Object, replicas: int, annotations: dict[str, str]) -> Object:
    """The ReplicaSet of the present template, of a name that depends on the template."""
    meta, spec = deployment["metadata"], deployment["spec"]
    mark = template_hash(spec["template"], (deployment.get("status") or {}).get("collisionCount"))
    template = dict(spec["template"])
    labels = {**labels_of({"metadata": template.get("metadata") or {}}), HASH_LABEL: mark}
    template["metadata"] = {**(template.get("metadata") or {}), "labels": labels}
    selector = dict(spec["selector"])
    selector["matchLabels"] = {**(selector.get("matchLabels") or {}), HASH_LABEL: mark}
    out: Object = {
        "apiVersion": "apps/v1",
        "kind": "ReplicaSet",
        "metadata": {
            "name": f"{meta['name'][: _MAX_NAME - 1 - _HASH_LENGTH]}-{mark}",
            "namespace": meta["namespace"],
            "labels": labels,
            "annotations": annotations,
            "ownerReferences": [owner_reference({"apiVersion": "apps/v1", "kind": "Deployment", "metadata": meta})],
        },
        "spec": {"replicas": replicas, "selector": selector, "template": template},
    }
    if ready := spec.get("minReadySeconds"):
        out["spec"]["minReadySeconds"] = ready
    return out
