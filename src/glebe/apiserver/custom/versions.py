"""Custom kinds with several versions, or whose schema has changed: how stored objects are read and written.

Objects are kept as they were stored: after a change of the storage version old ones stay in the old form until they are
written again, and defaults that were added later are filled in when an object is read. Kinds that never changed and
have one version never come here (``ResourceInfo.converts``), and for the others it is told by an object's revision
whether it was stored under the present definition.
"""

from __future__ import annotations

from collections.abc import Sequence

import orjson

from glebe.apiserver.custom.converting import convert
from glebe.apiserver.custom.sharing import CustomKind
from glebe.apiserver.request import selection
from glebe.apiserver.request.call import Call
from glebe.apiserver.store import Entry, Event
from glebe.apiserver.types.prune import prune
from glebe.apiserver.types.registry import ResourceInfo
from glebe.apiserver.types.structuraldefaults import apply_defaults
from glebe.apiserver.verbs import reading
from glebe.kube import errors
from glebe.kube.objects import Object


async def present_one(call: Call, entry: Entry) -> Entry:
    """:func:`present` of one entry."""
    return (await present(call, [entry]))[0]


async def present(call: Call, entries: Sequence[Entry]) -> list[Entry]:
    """Stored entries as the call's version shows them; those that are so already are passed on.

    :raises ApiError: 500, an object cannot be converted.
    """
    info, kind = call.info, call.info.custom
    assert kind is not None
    changed = call.server.registry.changed_at(call.cluster, info.group_resource)
    out: list[Entry] = list(entries)
    if info.version == kind.storage_version and all(e.revision > changed for e in entries):
        return out
    convertible: list[tuple[int, Object]] = []
    for index, entry in enumerate(entries):
        if info.version == kind.storage_version and entry.revision > changed:
            continue
        obj = entry.load()
        if entry.revision <= changed:
            _modernise(kind, obj)
        if obj.get("apiVersion") == info.api_version:
            if obj != entry.view():
                out[index] = Entry(entry.revision, orjson.dumps(obj))
        else:
            convertible.append((index, obj))
    for (index, _), made in zip(
        convertible, await _convert(call, kind, [obj for _, obj in convertible], info), strict=True
    ):
        out[index] = Entry(entries[index].revision, orjson.dumps(made))
    return out


async def to_stored(call: Call, obj: Object) -> Object:
    """``obj`` in the version in which its kind is stored.

    :raises ApiError: 500, it cannot be converted.
    """
    info, kind = call.info, call.info.custom
    assert kind is not None
    if info.version == kind.storage_version:
        return obj
    stored = kind.versions[kind.storage_version]
    return (await _convert(call, kind, [obj], stored))[0]


def is_old(call: Call, entry: Entry) -> bool:
    """Is the entry stored in another version than objects are stored in now, or without today's defaults?"""
    info, kind = call.info, call.info.custom
    assert kind is not None
    if entry.revision > call.server.registry.changed_at(call.cluster, info.group_resource):
        return False
    obj = entry.load()
    if obj.get("apiVersion") != f"{info.group}/{kind.storage_version}":
        return True
    _modernise(kind, obj)
    return obj != entry.view()


async def present_event(call: Call, event: Event) -> Event:
    """A change as a watcher of the call's version sees it."""
    held = [event.entry] if event.previous is None else [event.entry, event.previous]
    shown = await present(call, held)
    if all(a is b for a, b in zip(held, shown, strict=True)):
        return event
    previous = shown[1] if event.previous is not None else None
    return Event(event.cluster, event.namespace, event.name, shown[0], previous, event.deleted)


async def find(call: Call, chosen: selection.Selection, limit: int) -> tuple[list[Entry], int, str, int | None]:
    """:func:`glebe.apiserver.verbs.reading.find`: selectors look at objects in the version that is asked for."""
    namespace = call.route.namespace if call.info.namespaced else ""
    revision, after = reading.start(call)
    found: list[Entry] = []
    while True:
        size = max(limit, 500) if limit and not (chosen.all and not chosen.name) else limit
        page = reading.page_of(call, namespace, after, size, revision)
        entries = await present(call, page.entries)
        if chosen.all and not chosen.name:
            going_on = reading.token(call, page.revision, page.next_key) if page.next_key else ""
            return entries, page.revision, going_on, page.remaining
        for index, entry in enumerate(entries):
            meta = entry.view()["metadata"]
            if (chosen.name and meta["name"] != chosen.name) or not chosen.matches(entry):
                continue
            found.append(entry)
            if limit and len(found) == limit:
                more = page.next_key is not None or index + 1 < len(entries)
                last = (meta.get("namespace", ""), meta["name"])
                return found, page.revision, reading.token(call, page.revision, last) if more else "", None
        if page.next_key is None:
            return found, page.revision or call.server.store.revision, "", None
        after, revision = page.next_key, page.revision


def _modernise(kind: CustomKind, obj: Object) -> None:
    """Hold an object to the present schema of the version in which it is stored: prune and default it."""
    version = str(obj.get("apiVersion", "")).rpartition("/")[2]
    info = kind.versions.get(version)
    if info is None:
        raise errors.internal(f"request to convert CR from an invalid group/version: {obj.get('apiVersion')}")
    prune(info, obj)
    if info.schema is not None:
        apply_defaults(info.schema, obj)


async def _convert(call: Call, kind: CustomKind, objects: list[Object], info: ResourceInfo) -> list[Object]:
    if not objects:
        return []
    if kind.by_webhook:
        made = await convert(call.server, call.cluster, kind, objects, info.api_version)
    else:
        made = [{**obj, "apiVersion": info.api_version} for obj in objects]
    for obj in made:
        prune(info, obj)
    return made
