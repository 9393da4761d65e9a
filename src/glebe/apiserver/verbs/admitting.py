"""Asking the admission plugins: those that change the object, then those that only judge it."""

from __future__ import annotations

from time import perf_counter
from typing import TypeAlias

from glebe.apiserver.admission.base import AdmissionAttributes, AdmissionPlugin, ValidatingPlugin
from glebe.apiserver.request.call import Call
from glebe.kube.objects import Object

_Mutating: TypeAlias = tuple[AdmissionPlugin, ...]
_Validating: TypeAlias = tuple[ValidatingPlugin, ...]
Concerned: TypeAlias = tuple[_Mutating, _Validating, _Mutating, _Validating]
"""The plugins that want to be asked about a resource, and all plugins of the time when that was worked out."""

_KNOWN = 2000
"""Resources whose plugins are remembered: tenants may make up any number of kinds."""


async def mutate(call: Call, operation: str, obj: Object | None, old: Object | None) -> None:
    """Let the plugins change ``obj`` in place; what they were told is kept for :func:`judge`."""
    settle(call, False)  # an attempt before this one lost its race
    call.admission = a = _attributes(call, operation, obj, old)
    plugins = _concerned(call)[0]
    began = perf_counter()
    for plugin in plugins:
        await plugin.admit(a)
    if (metrics := call.server.metrics) is not None:
        metrics.admit.observe(perf_counter() - began)
    if a.reinvocation is not None and a.reinvocation.wanted:
        a.reinvocation.round = 1
        for plugin in plugins:
            await plugin.admit(a)


async def connect(call: Call, options: Object) -> None:
    """Ask all plugins about a connection (exec, attach, port-forward, proxy); ``options`` is e.g. a PodExecOptions.

    :raises ApiError: somebody refuses.
    """
    await mutate(call, "CONNECT", options, None)
    await judge(call)


def _attributes(call: Call, operation: str, obj: Object | None, old: Object | None) -> AdmissionAttributes:
    name = call.route.name
    for known in (obj, old):
        if not name and known is not None:
            name = (known.get("metadata") or {}).get("name") or ""
    return AdmissionAttributes(
        operation,
        call.cluster,
        call.info,
        call.route.subresource,
        call.route.namespace,
        name,
        obj,
        old,
        call.user,
        call.dry_run,
        call.warn,
        annotate=call.annotate,
        request=call.request,
    )


async def judge(call: Call) -> None:
    """Let the validating plugins refuse what :func:`mutate` and validation have left."""
    a = call.admission
    plugins = _concerned(call)[1]
    if a is None or not plugins:
        return
    a.name = a.name or ((a.obj.get("metadata") or {}).get("name") or "" if a.obj is not None else "")
    began = perf_counter()
    for plugin in plugins:
        await plugin.validate(a)
    if (metrics := call.server.metrics) is not None:
        metrics.validate.observe(perf_counter() - began)


def _concerned(call: Call) -> Concerned:
    """The plugins that want to be asked about the call's resource; worked out once per resource."""
    server, resource = call.server, call.info.group_resource
    known = server.concerned.get(resource)
    if known is None or known[2] is not server.admission or known[3] is not server.validating:
        if len(server.concerned) >= _KNOWN:
            server.concerned.clear()
        admission, validating = server.admission, server.validating
        mutating = tuple(p for p in admission if resource in (getattr(p, "resources", None) or (resource,)))
        judging = tuple(p for p in validating if resource in (getattr(p, "resources", None) or (resource,)))
        known = server.concerned[resource] = (mutating, judging, admission, validating)
    return known


def settle(call: Call, stored: bool) -> None:
    """Tell those who took something for this write whether it was stored."""
    a = call.admission
    if a is None:
        return
    call.admission = None
    for tell in a.afterwards:
        tell(stored)
