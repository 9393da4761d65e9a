"""A small server-side change of one stored object, tried again when somebody else was faster."""

from __future__ import annotations

from collections.abc import Callable

from glebe.apiserver.request.call import Call, object_of, presented, to_be_stored, view_of
from glebe.apiserver.store import Entry, Mismatch
from glebe.apiserver.verbs.writing import ATTEMPTS, encoder
from glebe.kube import errors
from glebe.kube.objects import Object


async def modify(call: Call, edit: Callable[[Object], bool | None]) -> tuple[Entry | None, Object]:
    """Apply ``edit`` to a copy of the object and store it; (stored entry, object).

    ``edit`` changes the object in place and may raise ApiError; it returns True when the object must go instead. The
    entry is None for a dry run. No schema step runs: ``edit`` is trusted.
    """
    store = call.server.store
    for _ in range(ATTEMPTS):
        entry = store.get(call.key())
        if entry is None:
            raise call.not_found()
        entry = await presented(call, entry)
        obj = object_of(call, entry)
        gone = edit(obj)
        if call.dry_run:
            return None, obj
        if not gone and obj == view_of(call, entry):
            return entry, obj
        try:
            if gone:
                done = await store.delete(call.key(), encoder(call, await to_be_stored(call, obj)), entry.revision)
                call.server.written(call, None, entry)
            else:
                make = encoder(call, await to_be_stored(call, obj), bounded=True)
                done = await store.put(call.key(), make, entry.revision)
                call.server.written(call, done, entry)
        except Mismatch:
            continue
        return done, obj
    raise errors.modified(call.info.group, call.info.plural, call.route.name)
