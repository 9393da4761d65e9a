"""Server-side apply, and the bookkeeping of who owns which field (``metadata.managedFields``)."""

from __future__ import annotations

import copy
from typing import Any

from glebe.apiserver.types import fieldsets as fs
from glebe.apiserver.types.completion import blank
from glebe.apiserver.types.merging import merge, take_back
from glebe.apiserver.types.registry import ResourceInfo
from glebe.apiserver.types.schema import Schema
from glebe.kube.errors import ApiError, bad_request
from glebe.kube.objects import Object

Entry = dict[str, Any]

#: How many managers that update (not apply) are told apart; older ones are joined.
_MAX_UPDATERS = 10
_OLD_UPDATERS = "ancient-changes"


def update_managed_fields(
    info: ResourceInfo,
    live: Object | None,
    new: Object,
    manager: str,
    operation: str = "Update",
    now: str = "",
    subresource: str = "",
) -> None:
    """Record in ``new`` (in place) what ``manager`` changed against ``live`` (None: it was created).

    Changed fields become the manager's and nobody else's; removed ones are nobody's.
    """
    schema = info.schema
    if schema is None:
        return
    base = _base_entries(live, new)
    changed, removed = fs.changes(schema, live or blank(info), new)
    if not subresource and info.has_status and not info.is_custom:
        changed.pop("f:status", None)  # the main resource does not write it
    if not changed and not removed:
        _set_entries(new, base)
        return
    me = _identity(manager, operation, info.api_version, subresource)
    entries: list[Entry] = []
    mine: Entry | None = None
    for entry in base:
        owned = entry.get("fieldsV1") or {}
        rest = fs.without(owned, removed) if removed else owned
        if identity_of(entry) == me:
            mine, total = entry, fs.union(rest, changed)
            if total:
                entries.append(entry if total == owned else {**entry, "time": now, "fieldsV1": _ordered(total)})
            continue
        rest = fs.difference(rest, changed) if changed else rest
        if rest:
            entries.append(entry if rest == owned else {**entry, "fieldsV1": _ordered(rest)})
    if mine is None and changed:
        entries.append(_entry(manager, operation, info.api_version, subresource, now, changed))
    _set_entries(new, _capped(_sorted(entries), info.api_version, now))


def server_side_apply(
    info: ResourceInfo,
    live: Object | None,
    applied: Object,
    manager: str,
    force: bool,
    now: str,
    subresource: str = "",
) -> Object:
    """The object that results when ``manager`` applies ``applied`` to ``live``; both stay as they are.

    The result still needs defaulting and validation. When nothing changes it equals ``live``, managed fields included.

    :raises ApiError: 409 with one cause per field that another manager owns with another value, unless ``force``;
        400 when lists lack their keys or managed fields are given.
    """
    schema = info.schema
    if applied.get("metadata", {}).get("managedFields"):
        raise bad_request("metadata.managedFields must be nil")
    wanted = _own_part(info, applied, subresource)
    if schema is None:
        return {**(live or {}), **wanted}
    try:
        owned = _owned_set(schema, wanted)
        me = _identity(manager, "Apply", info.api_version, subresource)
        if live is None:
            result: Object = copy.deepcopy(wanted)
            _set_entries(result, [_entry(manager, "Apply", info.api_version, subresource, now, owned)] if owned else [])
            return result
        return _apply_to(info, schema, live, wanted, owned, me, force, now)
    except fs.ListKeyError as error:
        raise bad_request(f"failed to create typed patch object ({_where(applied)}): {error}") from None


def _apply_to(
    info: ResourceInfo,
    schema: Schema,
    live: Object,
    wanted: Object,
    owned: fs.FieldSet,
    me: tuple[str, str, str, str],
    force: bool,
    now: str,
) -> Object:
    base = list((live.get("metadata") or {}).get("managedFields") or ())
    mine = next((e for e in base if identity_of(e)[:2] == me[:2] and identity_of(e)[3] == me[3]), None)
    others = [e for e in base if e is not mine]
    # 1. merge, then take back what this manager applied before and does not any more
    merged = merge(schema, live, wanted)
    before = (mine or {}).get("fieldsV1") or {}
    dropped = fs.difference(before, owned)
    if dropped:
        kept: fs.FieldSet = owned
        for entry in others:
            kept = fs.union(kept, entry.get("fieldsV1") or {})
        merged = take_back(schema, merged, dropped, kept) or {}
    # 2. who else owns what changes?
    changed, removed = fs.changes(schema, live, merged)
    entries, conflicts = _settle(others, changed, removed)
    if conflicts and not force:
        raise _conflict(conflicts)
    # 3. nothing new: the object stays as it is
    if not changed and not removed and owned == before:
        return live
    if owned:
        entries.append(_entry(me[0], "Apply", info.api_version, me[3], now, owned))
    result: Object = copy.deepcopy(merged)
    for name in ("apiVersion", "kind"):
        result[name] = wanted.get(name, live.get(name))
    _set_entries(result, _sorted(entries))
    return result


def _settle(
    others: list[Entry], changed: fs.FieldSet, removed: fs.FieldSet
) -> tuple[list[Entry], list[tuple[Entry, list[str]]]]:
    """The other managers' entries after the change, and the fields that they would lose."""
    entries: list[Entry] = []
    conflicts: list[tuple[Entry, list[str]]] = []
    for entry in others:
        fields = entry.get("fieldsV1") or {}
        lost = fs.intersection(fields, changed)
        if lost:
            conflicts.append((entry, list(fs.paths(lost))))
        rest = fs.difference(fields, lost) if lost else fields
        rest = fs.without(rest, removed) if removed else rest
        if rest:
            entries.append(entry if rest == fields else {**entry, "fieldsV1": _ordered(rest)})
    return entries, conflicts


def _own_part(info: ResourceInfo, applied: Object, subresource: str) -> Object:
    """What an apply to this endpoint may say: not the status, or nothing but the status."""
    out: Object = _without_nulls(applied)
    meta = {k: v for k, v in (out.get("metadata") or {}).items() if k not in ("managedFields", "resourceVersion")}
    out["metadata"] = meta
    if subresource == "status":
        kept = ("apiVersion", "kind", "status")
        identity = {k: meta[k] for k in ("name", "namespace", "uid") if k in meta}
        return {**{k: out[k] for k in kept if k in out}, "metadata": identity}
    if info.has_status:
        out.pop("status", None)
    return out


def _without_nulls(value: Any) -> Any:
    if type(value) is dict:
        return {k: _without_nulls(v) for k, v in value.items() if v is not None}
    if type(value) is list:
        return [_without_nulls(v) for v in value]
    return value


def _owned_set(schema: Schema, wanted: Object) -> fs.FieldSet:
    body = {k: v for k, v in wanted.items() if k not in ("apiVersion", "kind", "metadata")}
    meta = {k: v for k, v in wanted["metadata"].items() if k not in fs.UNOWNED_METADATA}
    if meta:
        body["metadata"] = meta
    return fs.applied_set(schema, body)


# ----------------------------------------------------------------------------------------------------------- entries


def _identity(manager: str, operation: str, version: str, subresource: str) -> tuple[str, str, str, str]:
    return (manager, operation, version, subresource)


def identity_of(entry: Entry) -> tuple[str, str, str, str]:
    """(manager, operation, API version, subresource): what tells the entries of ``managedFields`` apart."""
    return _identity(
        entry.get("manager", ""), entry.get("operation", ""), entry.get("apiVersion", ""), entry.get("subresource", "")
    )


def _entry(manager: str, operation: str, version: str, subresource: str, now: str, fields: fs.FieldSet) -> Entry:
    out: Entry = {
        "manager": manager,
        "operation": operation,
        "apiVersion": version,
        "time": now,
        "fieldsType": "FieldsV1",
        "fieldsV1": _ordered(fields),
    }
    if subresource:
        out["subresource"] = subresource
    return out


def _ordered(fields: fs.FieldSet) -> fs.FieldSet:
    """As upstream writes sets: clients compare bytes."""
    return {key: _ordered(value) if value else value for key, value in sorted(fields.items())}


def _base_entries(live: Object | None, new: Object) -> list[Entry]:
    """What the bookkeeping starts from: the new object's own entries, which a client may edit or reset ([{}])."""
    given = new["metadata"].get("managedFields")
    if given:
        entries = [e for e in given if isinstance(e, dict) and e.get("operation") in ("Apply", "Update")]
        return entries if entries or given == [{}] else []
    return list((live["metadata"].get("managedFields") if live is not None else None) or ())


def _set_entries(obj: Object, entries: list[Entry]) -> None:
    if entries:
        obj["metadata"]["managedFields"] = entries
    else:
        obj["metadata"].pop("managedFields", None)


def _sorted(entries: list[Entry]) -> list[Entry]:
    """Applied first, then by time and name, as upstream lists them."""
    return sorted(
        entries,
        key=lambda e: (e.get("operation", ""), e.get("time", ""), e.get("manager", ""), e.get("subresource", "")),
    )


def _capped(entries: list[Entry], version: str, now: str) -> list[Entry]:
    """Join the oldest updaters when there are too many."""
    updaters = [e for e in entries if e.get("operation") == "Update"]
    surplus = len(updaters) - _MAX_UPDATERS
    if surplus <= 0:
        return entries
    old = updaters[: surplus + 1]
    joined: fs.FieldSet = {}
    for entry in old:
        joined = fs.union(joined, entry.get("fieldsV1") or {})
    rest = [e for e in entries if not any(e is o for o in old)]
    return _sorted([*rest, _entry(_OLD_UPDATERS, "Update", version, "", old[-1].get("time", now), joined)])


# --------------------------------------------------------------------------------------------------------- conflicts


def _manager_text(entry: Entry) -> str:
    text = f'"{entry.get("manager", "")}"'
    if sub := entry.get("subresource"):
        text += f' with subresource "{sub}"'
    if entry.get("operation") == "Update":
        text += f" using {entry.get('apiVersion', '')}"
    return text


def _conflict(conflicts: list[tuple[Entry, list[str]]]) -> ApiError:
    conflicts = sorted(conflicts, key=lambda item: _manager_text(item[0]))
    total = sum(len(fields) for _, fields in conflicts)
    parts = []
    causes = []
    for entry, fields in conflicts:
        who = _manager_text(entry)
        if len(fields) == 1:
            parts.append(f"conflict with {who}: {fields[0]}")
        else:
            parts.append(f"conflicts with {who}:\n" + "\n".join(f"- {f}" for f in fields))
        causes += [{"reason": "FieldManagerConflict", "message": f"conflict with {who}", "field": f} for f in fields]
    plural = "s" if total != 1 else ""
    message = f"Apply failed with {total} conflict{plural}: " + "\n".join(parts)
    return ApiError(409, "Conflict", message, details={"causes": causes})


def _where(obj: Object) -> str:
    meta = obj.get("metadata") or {}
    return f"{meta.get('namespace', '')}/{meta.get('name', '')}; {obj.get('apiVersion')}, Kind={obj.get('kind')}"
