"""delete and deletecollection: grace periods, finalizers, propagation."""

from __future__ import annotations

import asyncio
from typing import Any

from glebe.apiserver.request import options, selection
from glebe.apiserver.request.call import (
    Call,
    object_of,
    presented,
    respond,
    respond_entry,
    respond_object,
    served,
    to_be_stored,
    view_of,
)
from glebe.apiserver.request.options import DeleteOptions
from glebe.apiserver.store import Entry, Key, Mismatch
from glebe.apiserver.strategy import strategy_for
from glebe.apiserver.verbs import admitting
from glebe.apiserver.verbs.namespaces import IMMORTAL
from glebe.apiserver.verbs.reading import find_shown
from glebe.apiserver.verbs.writing import ATTEMPTS, encoder
from glebe.kube import errors
from glebe.kube.clock import format_time
from glebe.kube.objects import Object
from glebe.kube.transport import Response

_ORPHAN, _FOREGROUND = "orphan", "foregroundDeletion"
_BREATHE = 50
#: Kinds whose deletion answers with the object instead of a Status.
RETURNED = frozenset(
    {
        "namespaces",
        "persistentvolumeclaims",
        "persistentvolumes",
        "pods",
        "podtemplates",
        "resourcequotas",
        "serviceaccounts",
        "services",
        "deviceclasses.resource.k8s.io",
        "resourceclaims.resource.k8s.io",
        "resourceclaimtemplates.resource.k8s.io",
        "resourceslices.resource.k8s.io",
        "csidrivers.storage.k8s.io",
        "csinodes.storage.k8s.io",
        "storageclasses.storage.k8s.io",
        "volumeattachments.storage.k8s.io",
        "volumeattributesclasses.storage.k8s.io",
    }
)


async def delete(call: Call) -> Response:
    chosen = options.delete_options(call.request)
    call.dry_run = chosen.dry_run
    _warn_orphans(call, chosen)
    return await delete_one(call, call.key(), chosen)


async def delete_collection(call: Call) -> Response:
    """Delete everything that the selectors choose; answers with the list of what was there."""
    chosen = options.delete_options(call.request)
    call.dry_run = chosen.dry_run
    entries, revision, _, _ = await find_shown(call, selection.parse(call.request, call.info), 0)
    for i, entry in enumerate(entries):
        if i % _BREATHE == _BREATHE - 1:
            await asyncio.sleep(0)  # thousands of deletions must not hold up everybody else
        meta = entry.view()["metadata"]
        key = Key(call.info.stored_as, call.cluster, meta.get("namespace", ""), meta["name"])
        try:
            await delete_one(call, key, chosen)
        except errors.ApiError as error:
            if not errors.is_not_found(error):
                raise
    items = [served(call.info, e.load()) for e in entries]
    body = {
        "kind": call.info.list_kind,
        "apiVersion": call.info.api_version,
        "metadata": {"resourceVersion": str(revision)},
        "items": items,
    }
    return respond(body, call.wanted if not call.wanted.shape else type(call.wanted)())


async def delete_one(call: Call, key: Key, chosen: DeleteOptions, *, admission: bool = True) -> Response:
    """Remove the object, or mark it and leave the rest to its finalizers or its node.

    :param admission: whether plugins are asked; not when they have already judged what leads to this (an eviction).
    """
    store, info = call.server.store, call.info
    for _ in range(ATTEMPTS):
        entry = store.get(key)
        if entry is None:
            raise call.not_found(key.name)
        entry = await presented(call, entry)
        _check_preconditions(call, entry, chosen, key.name)
        if info.group_resource == "namespaces" and key.name in IMMORTAL:
            raise errors.forbidden("", "namespaces", key.name, "this namespace may not be deleted")
        if admission:
            await admitting.mutate(call, "DELETE", None, view_of(call, entry))
            await admitting.judge(call)
        try:
            return await _attempt(call, key, entry, chosen)
        except Mismatch:
            continue
    raise errors.modified(info.group, info.plural, key.name)


async def _attempt(call: Call, key: Key, entry: Entry, chosen: DeleteOptions) -> Response:
    obj = object_of(call, entry)
    before = view_of(call, entry)
    ends_now = mark(call, obj, chosen)
    store, server = call.server.store, call.server
    if ends_now:
        if not call.dry_run:
            entry = await store.delete(key, encoder(call, await to_be_stored(call, obj)), entry.revision)
            admitting.settle(call, True)
            server.written(call, None, entry)
            entry = await presented(call, entry)
        return _deleted(call, obj, entry)
    if obj == before:
        return respond_entry(call, entry)
    if call.dry_run:
        return respond_object(call, obj)
    done = await store.put(key, encoder(call, await to_be_stored(call, obj)), entry.revision)
    admitting.settle(call, True)
    server.written(call, done, entry)
    return respond_entry(call, await presented(call, done))


def mark(call: Call, obj: Object, chosen: DeleteOptions) -> bool:
    """Change ``obj`` as its deletion demands; True when nothing holds it and it can be removed at once."""
    strategy = strategy_for(call.info)
    meta = obj["metadata"]
    now = call.server.env.clock.now()
    strategy.before_delete(obj)
    _set_propagation(meta, chosen, strategy.default_orphans)
    grace = strategy.grace_period(obj, chosen.grace_period)
    held = bool(meta.get("finalizers")) or not strategy.may_vanish(obj)
    if "deletionTimestamp" in meta:
        # Marked before: the period may only become shorter, counted from now.
        left = meta.get("deletionGracePeriodSeconds", 0)
        if grace is not None and chosen.grace_period is not None and grace < left:
            meta["deletionTimestamp"] = format_time(now + grace)
            meta["deletionGracePeriodSeconds"] = left = grace
        return not held and not left
    if not held and not grace:
        return True
    grace = grace or 0
    meta["deletionTimestamp"] = format_time(now + grace)
    if strategy.counts_deletion:
        meta["deletionGracePeriodSeconds"] = grace
        if meta.get("generation"):
            meta["generation"] += 1
    strategy.on_delete(obj, format_time(now))
    return False


def _set_propagation(meta: dict[str, Any], chosen: DeleteOptions, default_orphans: bool) -> None:
    """The policy becomes a finalizer for the garbage collector."""
    finalizers = list(meta.get("finalizers") or ())
    policy = chosen.propagation
    if not policy:
        if _ORPHAN in finalizers or _FOREGROUND in finalizers:
            return
        policy = "Orphan" if default_orphans else "Background"
    kept = [f for f in finalizers if f not in (_ORPHAN, _FOREGROUND)]
    if policy == "Orphan":
        kept.append(_ORPHAN)
    elif policy == "Foreground":
        kept.append(_FOREGROUND)
    if kept:
        meta["finalizers"] = kept
    else:
        meta.pop("finalizers", None)


def _warn_orphans(call: Call, chosen: DeleteOptions) -> None:
    if call.info.group_resource == "jobs.batch" and not chosen.propagation:
        call.warn(
            "child pods are preserved by default when jobs are deleted; set propagationPolicy=Background to remove them"
            " or set propagationPolicy=Orphan to suppress this warning"
        )


def _check_preconditions(call: Call, entry: Entry, chosen: DeleteOptions, name: str) -> None:
    meta = entry.view()["metadata"]
    why = ""
    if chosen.uid and chosen.uid != meta["uid"]:
        why = (
            f"the UID in the precondition ({chosen.uid}) does not match the UID in record ({meta['uid']}). "
            "The object might have been deleted and then recreated"
        )
    elif chosen.resource_version and chosen.resource_version != meta["resourceVersion"]:
        why = (
            f"the ResourceVersion in the precondition ({chosen.resource_version}) does not match the "
            f"ResourceVersion in record ({meta['resourceVersion']}). The object might have been modified"
        )
    if why:
        raise errors.conflict(call.info.group, call.info.kind, name, why)


def _deleted(call: Call, obj: Object, entry: Entry) -> Response:
    info = call.info
    if info.group_resource in RETURNED:
        return respond_object(call, obj) if call.dry_run else respond_entry(call, entry)
    details: dict[str, Any] = {"name": obj["metadata"]["name"], "kind": info.plural, "uid": obj["metadata"]["uid"]}
    if info.group:
        details["group"] = info.group
    status = {"kind": "Status", "apiVersion": "v1", "metadata": {}, "status": "Success", "details": details}
    return respond(status, type(call.wanted)(call.wanted.media))
