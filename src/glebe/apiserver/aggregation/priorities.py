"""The order of API groups and of their versions, as the priorities of APIServices say it."""

from __future__ import annotations

from glebe.apiserver.discovery.groups import version_order

#: Built-in groups, first ones preferred -> (groupPriorityMinimum, versionPriority); of upstream's kube-apiserver.
GROUPS: dict[str, tuple[int, int]] = {
    "": (18000, 1),
    "apps": (17800, 15),
    "events.k8s.io": (17750, 15),
    "authentication.k8s.io": (17700, 15),
    "authorization.k8s.io": (17600, 15),
    "autoscaling": (17500, 15),
    "batch": (17400, 15),
    "certificates.k8s.io": (17300, 15),
    "networking.k8s.io": (17200, 15),
    "policy": (17100, 15),
    "rbac.authorization.k8s.io": (17000, 15),
    "storage.k8s.io": (16800, 15),
    "admissionregistration.k8s.io": (16700, 15),
    "apiextensions.k8s.io": (16700, 15),
    "scheduling.k8s.io": (16600, 15),
    "coordination.k8s.io": (16500, 15),
    "node.k8s.io": (16300, 15),
    "discovery.k8s.io": (16200, 15),
    "resource.k8s.io": (16200, 21),
    "flowcontrol.apiserver.k8s.io": (16100, 21),
    "apiregistration.k8s.io": (20000, 18),
}
_VERSIONS = {("autoscaling", "v2"): 30, ("scheduling.k8s.io", "v1alpha2"): 9}
#: of a custom kind's group
CUSTOM = (1000, 100)


def priorities(group: str, version: str) -> tuple[int, int]:
    """(groupPriorityMinimum, versionPriority) of what this server answers itself."""
    minimum, priority = GROUPS.get(group, CUSTOM)
    return minimum, _VERSIONS.get((group, version), priority)


def group_key(group: str, minimum: int) -> tuple[int, str]:
    """Sorts groups: the higher priority first, then by name."""
    return (-minimum, group)


def version_key(version: str, priority: int) -> tuple[int, tuple[int, int, int, str]]:
    """Sorts versions: the higher priority first, then stable before beta before alpha."""
    return (-priority, version_order(version))
