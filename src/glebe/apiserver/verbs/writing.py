"""create, update and patch: the common path of every write."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import orjson

from glebe.apiserver.request import duplicates, media, options, yamlbody
from glebe.apiserver.request.call import (
    Call,
    is_stale,
    object_of,
    presented,
    respond_entry,
    respond_object,
    stored_version,
    to_be_stored,
)
from glebe.apiserver.store import Entry, Make, Mismatch, TooLarge
from glebe.apiserver.strategy import strategy_for
from glebe.apiserver.verbs import admitting, renewing, schema_steps
from glebe.apiserver.verbs.metadata import check_finalizers, check_identity, check_update, fill_create, fill_update
from glebe.apiserver.verbs.namespaces import require_namespace
from glebe.kube import errors
from glebe.kube.objects import Object
from glebe.kube.transport import Response

#: How often a write without a resourceVersion of its own is tried again when it loses a race. Each lost race is
#: somebody else's success, so that a big number only bounds how long a crowd may take.
ATTEMPTS = 1000
_NAME_ATTEMPTS = 8
_SUFFIX = "bcdfghjklmnpqrstvwxz2456789"


#: Bytes of a stored object, as etcd takes them by default: an object cannot grow without end, patch by patch, and what
#: one store holds another one takes.
MAX_OBJECT = 1536 * 1024


def encoder(call: Call, obj: Object, *, bounded: bool = False) -> Make:
    """Bytes of ``obj`` under a revision, in the stored version.

    What it returns raises :class:`TooLarge` for more than :data:`MAX_OBJECT` when ``bounded``; deletions are not.
    """
    if not stored_version(call.info):
        from glebe.apiserver.types.conversion import any_stored  # late: few kinds need it

        obj = any_stored(call.info, obj)
    meta, tenant = obj["metadata"], call.tenant

    def make(revision: int) -> bytes:
        if tenant is not None and not tenant.alive:  # deleted while the request was under way
            raise errors.not_found("glebe.dev", "clusters", tenant.name)
        meta["resourceVersion"] = str(revision)
        data = orjson.dumps(obj)
        if bounded and len(data) > MAX_OBJECT:
            raise TooLarge(f"Request entity too large: an object takes no more than {MAX_OBJECT} bytes")
        return data

    return make


async def create(call: Call) -> Response:
    obj = decode_body(call)
    return await create_object(call, obj)


async def create_object(call: Call, obj: Object, *, applied: bool = False) -> Response:
    """Store a new object; ``applied``: it comes from server-side apply, which has recorded its owner."""
    info, server = call.info, call.server
    call.dry_run = options.dry_run(call.request)
    check_identity(call, obj)
    meta = obj["metadata"]
    if info.namespaced:
        require_namespace(call, meta.get("name", ""))
    generated = not meta.get("name") and bool(meta.get("generateName"))
    for attempt in range(_NAME_ATTEMPTS):
        if generated:
            meta["name"] = meta["generateName"][:58] + "".join(server.env.rng.choices(_SUFFIX, k=5))
        if attempt == 0:
            await _prepare_create(call, obj, applied)
        name = meta["name"]
        if call.dry_run:
            if server.store.get(call.key(name)) is not None:
                raise errors.already_exists(info.group, info.plural, name)
            return respond_object(call, obj, 201)
        if info.namespaced:
            require_namespace(call, name)  # again: admission may have taken its time
        try:
            entry = await server.store.put(
                call.key(name), encoder(call, await to_be_stored(call, obj), bounded=True), 0
            )
        except Mismatch:
            if generated and attempt + 1 < _NAME_ATTEMPTS:
                continue
            raise errors.already_exists(info.group, info.plural, name) from None
        admitting.settle(call, True)
        server.written(call, entry, None)
        return respond_entry(call, await presented(call, entry), 201)
    raise AssertionError("unreachable")


async def _prepare_create(call: Call, obj: Object, applied: bool) -> None:
    strategy = strategy_for(call.info)
    now = call.server.now_text()
    schema_steps.prune(call, obj, call.duplicates)
    fill_create(call, obj, strategy.counts_generation, now)
    strategy.prepare_create(obj, now)
    schema_steps.default(call, obj)
    strategy.after_defaults(obj, now)
    if not applied:  # as upstream: what admission adds is nobody's
        obj["metadata"].pop("managedFields", None)
        schema_steps.own_fields(call, None, obj, "")
    await admitting.mutate(call, "CREATE", obj, None)
    strategy.admitted(obj)
    schema_steps.validate(call, obj, None, "")
    causes = check_finalizers(call.info, obj["metadata"]) + strategy.validate_create(obj)
    if causes:
        raise call.invalid(obj["metadata"].get("name", ""), causes)
    await admitting.judge(call)
    if (allocate := call.server.allocators.get(call.info.group_resource)) is not None:
        await allocate(call, obj, None)


async def update(call: Call) -> Response:
    body = decode_body(call)
    check_identity(call, body)
    strategy = strategy_for(call.info)
    call.dry_run = options.dry_run(call.request)
    entry = call.server.store.get(call.key())
    if entry is None:
        if strategy.create_on_update and not call.route.subresource:
            await call.server.require(call, "create")
            return await create_object(call, body)
        raise call.not_found()
    if strategy.needs_lock and body["metadata"].get("resourceVersion") in (None, "", "0"):
        cause = errors.Cause(
            "FieldValueInvalid", "Invalid value: 0: must be specified for an update", "metadata.resourceVersion"
        )
        raise errors.invalid(call.info.group, call.info.plural, call.route.name, [cause])
    decoded = [body]

    def make(old: Object) -> Object:
        if decoded:
            return decoded.pop()
        again = decode_body(call)  # the first one was changed on its way
        check_identity(call, again)
        return again

    return await change(call, make, whole=True)


async def change(
    call: Call, make: Callable[[Object], Object], *, applied: bool = False, whole: bool = False
) -> Response:
    """Read, ``make`` the new object from a copy of the old one, check, store; again when somebody was faster.

    ``whole``: it is made without looking at the old one. The new object's ``metadata.resourceVersion``, when given and
    not the old one's, is an optimistic lock.
    """
    store = call.server.store
    for _ in range(ATTEMPTS):
        entry = store.get(call.key())
        if entry is None:
            raise call.not_found()
        shown = await presented(call, entry)
        old = object_of(call, shown)
        new = make({} if whole else object_of(call, shown))
        _check_lock(call, new, old)
        result = await _attempt(call, shown, new, old, applied, is_stale(call, entry))
        if result is not None:
            return result
    raise errors.modified(call.info.group, call.info.plural, call.route.name)


def _check_lock(call: Call, new: Object, old: Object) -> None:
    """The version (0: any) and the object that the writer names, if any, must be the present ones."""
    meta, before = new["metadata"], old["metadata"]
    version = meta.get("resourceVersion")
    if version not in (None, "", "0") and version != before["resourceVersion"]:
        raise errors.modified(call.info.group, call.info.plural, call.route.name)
    uid = meta.get("uid")
    if uid and uid != before["uid"] and call.request.method == "PUT":
        why = f"Precondition failed: UID in precondition: {uid}, UID in object meta: {before['uid']}"
        raise errors.conflict(call.info.group, call.info.plural, call.route.name, why)


async def _attempt(call: Call, entry: Entry, new: Object, old: Object, applied: bool, stale: bool) -> Response | None:
    """One try to replace ``entry``; None when it was replaced by someone else in the meantime.

    ``stale``: it is to be written even if nothing changes, because it is stored in an old form.
    """
    server, store = call.server, call.server.store
    subresource = call.route.subresource
    renewal = await prepare_update(call, new, old)
    if not stale and not renewal and unchanged(new, old) and not _reowned(new, old, applied):
        return respond_entry(call, entry)
    if not applied and not renewal:
        schema_steps.own_fields(call, old, new, subresource)
    if call.dry_run:
        return respond_object(call, new)
    try:
        if _is_over(call, new, old):
            done = await store.delete(call.key(), encoder(call, await to_be_stored(call, new)), entry.revision)
            admitting.settle(call, True)
            server.written(call, None, entry)
        else:
            make = encoder(call, await to_be_stored(call, new), bounded=True)
            done = await store.put(call.key(), make, entry.revision)
            admitting.settle(call, True)
            server.written(call, done, entry)
    except Mismatch:
        return None
    return respond_entry(call, await presented(call, done))


async def prepare_update(call: Call, new: Object, old: Object) -> bool:
    """All steps of an update up to field ownership, in place; whether it is a mere renewal, which has no more."""
    renewal = renewing.is_renewal(call, new, old)
    if not renewal:
        _complete(call, new, old)
    await admitting.mutate(call, "UPDATE", new, old)
    if not renewal or not (renewal := renewing.is_renewal(call, new, old)):
        _check(call, new, old)
    await admitting.judge(call)
    subresource = call.route.subresource
    if not subresource and (allocate := call.server.allocators.get(call.info.group_resource)) is not None:
        await allocate(call, new, old)
    return renewal


def _complete(call: Call, new: Object, old: Object) -> None:
    """The steps before admission."""
    strategy = strategy_for(call.info)
    subresource, now = call.route.subresource, call.server.now_text()
    schema_steps.prune(call, new, call.duplicates)
    fill_update(call, new, old)
    if subresource == "status":
        strategy.prepare_status(new, old, now)
    else:
        if subresource:
            strategy.confine(new, old, subresource)
        strategy.prepare_update(new, old, now)
    schema_steps.default(call, new)
    if not subresource:
        strategy.after_defaults(new, now)


def _check(call: Call, new: Object, old: Object) -> None:
    """:raises ApiError: 422, what admission has left is not allowed."""
    subresource = call.route.subresource
    causes = check_update(call.info, new, old)
    causes += strategy_for(call.info).validate_update(new, old, subresource)
    if causes:
        raise call.invalid(call.route.name, causes)
    schema_steps.validate(call, new, old, subresource)


def unchanged(new: Object, old: Object) -> bool:
    """Is the write a no-op? Who owns which field does not count (the caller would otherwise write for ever)."""
    a, b = new["metadata"], old["metadata"]
    for name in {**a, **b}:
        if name not in ("managedFields", "resourceVersion") and a.get(name) != b.get(name):
            return False
    return all(name == "metadata" or new.get(name) == old.get(name) for name in {**new, **old})


def _reowned(new: Object, old: Object, applied: bool) -> bool:
    """Are the owners of fields others? A writer who names none leaves them as they are (kubectl edits them)."""
    given = new["metadata"].get("managedFields")
    return (applied or bool(given)) and given != old["metadata"].get("managedFields")


def _is_over(call: Call, new: Object, old: Object) -> bool:
    """Does this update end an object that was marked for deletion (its last finalizer went)?"""
    meta = new["metadata"]
    if "deletionTimestamp" not in old["metadata"] or meta.get("finalizers"):
        return False
    if meta.get("deletionGracePeriodSeconds"):
        return False
    return strategy_for(call.info).may_vanish(new)


def decode_body(call: Call) -> Object:
    """The object in the body, with its type checked against the path."""
    header = call.request.headers.get("content-type", "")
    obj = media.decode(call.request.body, header, call.warn)
    if "protobuf" not in header and options.field_validation(call.request) != "Ignore":
        if "yaml" in header:
            call.duplicates = yamlbody.repeated_keys(call.request.body)
        else:
            call.duplicates = duplicates.find(call.request.body, obj)
    check_type(call, obj)
    return obj


def check_type(call: Call, obj: Object) -> None:
    """``apiVersion`` and ``kind`` must be the path's; what is missing is filled in for built-in kinds."""
    info = call.info
    version, kind = obj.get("apiVersion"), obj.get("kind")
    if version and version != info.api_version:
        if info.is_custom:
            why = f"does not match the expected API version ({info.api_version})"
            raise errors.bad_request(f"the API version in the data ({version}) {why}")
        raise errors.bad_request(
            f'{info.kind} in version "{info.version}" cannot be handled as a {info.kind}: the API version in the data '
            f"({version}) does not match the expected API version ({info.api_version})"
        )
    if kind and kind != info.kind:
        if info.is_custom:
            cause = errors.Cause("FieldValueInvalid", f'Invalid value: "{kind}": must be {info.kind}', "kind")
            raise errors.invalid(info.group, info.kind, "", [cause])
        raise errors.bad_request(
            f'{kind} in version "{info.version}" cannot be handled as a {info.kind}: '
            f"no kind {kind} is served at this path"
        )
    if info.is_custom and not (version and kind):
        raise errors.bad_request("Object 'Kind' is missing" if not kind else "Object 'apiVersion' is missing")
    obj["apiVersion"], obj["kind"] = info.api_version, info.kind
    meta: Any = obj.get("metadata")
    if meta is None:
        obj["metadata"] = {}
    elif not isinstance(meta, dict):
        raise errors.bad_request(f"metadata: expected an object, got {type(meta).__name__}")
