"""The admission plugins that come with every server."""

from __future__ import annotations

from typing import TYPE_CHECKING

from glebe.apiserver.admission.adminaccess import AdminAccess
from glebe.apiserver.admission.limits import LimitRanger
from glebe.apiserver.admission.noderestriction import NodeRestriction
from glebe.apiserver.admission.nodes import TaintNodesByCondition
from glebe.apiserver.admission.nodeselector import PodNodeSelector
from glebe.apiserver.admission.optional import (
    AlwaysPullImages,
    DenyServiceExternalIPs,
    NamespaceExists,
    PodResizeValidator,
    PodTopologyLabels,
)
from glebe.apiserver.admission.owners import OwnerReferencesPermissionEnforcement
from glebe.apiserver.admission.podsecurity.plugin import PodSecurity
from glebe.apiserver.admission.priority import Priority
from glebe.apiserver.admission.quota.plugin import ResourceQuota
from glebe.apiserver.admission.runtimeclass import RuntimeClass
from glebe.apiserver.admission.serviceaccount import ServiceAccount
from glebe.apiserver.admission.storage import (
    DefaultIngressClass,
    DefaultStorageClass,
    PersistentVolumeClaimResize,
    StorageObjectInUseProtection,
)
from glebe.apiserver.admission.tolerations import DefaultTolerationSeconds, ExtendedResourceToleration
from glebe.kube.inprocess import InProcessTransport
from glebe.kube.transport import User

if TYPE_CHECKING:
    from glebe.apiserver.admission.base import BuiltinPlugin
    from glebe.apiserver.assembly import Assembly


def contribute(assembly: Assembly) -> None:
    """Hand over the built-in plugins."""
    server, options = assembly.server, assembly.options
    read, read_all = server.read, server.read_all

    async def authorize(user: User, *what: str) -> tuple[bool, str]:
        authorizer = server.authorizer  # the one of that moment: it comes after the plugins
        return (True, "") if authorizer is None else await authorizer.authorize(user, *what)

    plugins: tuple[BuiltinPlugin, ...] = (
        LimitRanger(read_all),
        ServiceAccount(read, server.env),
        PodSecurity(read, read_all, options.pod_security),
        Priority(read, read_all),
        DefaultTolerationSeconds(options.not_ready_seconds, options.unreachable_seconds),
        ExtendedResourceToleration(),
        RuntimeClass(read),
        PodNodeSelector(read),
        TaintNodesByCondition(),
        DefaultStorageClass(read_all),
        DefaultIngressClass(read_all),
        StorageObjectInUseProtection(),
        PersistentVolumeClaimResize(read),
        NodeRestriction(read, authorize),
        AlwaysPullImages(),
        DenyServiceExternalIPs(),
        NamespaceExists(read),
        PodTopologyLabels(read),
        PodResizeValidator(read),
        OwnerReferencesPermissionEnforcement(server),
    )
    if options.is_on(ResourceQuota.name):
        quota = ResourceQuota(server.store, server.env.clock, InProcessTransport(server.handle))
        server.on_close += (quota.status.close,)
        plugins += (quota,)
    for plugin in plugins:
        assembly.plugin(plugin.name, plugin)
    assembly.always = (*assembly.always, AdminAccess(read))
