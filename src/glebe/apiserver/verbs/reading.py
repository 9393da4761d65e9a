"""get and list."""

from __future__ import annotations

import base64
from collections.abc import Callable, Sequence
from typing import Any, TypeVar, cast

import orjson

from glebe.apiserver.request import media, selection
from glebe.apiserver.request.call import (
    Call,
    partial,
    presented,
    respond,
    respond_entry,
    served,
    stored_version,
    table_of,
)
from glebe.apiserver.request.listbody import ListBody
from glebe.apiserver.sharing.pieces import pieces
from glebe.apiserver.store import EVERY_CLUSTER, Compacted, Entry, FutureRevision, Page
from glebe.kube.errors import ApiError, Cause, bad_request, gone, invalid
from glebe.kube.objects import Object
from glebe.kube.transport import Response

_T = TypeVar("_T")
_BREATHE = 50
_SHORT = 25
"""Lists of so many objects are made in one go."""
_EXPIRED = (
    "The provided continue parameter is too old to display a consistent list result. You can start a new list without "
    "the continue parameter, or use the continue token in this response to retrieve the remainder of the results. "
    "Continuing with the provided token results in an inconsistent list - objects that were created, modified, or "
    "deleted between the time the first chunk was returned and now may show up in the list."
)


async def get(call: Call) -> Response:
    entry = call.server.store.get(call.key())
    if entry is None:
        raise call.not_found()
    _not_older_than(call)
    if call.info.converts:
        entry = await presented(call, entry)
    return respond_entry(call, entry)


async def list_objects(call: Call) -> Response:
    chosen = selection.parse(call.request, call.info)
    limit = number(call, "limit")
    entries, revision, token, remaining = await find_shown(call, chosen, limit)
    meta: dict[str, Any] = {"resourceVersion": str(revision)}
    if token:
        meta["continue"] = token
        if remaining is not None:
            meta["remainingItemCount"] = remaining
    if call.wanted.media == media.PROTOBUF and not call.wanted.shape:
        return await _respond_protobuf(call, entries, meta)
    return await _respond_list(call, entries, meta)


async def find_shown(call: Call, chosen: selection.Selection, limit: int) -> tuple[list[Entry], int, str, int | None]:
    """:func:`find`, with the entries as the call's version shows them."""
    if not call.info.converts:
        return await find(call, chosen, limit)
    from glebe.apiserver.custom import versions  # late: most kinds need it never

    return await versions.find(call, chosen, limit)


async def find(call: Call, chosen: selection.Selection, limit: int) -> tuple[list[Entry], int, str, int | None]:
    """(entries, revision, continue token, remaining items or None when a filter makes that unknown)."""
    store, info = call.server.store, call.info
    namespace = call.route.namespace if info.namespaced else ""
    revision, after = start(call)
    if chosen.all and chosen.name == "":
        page = page_of(call, namespace, after, limit, revision)
        going_on = token(call, page.revision, page.next_key) if page.next_key else ""
        return page.entries, page.revision, going_on, page.remaining
    found: list[Entry] = []
    share = pieces()
    while True:
        page = page_of(call, namespace, after, max(limit, 500) if limit else 0, revision)
        pause = share.objects
        for position, entry in enumerate(page.entries):
            if position == pause:
                await share.turn(call.cluster)
                pause += share.objects
            if chosen.name and entry.view()["metadata"]["name"] != chosen.name:
                continue
            if not chosen.matches(entry):
                continue
            found.append(entry)
            if limit and len(found) == limit:
                meta = entry.view()["metadata"]
                last = (meta.get("namespace", ""), meta["name"])
                more = page.next_key is not None or entry is not page.entries[-1]
                return found, page.revision, token(call, page.revision, last) if more else "", None
        if page.next_key is None:
            return found, page.revision or store.revision, "", None
        after, revision = page.next_key, page.revision


def page_of(call: Call, namespace: str, after: tuple[str, ...] | None, limit: int, revision: int) -> Page:
    """A page of the call's collection.

    :raises ApiError: 410, 504: the revision is too old, or has not happened.
    """
    try:
        return call.server.store.range(
            call.info.stored_as, call.cluster, namespace, after=after, limit=limit, revision=revision
        )
    except Compacted as error:
        if after is None or not call.request.param("continue"):
            raise gone(str(error)) from None
        # The rest of the list as it is now is still to be had, by those who do not mind.
        raise ApiError(410, "Expired", _EXPIRED, continue_=token(call, 0, after)) from None
    except FutureRevision as error:
        raise too_large(error.asked, error.current) from None


def too_large(asked: int, current: int) -> ApiError:
    """The asked resourceVersion has not happened (yet)."""
    cause = {"reason": "ResourceVersionTooLarge", "message": "Too large resource version"}
    return ApiError(
        504,
        "Timeout",
        f"Timeout: Too large resource version: {asked}, current: {current}",
        details={"causes": [cause]},
        retry_after=1,
    )


def start(call: Call) -> tuple[int, tuple[str, ...] | None]:
    """(exact revision or 0 for now, key to start after), by the rules of resourceVersion and continue."""
    request = call.request
    given, version, match = (request.param(n) for n in ("continue", "resourceVersion", "resourceVersionMatch"))
    if given:
        if version and version != "0":
            raise bad_request("specifying resource version is not allowed when using continue")
        if match:
            raise _forbidden_match(call, "resourceVersionMatch is forbidden when continue is provided")
        return _read_token(call, given)
    if match and not version:
        raise _forbidden_match(call, "resourceVersionMatch is forbidden unless resourceVersion is provided")
    if match == "Exact":
        if version == "0":
            raise _forbidden_match(
                call, 'resourceVersionMatch "exact" is forbidden for resourceVersion "0"', "FieldValueForbidden"
            )
        return revision_of(version), None
    if match not in ("", "NotOlderThan"):
        cause = Cause(
            "FieldValueNotSupported",
            f'Unsupported value: "{match}": supported values: "Exact", "NotOlderThan", ""',
            "resourceVersionMatch",
        )
        raise invalid_options([cause])
    _not_older_than(call)
    # Upstream's legacy rule: a limit with a version and no match means exactly that version.
    if version not in ("", "0") and not match and number(call, "limit"):
        return revision_of(version), None
    return 0, None


def _forbidden_match(call: Call, why: str, reason: str = "FieldValueForbidden") -> ApiError:
    return invalid_options([Cause(reason, f"Forbidden: {why}", "resourceVersionMatch")])


def invalid_options(causes: list[Cause]) -> ApiError:
    """A list's or watch's parameters contradict each other."""
    return invalid("meta.k8s.io", "ListOptions", "", causes)


def _not_older_than(call: Call) -> None:
    asked, current = revision_of(call.request.param("resourceVersion")), call.server.store.revision
    if asked > current:
        raise too_large(asked, current)


def revision_of(text: str) -> int:
    """A resourceVersion parameter as a number; "" is 0."""
    if not text:
        return 0
    if not text.isascii() or not text.isdigit():
        why = f'Invalid value: "{text}": strconv.ParseUint: parsing "{text}": invalid syntax'
        raise bad_request(f"invalid resource version: resourceVersion: {why}")
    return int(text)


def number(call: Call, name: str) -> int:
    """A parameter that is a number; 0 when it is not given."""
    text = call.request.param(name)
    try:
        return max(0, int(text)) if text else 0
    except ValueError:
        raise bad_request(f'strconv.ParseInt: parsing "{text}": invalid syntax') from None


def _of_what(call: Call) -> str:
    """What a continue token is good for: this collection in this logical cluster, and no other."""
    return f"{call.cluster}/{call.info.stored_as}/{call.route.namespace}"


def token(call: Call, revision: int, last: tuple[str, ...]) -> str:
    """Where a list goes on."""
    content = {"v": "glebe/v1", "of": _of_what(call), "rv": revision, "after": last}
    return base64.urlsafe_b64encode(orjson.dumps(content)).decode().rstrip("=")


def _read_token(call: Call, text: str) -> tuple[int, tuple[str, ...]]:
    try:
        content = orjson.loads(base64.urlsafe_b64decode(text + "=" * (-len(text) % 4)))
        after = tuple(str(part) for part in content["after"])
        if content["of"] != _of_what(call) or len(after) != (3 if call.cluster == EVERY_CLUSTER else 2):
            raise ValueError
        return int(content["rv"]), after
    except (ValueError, KeyError, TypeError):
        raise bad_request(
            "invalid continue token: continue key is not valid: it must be the metadata.continue of an earlier list"
        ) from None


async def _respond_protobuf(call: Call, entries: list[Entry], meta: Object) -> Response:
    """A list in protobuf; big ones let others run in between."""
    from glebe.apiserver.protobuf import encode as protobuf  # late: many servers are never asked for it

    info, items = call.info, []
    for i, entry in enumerate(entries):
        if i % _BREATHE == _BREATHE - 1:
            await pieces().turn(call.cluster)
        items.append(protobuf.raw(served(info, entry.load())))
    body = protobuf.encode_list(info.api_version, info.list_kind, meta, items)
    return Response(200, {"content-type": media.PROTOBUF}, body)


async def _together(call: Call, parts: ListBody) -> bytes:
    """A long list's bytes, with others between its pieces."""
    body, share = bytearray(), pieces()
    for piece in parts.pieces(lambda: share.bytes):
        await share.turn(call.cluster)
        body += piece
    return cast(bytes, body)  # nobody can tell; another copy would cost as much as all of this


async def _in_pieces(call: Call, entries: list[Entry], make: Callable[[Entry], _T]) -> list[_T]:
    """``make`` of all entries; long lists let others run in between."""
    made: list[_T] = []
    share, start = pieces(), 0
    while start < len(entries):
        if start:
            await share.turn(call.cluster)
        end = start + share.objects
        made += map(make, entries[start:end])
        start = end
    return made


async def _respond_list(call: Call, entries: list[Entry], meta: Object) -> Response:
    info, wanted = call.info, call.wanted
    if wanted.shape == "" and wanted.media == media.JSON and not wanted.pretty:
        values: Sequence[Entry] | Sequence[bytes] = entries
        if not stored_version(info):
            values = await _in_pieces(call, entries, lambda e: orjson.dumps(served(info, e.load())))
        head = orjson.dumps({"kind": info.list_kind, "apiVersion": info.api_version, "metadata": meta})
        whole = ListBody(head, values)
        if len(values) <= _SHORT:
            return Response(200, {"content-type": media.JSON}, whole.whole())
        if call.request.piecewise:
            return Response(200, {"content-type": media.JSON}, parts=whole)
        return Response(200, {"content-type": media.JSON}, await _together(call, whole))
    items = await _in_pieces(call, entries, lambda e: served(info, e.load()))
    if wanted.shape == "Table" and len(items) > _SHORT:
        return await _respond_long_table(call, items, meta)
    if wanted.shape == "Table":
        return respond(table_of(call, items, meta), wanted)
    if wanted.shape:
        version = f"meta.k8s.io/{wanted.version}"
        parts = [partial(item, wanted.version) for item in items]
        return respond(
            {"kind": "PartialObjectMetadataList", "apiVersion": version, "metadata": meta, "items": parts}, wanted
        )
    return respond({"kind": info.list_kind, "apiVersion": info.api_version, "metadata": meta, "items": items}, wanted)


async def _respond_long_table(call: Call, items: list[Object], meta: Object) -> Response:
    """A table of many rows, with others between them."""
    share = pieces()
    start = share.objects
    table = table_of(call, items[:start], meta)
    while start < len(items):
        await share.turn(call.cluster)
        end = start + share.objects
        table["rows"] += table_of(call, items[start:end], meta)["rows"]
        start = end
    return respond(table, call.wanted)
