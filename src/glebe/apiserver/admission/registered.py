"""The plugins for what users register: webhooks and policies. Until somebody registers one, nothing of it is loaded."""

from __future__ import annotations

import importlib
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from glebe.apiserver.admission import registrations as r
from glebe.apiserver.admission import typechecking
from glebe.apiserver.admission.base import AdmissionAttributes
from glebe.kube.objects import Object

if TYPE_CHECKING:
    from glebe.apiserver.assembly import Assembly
    from glebe.apiserver.server import ApiServer

_ROOM = "glebe.apiserver.admission"


class _Registered:
    """:param implementation: ``module.Class`` in this room; it has ``read`` and ``admit`` or ``validate``."""

    def __init__(self, server: ApiServer, resources: Sequence[str], implementation: str) -> None:
        self._server = server
        self._implementation = implementation
        self._real: Any = None
        self._known: r.Registrations[Any] = r.Registrations(server, resources, self._read)
        self._held = self._known.known

    def _read(self, stored: dict[str, list[Object]]) -> tuple[Any, ...]:
        if self._real is None:
            module, _, name = self._implementation.partition(".")
            self._real = getattr(importlib.import_module(f"{_ROOM}.{module}"), name)(self._server)
        found: tuple[Any, ...] = self._real.read(stored)
        return found


class Mutating(_Registered):
    async def admit(self, a: AdmissionAttributes) -> None:
        known = self._held.get(a.cluster)
        if known is None:
            known = self._known.of(a.cluster)
        if known and a.info.group_resource not in r.EXEMPT:
            await self._real.admit(a, known)


class Validating(_Registered):
    async def validate(self, a: AdmissionAttributes) -> None:
        known = self._held.get(a.cluster)
        if known is None:
            known = self._known.of(a.cluster)
        if known and a.info.group_resource not in r.EXEMPT:
            await self._real.validate(a, known)


def contribute(assembly: Assembly) -> None:
    """Hand over the plugins."""
    server = assembly.server
    server.dialer.rules = assembly.options.dial
    plugins = (
        ("MutatingAdmissionPolicy", Mutating, (r.MUTATING_POLICIES, r.MUTATING_BINDINGS), "mutations.MutatingPolicies"),
        ("MutatingAdmissionWebhook", Mutating, (r.MUTATING_WEBHOOKS,), "webhooks.MutatingWebhooks"),
        (
            "ValidatingAdmissionPolicy",
            Validating,
            (r.VALIDATING_POLICIES, r.VALIDATING_BINDINGS),
            "policies.ValidatingPolicies",
        ),
        ("ValidatingAdmissionWebhook", Validating, (r.VALIDATING_WEBHOOKS,), "webhooks.ValidatingWebhooks"),
    )
    if assembly.options.is_on("ValidatingAdmissionPolicy"):
        typechecking.follow(server)
    for name, kind, resources, implementation in plugins:
        assembly.plugin(name, kind(server, resources, implementation))
