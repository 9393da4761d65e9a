"""Which names a custom kind gets: two definitions of a group may not claim the same, and the first keeps it.

After every write of a definition its ``NamesAccepted`` and ``Established`` conditions are worked out, as upstream's
naming, establishing and approval controllers do; a definition is served from then on. When names become free, the
other definitions of the group are asked again.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import replace
from typing import TYPE_CHECKING, Any

import orjson

from glebe.apiserver.request.call import Call
from glebe.apiserver.store import Key, Mismatch
from glebe.apiserver.types.definitionfacts import approval_state, has_condition, is_protected
from glebe.kube.objects import Object, set_condition

if TYPE_CHECKING:
    from glebe.apiserver.server import ApiServer

DEFINITIONS = "customresourcedefinitions.apiextensions.k8s.io"
#: name in spec.names -> reason of the condition when somebody else has it; kinds are told apart from resources
_SINGLE = (
    ("plural", "PluralConflict", "resources"),
    ("singular", "SingularConflict", "resources"),
    ("shortNames", "ShortNamesConflict", "resources"),
    ("kind", "KindConflict", "kinds"),
    ("listKind", "ListKindConflict", "kinds"),
)


async def settle(call: Call) -> None:
    """Work out the names of the definition that was written, and of those that waited for names it gave up."""
    server, cluster, name = call.server, call.cluster, call.route.name
    done: set[str] = set()
    if name:
        entry = server.store.get(Key(DEFINITIONS, cluster, "", name))
        group = name.partition(".")[2]
        if entry is not None and not await _settle_one(call, name):
            return
        done.add(name)
    else:  # a collection was deleted, or an object was created under a name that only its body says
        group = ""
    for entry in server.store.range(DEFINITIONS, cluster).entries:
        obj = entry.view()
        other = obj["metadata"]["name"]
        if other not in done and (not group or obj["spec"]["group"] == group) and not is_settled(obj):
            await _settle_one(call, other)


def is_settled(obj: Object) -> bool:
    """Has the definition the names that it asks for?"""
    status = obj.get("status") or {}
    return (
        status.get("acceptedNames") == obj["spec"]["names"]
        and has_condition(obj, "NamesAccepted")
        and has_condition(obj, "Established")
    )


async def _settle_one(call: Call, name: str) -> bool:
    """Write the definition's status if it changes; True when that may have freed names for others."""
    server = call.server
    key = Key(DEFINITIONS, call.cluster, "", name)
    while (entry := server.store.get(key)) is not None:
        obj = entry.load()
        before = dict((obj.get("status") or {}).get("acceptedNames") or {})
        work_out(obj, _others(server, call.cluster, obj), server.now_text())
        if obj == entry.view():
            return False
        try:
            done = await server.store.put(key, _stamped(obj), entry.revision)
        except Mismatch:
            continue
        call.server.written(call_on(call, name), done, entry)
        return bool(before) and before != obj["status"]["acceptedNames"]
    return True  # it is gone, and its names with it


def call_on(call: Call, name: str) -> Call:
    """The same caller's call on the definition ``name``: for writes that are no request's own."""
    info = call.server.registry.lookup(call.cluster, "apiextensions.k8s.io", "v1", "customresourcedefinitions")
    assert info is not None
    route = replace(
        call.route,
        group=info.group,
        version=info.version,
        resource=info.plural,
        namespace="",
        name=name,
        subresource="",
    )
    return Call(call.server, call.request, route, info, call.user)


def _stamped(obj: Object) -> Any:
    def make(revision: int) -> bytes:
        obj["metadata"]["resourceVersion"] = str(revision)
        return orjson.dumps(obj)

    return make


def _others(server: ApiServer, cluster: str, obj: Object) -> Iterable[Object]:
    own, group = obj["metadata"]["name"], obj["spec"]["group"]
    for entry in server.store.range(DEFINITIONS, cluster).entries:
        other = entry.view()
        if other["spec"]["group"] == group and other["metadata"]["name"] != own:
            yield other


def work_out(crd: Object, others: Iterable[Object], now: str) -> None:
    """Set ``status.acceptedNames`` and the conditions of ``crd``, given the other definitions of its group."""
    status = crd.setdefault("status", {})
    conditions = list(status.get("conditions") or ())
    conditions = _approval(crd, conditions, now)
    spec_names, accepted = crd["spec"]["names"], dict(status.get("acceptedNames") or {})
    if spec_names != accepted or not has_condition(crd, "NamesAccepted"):
        taken = _taken(others)
        names, reason, message = _compare(spec_names, accepted, taken)
        status["acceptedNames"] = names
        good = reason == ""
        conditions = set_condition(
            conditions,
            "NamesAccepted",
            "True" if good else "False",
            reason or "NoConflicts",
            message or "no conflicts found",
            now,
        )
        if not good and not any(c.get("type") == "Established" for c in conditions):
            conditions = set_condition(
                conditions, "Established", "False", "NotAccepted", "not all names are accepted", now
            )
    if _is(conditions, "NamesAccepted") and not _is(conditions, "Established"):
        why = "the initial names have been accepted"
        conditions = set_condition(conditions, "Established", "True", "InitialNamesAccepted", why, now)
    if conditions:
        status["conditions"] = conditions


def _is(conditions: list[dict[str, Any]], kind: str) -> bool:
    return any(c.get("type") == kind and c.get("status") == "True" for c in conditions)


def _taken(others: Iterable[Object]) -> dict[str, set[str]]:
    taken: dict[str, set[str]] = {"resources": set(), "kinds": set()}
    for other in others:
        names = (other.get("status") or {}).get("acceptedNames") or {}
        taken["resources"].update(
            (names.get("plural", ""), names.get("singular", ""), *(names.get("shortNames") or ()))
        )
        taken["kinds"].update((names.get("kind", ""), names.get("listKind", "")))
    return {key: values - {""} for key, values in taken.items()}


def _compare(
    asked: dict[str, Any], accepted: dict[str, Any], taken: dict[str, set[str]]
) -> tuple[dict[str, Any], str, str]:
    """(names to use, reason and message of the last conflict or "")."""
    names, reason, message = dict(accepted), "", ""
    for field, conflict, space in _SINGLE:
        wanted, held = asked.get(field), accepted.get(field)
        if wanted == held:
            continue
        if isinstance(wanted, list):
            clashes = [f'"{w}" is already in use' for w in wanted if w not in (held or ()) and w in taken[space]]
        else:
            clashes = [f'"{wanted}" is already in use'] if wanted in taken[space] else []
        if clashes:
            reason, message = conflict, clashes[0] if len(clashes) == 1 else f"[{', '.join(clashes)}]"
        elif wanted is None:
            names.pop(field, None)
        else:
            names[field] = wanted
    if asked.get("categories"):
        names["categories"] = asked["categories"]
    else:
        names.pop("categories", None)
    return names, reason, message


_APPROVALS = {
    "approved": ("True", "ApprovedAnnotation"),
    "bypassed": ("False", "UnapprovedAnnotation"),
    "missing": ("False", "MissingAnnotation"),
    "invalid": ("False", "InvalidAnnotation"),
}


def _approval(crd: Object, conditions: list[dict[str, Any]], now: str) -> list[dict[str, Any]]:
    if not is_protected(crd["spec"]["group"]):
        return conditions
    state, why = approval_state(crd["metadata"].get("annotations"))
    status, reason = _APPROVALS[state]
    return set_condition(conditions, "KubernetesAPIApprovalPolicyConformant", status, reason, why, now)
