"""Type checking of ValidatingAdmissionPolicies against the schemas of what they match, and the status that tells.

Policies are accepted without it: their expressions see objects whose type is not known. What the schemas say about
them is written to ``status.typeChecking`` a moment after each change, as upstream's controller does.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Iterator, Mapping
from typing import TYPE_CHECKING, Any

import orjson

from glebe.apiserver.admission.registrations import GROUP, VALIDATING_POLICIES
from glebe.kube.transport import PLATFORM, Request

if TYPE_CHECKING:
    from glebe.apiserver.request.call import Call
    from glebe.apiserver.server import ApiServer
    from glebe.apiserver.store import Entry
    from glebe.apiserver.types.registry import ResourceInfo
    from glebe.cel.types import Type
    from glebe.kube.objects import Object

log = logging.getLogger("glebe.apiserver")

#: Kinds that one policy is checked against at most.
_MOST = 10
_FOLLOWER = "settle_policy_status"


def follow(server: ApiServer) -> None:
    """Keep the status of policies up to date from now on."""
    if any(getattr(follower, "__name__", "") == _FOLLOWER for follower in server.followers):
        return  # a server may be completed twice
    tasks: set[asyncio.Task[None]] = set()

    def settle_policy_status(call: Call, entry: Entry | None, previous: Entry | None) -> None:
        if entry is None or call.info.group_resource != VALIDATING_POLICIES:
            return
        obj = entry.view()
        if (obj.get("status") or {}).get("observedGeneration") == obj["metadata"].get("generation"):
            return
        task = asyncio.ensure_future(_settle(server, call.cluster, obj))
        tasks.add(task)
        task.add_done_callback(tasks.discard)

    def close() -> None:
        for task in list(tasks):
            task.cancel()

    server.followers = (*server.followers, settle_policy_status)
    server.on_close = (*server.on_close, close)


async def _settle(server: ApiServer, cluster: str, obj: Object) -> None:
    """Write the status, unless the policy has changed or gone meanwhile."""
    meta = obj["metadata"]
    warnings = [{"fieldRef": path, "warning": text} for path, text in check(server, cluster, obj.get("spec") or {})]
    checking = {"expressionWarnings": warnings} if warnings else {}
    status = {"observedGeneration": meta.get("generation"), "typeChecking": checking}
    body = [
        {"op": "test", "path": "/metadata/uid", "value": meta["uid"]},
        {"op": "test", "path": "/metadata/generation", "value": meta.get("generation")},
        {"op": "add", "path": "/status", "value": status},
    ]
    path = f"/apis/{GROUP}/v1/validatingadmissionpolicies/{meta['name']}/status"
    request = Request(
        "PATCH",
        path if cluster == "root" else f"/clusters/{cluster}{path}",
        [("fieldManager", "validatingadmissionpolicy-status-controller")],
        {"content-type": "application/json-patch+json"},
        orjson.dumps(body),
        PLATFORM,
    )
    response = await server.handle(request)
    if response.status not in (200, 404, 409, 422):
        log.warning("status of policy %s: %s", meta["name"], response.body[:500].decode("utf-8", "replace"))


def check(server: ApiServer, cluster: str, spec: Mapping[str, Any]) -> Iterator[tuple[str, str]]:
    """(field, what is wrong with its expression), one line per kind that the expression does not fit."""
    found: dict[str, list[str]] = {}
    for info in _kinds(server, cluster, spec.get("matchConstraints") or {}):
        kind = f"{info.api_version}, Kind={info.kind}"
        for path, issues in _against(server, cluster, spec, info):
            found.setdefault(path, []).append(f"{kind}: {issues}")
    for path in sorted(found):
        yield path, "\n".join(found[path])


def _kinds(server: ApiServer, cluster: str, constraints: Mapping[str, Any]) -> list[ResourceInfo]:
    """What the rules name without wildcards."""
    found: dict[tuple[str, str], ResourceInfo] = {}
    for rule in constraints.get("resourceRules") or ():
        for group in rule.get("apiGroups") or ():
            for version in rule.get("apiVersions") or ():
                for resource in rule.get("resources") or ():
                    info = server.registry.lookup(cluster, group, version, resource)
                    if info is not None and len(found) < _MOST:
                        found[(info.api_version, info.kind)] = info
    return [found[key] for key in sorted(found)]


def _against(server: ApiServer, cluster: str, spec: Mapping[str, Any], info: ResourceInfo) -> Iterator[tuple[str, str]]:
    from glebe.apiserver.admission.binding import param_info
    from glebe.apiserver.admission.expressions import Expressions
    from glebe.cel import types as t
    from glebe.cel.environment import CompileError

    kind = spec.get("paramKind")
    params = param_info(server, cluster, kind) if kind else None
    expressions = Expressions(
        params=kind is not None, typed=_type(info), param=_type(params) if params is not None else t.DYN
    )
    for variable in spec.get("variables") or ():
        expressions.add_variable(variable.get("name", ""), variable.get("expression", ""))
    environment = expressions.environment()
    for index, validation in enumerate(spec.get("validations") or ()):
        for field in ("expression", "messageExpression"):
            text = validation.get(field)
            if not text:
                continue
            try:
                environment.compile(text)
            except CompileError as error:
                yield f"spec.validations[{index}].{field}", str(error)


def _type(info: ResourceInfo) -> Type:
    from glebe.apiserver.types.schematypes import type_of
    from glebe.cel import types as t

    if info.schema is None:
        return t.DYN
    return type_of(info.schema, f"{info.kind}") or t.DYN
