"""History of pod templates: ControllerRevisions of StatefulSets and DaemonSets.

A revision holds the template as a patch that puts it back; its name ends with a hash of that patch, so that a creation
that is repeated after a crash meets the first one's name. What a template was before is found by comparing templates,
never by names.
"""

from __future__ import annotations

import copy
import json
from collections.abc import Iterable
from typing import Any

from glebe.kube.client import Client
from glebe.kube.errors import ApiError, is_already_exists
from glebe.kube.informer import Informers
from glebe.kube.objects import Object, ObjectKey, annotations_of, is_deleting, owner_reference
from glebe.kube.resources import CONTROLLER_REVISIONS, Resource
from glebe.workloads.owned import Claims, gone_is_fine

_ALPHABET = "bcdfghjklmnpqrstvwxz2456789"  # as upstream: no vowels, so no words
_PREFIX = 223  # of 253; the rest is for the hash
_COLLISIONS = 16  # tried in one reconciliation


def snapshot(owner: Object) -> Object:
    """The patch that puts the owner's pod template back.

    Its keys are sorted, at every depth: upstream's clients compare such patches byte by byte.
    """
    return {"spec": {"template": {"$patch": "replace", **_plain(owner["spec"]["template"])}}}


def template_of(revision: Object) -> Object:
    """The pod template that a revision holds."""
    template = (((revision.get("data") or {}).get("spec") or {}).get("template")) or {}
    return {field: value for field, value in template.items() if field != "$patch"}


def restored(owner: Object, revision: Object) -> Object:
    """The owner as it would be with the revision's template."""
    return {**owner, "spec": {**owner["spec"], "template": template_of(revision)}}


def same(one: Object, other: Object) -> bool:
    """Whether two revisions hold the same template."""
    return bool(_plain(one.get("data")) == _plain(other.get("data")))


def _plain(value: Any) -> Any:
    """Sorted, and without empty times and the like, which some clients write and some do not."""
    if isinstance(value, dict):
        return {k: _plain(value[k]) for k in sorted(value) if value[k] is not None}
    if isinstance(value, list):
        return [_plain(v) for v in value]
    return value


def hash_of(data: Object, collisions: int) -> str:
    """A short hash (FNV-1, 32 bits, in letters that form no words) of the patch and of how often names collided."""
    text = json.dumps(data, sort_keys=True, separators=(",", ":"), ensure_ascii=False) + str(collisions)
    number = 0x811C9DC5
    for byte in text.encode():
        number = (number * 0x01000193) & 0xFFFFFFFF ^ byte
    return "".join(_ALPHABET[ord(digit) % len(_ALPHABET)] for digit in str(number))


def build(owner: Object, kind: Resource, number: int, collisions: int, hash_label: str) -> Object:
    """A revision of the owner's present template."""
    data, meta = snapshot(owner), owner["metadata"]
    suffix = hash_of(data, collisions)
    labels = (owner["spec"]["template"].get("metadata") or {}).get("labels") or {}
    made: Object = {
        "apiVersion": CONTROLLER_REVISIONS.api_version,
        "kind": CONTROLLER_REVISIONS.kind,
        "metadata": {
            "name": f"{meta['name'][:_PREFIX]}-{suffix}",
            "namespace": meta["namespace"],
            "labels": {**labels, hash_label: suffix},
            "ownerReferences": [owner_reference({"apiVersion": kind.api_version, "kind": kind.kind, **owner})],
        },
        "data": data,
        "revision": number,
    }
    if annotations := annotations_of(owner):
        made["metadata"]["annotations"] = dict(annotations)
    return made


def in_order(revisions: Iterable[Object]) -> list[Object]:
    """By number, then age, then name."""
    return sorted(
        revisions,
        key=lambda r: (number_of(r), str(r["metadata"].get("creationTimestamp", "")), str(r["metadata"]["name"])),
    )


def number_of(revision: Object) -> int:
    return int(revision.get("revision") or 0)


def surplus(revisions: list[Object], live: Iterable[str], limit: int) -> list[Object]:
    """What goes beyond ``revisionHistoryLimit``: the oldest of those (in order) whose names are not ``live``."""
    kept = set(live)
    history = [r for r in revisions if r["metadata"]["name"] not in kept]
    return history[: max(0, len(history) - limit)] if limit >= 0 else []


class History:
    """Revisions of owners of one kind.

    :param hash_label: under which a revision carries its hash.
    """

    def __init__(self, client: Client, informers: Informers, kind: Resource, hash_label: str) -> None:
        self._client = client
        self._kind = kind
        self._hash_label = hash_label
        self.claims = Claims(client, informers, kind, CONTROLLER_REVISIONS)

    async def claim(self, key: ObjectKey, owner: Object) -> list[Object]:
        """The owner's revisions, in order, after adopting those that belong to nobody."""
        return in_order(await self.claims.claim(key, owner))

    async def update_revision(self, key: ObjectKey, owner: Object, revisions: list[Object]) -> tuple[Object, int]:
        """The revision of the owner's present template, and the owner's count of collisions.

        It is found among ``revisions`` (in order), made the latest one when it was an older one, or created.

        :raises ApiError: it could not be written.
        """
        collisions = int((owner.get("status") or {}).get("collisionCount") or 0)
        if is_deleting(owner) and revisions:
            return revisions[-1], collisions  # no more history for what is about to end
        number = number_of(revisions[-1]) + 1 if revisions else 1
        fresh = build(owner, self._kind, number, collisions, self._hash_label)
        equal = [r for r in revisions if same(r, fresh)]
        if equal and same(revisions[-1], fresh):
            return revisions[-1], collisions
        if equal:
            return await self._client.update(CONTROLLER_REVISIONS, {**equal[-1], "revision": number}), collisions
        for attempt in range(_COLLISIONS):
            fresh = build(owner, self._kind, number, collisions + attempt, self._hash_label)
            if (made := await self._create(key, fresh)) is not None:
                return made, collisions + attempt
        raise RuntimeError(f"no free name for a revision of {self._kind.kind} {key}")

    async def _create(self, key: ObjectKey, fresh: Object) -> Object | None:
        """``None``: the name is taken by another template."""
        client = self._client.at(key.cluster)
        try:
            return await client.create(CONTROLLER_REVISIONS, copy.deepcopy(fresh))
        except ApiError as error:
            if not is_already_exists(error):
                raise
        there = await client.get(CONTROLLER_REVISIONS, fresh["metadata"]["name"], key.namespace)
        return there if same(there, fresh) else None

    async def delete(self, key: ObjectKey, revision: Object) -> None:
        meta = revision["metadata"]
        client = self._client.at(key.cluster)
        await gone_is_fine(client.delete(CONTROLLER_REVISIONS, meta["name"], key.namespace, uid=meta["uid"]))
