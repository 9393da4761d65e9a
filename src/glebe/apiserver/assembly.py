"""Puts admission plugins and filters into a server, in upstream's order, whoever they come from.

Each owner has one function ``contribute(assembly)`` that hands over what he has under the names of :data:`PLUGINS` and
:data:`FILTERS`; the order in which owners speak does not matter. Everything that is handed over must be small and
lazy: a server that nobody asks anything starts at once.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, TypeAlias

from glebe.apiserver.admission import builtin, registered
from glebe.apiserver.admission.base import AdmissionPlugin, ValidatingPlugin
from glebe.apiserver.audit import filter as audit
from glebe.apiserver.auth import csradmission
from glebe.apiserver.dialing import DialRules
from glebe.apiserver.fairness import gate as fairness
from glebe.apiserver.fairness.options import FairnessOptions
from glebe.apiserver.flight import Filter
from glebe.apiserver.metrics import serving as metrics

if TYPE_CHECKING:
    from glebe.apiserver.audit.options import AuditOptions
    from glebe.apiserver.server import ApiServer

PLUGINS = (
    "NamespaceExists",
    "LimitRanger",
    "ServiceAccount",
    "NodeRestriction",
    "TaintNodesByCondition",
    "AlwaysPullImages",
    "PodSecurity",
    "PodNodeSelector",
    "Priority",
    "DefaultTolerationSeconds",
    "ExtendedResourceToleration",
    "DefaultStorageClass",
    "StorageObjectInUseProtection",
    "OwnerReferencesPermissionEnforcement",
    "PersistentVolumeClaimResize",
    "RuntimeClass",
    "CertificateApproval",
    "CertificateSigning",
    "ClusterTrustBundleAttest",
    "CertificateSubjectRestriction",
    "DefaultIngressClass",
    "DenyServiceExternalIPs",
    "PodTopologyLabels",
    "PodResizeValidator",
    "Given",
    "MutatingAdmissionPolicy",
    "MutatingAdmissionWebhook",
    "ValidatingAdmissionPolicy",
    "ValidatingAdmissionWebhook",
    "ResourceQuota",
)
"""Every plugin there is, in the order in which upstream asks them (``AllOrderedPlugins``). ``Given`` is what the server
was constructed with (the platform's queue). :data:`ALWAYS_ON` is part of the verbs and cannot be turned off."""

DEFAULT_OFF = frozenset(
    {
        "NamespaceExists",
        "AlwaysPullImages",
        "ExtendedResourceToleration",
        "OwnerReferencesPermissionEnforcement",
        "DenyServiceExternalIPs",
    }
)
"""Off unless asked for. Upstream also leaves NodeRestriction and PodNodeSelector off; here they are on, since neither
does anything unless somebody uses what it guards (node identities, the annotation of namespaces)."""

ALWAYS_ON = "NamespaceLifecycle"

TOLERATION_SECONDS = 15
"""How long a pod stays on a dead node unless it says otherwise. Upstream: 300. A node is taken for dead 40 s after its
last heartbeat; together its pods are evicted within 60 s."""

FILTERS = ("metrics", "audit", "fairness")
"""Around authorization, outermost first."""
INNER_FILTERS = ("aggregation",)
"""Between authorization and the server's own answer."""


@dataclass(frozen=True, slots=True)
class ServerOptions:
    """What may be chosen about a server.

    ``enable`` and ``disable`` name admission plugins (:data:`PLUGINS`), as upstream's ``--enable-admission-plugins``
    and ``--disable-admission-plugins`` do. ``not_ready_seconds`` and ``unreachable_seconds`` are how long a pod stays
    on such a node unless it says otherwise. ``pod_security`` is what namespaces without labels of their own get, and
    who is exempt.
    """

    enable: frozenset[str] = frozenset()
    disable: frozenset[str] = frozenset()
    not_ready_seconds: int = TOLERATION_SECONDS
    unreachable_seconds: int = TOLERATION_SECONDS
    pod_security: Mapping[str, Any] = field(default_factory=dict)
    """``defaults`` (mode or mode-version to level or version) and ``exemptions`` (usernames, namespaces,
    runtimeClasses) of upstream's PodSecurityConfiguration."""

    dial: DialRules = field(default_factory=DialRules)
    """Where webhooks and aggregated APIs of logical clusters other than ``root`` may be."""

    audit: AuditOptions | None = None
    """``None``: nothing is written down."""

    fairness: FairnessOptions = field(default_factory=FairnessOptions)

    def __post_init__(self) -> None:
        unknown = sorted((self.enable | self.disable).difference(PLUGINS))
        if unknown:
            raise ValueError(f"unknown admission plugins: {', '.join(unknown)}")
        both = sorted(self.enable & self.disable)
        if both:
            raise ValueError(f"admission plugins both on and off: {', '.join(both)}")

    def is_on(self, plugin: str) -> bool:
        return plugin in self.enable or (plugin not in self.disable and plugin not in DEFAULT_OFF)


class Assembly:
    """What the owners hand over for one server."""

    def __init__(self, server: ApiServer, options: ServerOptions) -> None:
        self.server = server
        self.options = options
        self.mutating: dict[str, tuple[AdmissionPlugin, ...]] = {}
        self.judging: dict[str, tuple[ValidatingPlugin, ...]] = {}
        self.always: tuple[ValidatingPlugin, ...] = ()
        """Judge first; no plugins of upstream's list, they cannot be turned off."""
        self.around: dict[str, Filter] = {}

    def plugin(self, name: str, plugin: object) -> None:
        """Take a plugin that has ``admit``, ``validate`` or both. Dropped when ``name`` is turned off.

        :raises ValueError: no such place in the order.
        """
        if name not in PLUGINS:
            raise ValueError(f"admission plugin {name} has no place in the order")
        if not self.options.is_on(name):
            return
        if hasattr(plugin, "admit"):
            self.mutating[name] = (*self.mutating.get(name, ()), plugin)
        if hasattr(plugin, "validate"):
            self.judging[name] = (*self.judging.get(name, ()), plugin)

    def filter(self, name: str, passing: Filter) -> None:
        """Take a filter for one of the places in :data:`FILTERS` and :data:`INNER_FILTERS`."""
        if name not in FILTERS and name not in INNER_FILTERS:
            raise ValueError(f"filter {name} has no place in the order")
        self.around[name] = passing


Contribute: TypeAlias = Callable[[Assembly], None]

CONTRIBUTORS: tuple[Contribute, ...] = (
    builtin.contribute,
    csradmission.contribute,
    audit.contribute,
    registered.contribute,
    fairness.contribute,
    metrics.contribute,
)
"""One function per owner; it must not import anything big."""


def complete(server: ApiServer, options: ServerOptions | None = None) -> None:
    """Give ``server`` its admission plugins and filters.

    Servers are born complete with the default options; call this to choose others. Plugins and filters that somebody
    appended himself stay, behind ours.
    """
    made = Assembly(server, options or ServerOptions())
    for plugin in server.given_admission:
        made.plugin("Given", plugin)
    for contribute in CONTRIBUTORS:
        contribute(made)
    old = server.assembled
    ours = {id(p) for p in (*old, *server.given_admission)}
    mutating = tuple(p for name in PLUGINS for p in made.mutating.get(name, ()))
    judging = (*made.always, *(p for name in PLUGINS for p in made.judging.get(name, ())))
    around = tuple(made.around[name] for name in FILTERS if name in made.around)
    inner = tuple(made.around[name] for name in INNER_FILTERS if name in made.around)
    server.admission = (*mutating, *(p for p in server.admission if id(p) not in ours))
    server.validating = (*judging, *(p for p in server.validating if id(p) not in ours))
    server.filters = (*around, *(f for f in server.filters if id(f) not in ours))
    server.inner_filters = (*inner, *(f for f in server.inner_filters if id(f) not in ours))
    server.assembled = (*mutating, *judging, *around, *inner)
