"""Asking the admission plugins: those that change the object, then those that only judge it."""

from __future__ import annotations

from glebe.apiserver.admission.base import AdmissionAttributes
from glebe.apiserver.request.call import Call
from glebe.kube.objects import Object


async def mutate(call: Call, operation: str, obj: Object | None, old: Object | None) -> None:
    """Let the plugins change ``obj`` in place; what they were told is kept for :func:`judge`."""
    name = obj["metadata"].get("name", "") if obj is not None else call.route.name
    a = AdmissionAttributes(
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
    )
    settle(call, False)  # an attempt before this one lost its race
    call.admission = a
    for plugin in call.server.admission:
        await plugin.admit(a)


async def judge(call: Call) -> None:
    """Let the validating plugins refuse what :func:`mutate` and validation have left."""
    a = call.admission
    if a is None or not call.server.validating:
        return
    a.name = a.name or (a.obj["metadata"].get("name", "") if a.obj is not None else "")
    for plugin in call.server.validating:
        await plugin.validate(a)


def settle(call: Call, stored: bool) -> None:
    """Tell those who took something for this write whether it was stored."""
    a = call.admission
    if a is None:
        return
    call.admission = None
    for tell in a.afterwards:
        tell(stored)
