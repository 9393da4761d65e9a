"""Which kernel parameters a pod may set: those that upstream's kubelet holds to be safe by default. Pure.

Each belongs to a namespace that the pod has to itself, and none lets it disturb others.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

SAFE = frozenset(
    {
        "kernel.shm_rmid_forced",
        "net.ipv4.ip_local_port_range",
        "net.ipv4.ip_local_reserved_ports",
        "net.ipv4.ip_unprivileged_port_start",
        "net.ipv4.ping_group_range",
        "net.ipv4.tcp_fin_timeout",
        "net.ipv4.tcp_keepalive_intvl",
        "net.ipv4.tcp_keepalive_probes",
        "net.ipv4.tcp_keepalive_time",
        "net.ipv4.tcp_rmem",
        "net.ipv4.tcp_syncookies",
        "net.ipv4.tcp_wmem",
    }
)


def wanted(spec: Mapping[str, Any]) -> dict[str, str]:
    """What the pod's spec sets, with dots in the names."""
    items = (spec.get("securityContext") or {}).get("sysctls") or ()
    return {item["name"].replace("/", "."): str(item["value"]) for item in items}


def forbidden(spec: Mapping[str, Any]) -> str:
    """The first that is not safe, or that would be set in a namespace of the machine itself; "" if there is none."""
    shared = [kind for kind, field in (("net.", "hostNetwork"), ("kernel.", "hostIPC")) if spec.get(field)]
    return next((n for n in wanted(spec) if n not in SAFE or n.startswith(tuple(shared))), "")


def of_kernel(spec: Mapping[str, Any]) -> dict[str, str]:
    """Those that a container's own runtime sets; the others are the network's."""
    return {name: value for name, value in wanted(spec).items() if name in SAFE and name.startswith("kernel.")}
