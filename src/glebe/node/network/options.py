"""How a node's pods are to be connected."""

from __future__ import annotations

from dataclasses import dataclass
from ipaddress import IPv4Network

MODES = ("auto", "namespace", "loopback")
POD_CIDR = "10.244.0.0/16"


@dataclass(frozen=True, slots=True)
class NetworkOptions:
    """``mode`` is one of :data:`MODES`; ``auto`` is ``namespace`` where the machine allows it.

    ``pod_cidr``: the network in which the node's own, of at most 256 addresses, is to lie. ``window``: seconds that
    pods outlive the agent.
    """

    mode: str = "loopback"
    pod_cidr: str = POD_CIDR
    window: float = 60.0


def parse_options(mode: str, pod_cidr: str) -> NetworkOptions:
    """What a user asked for.

    :raises ValueError: the message names the option.
    """
    if mode not in MODES:
        raise ValueError(f"--pod-network: {mode!r} is none of {', '.join(MODES)}")
    try:
        network = IPv4Network(pod_cidr)
    except ValueError as error:
        raise ValueError(f"--pod-cidr: {error}") from None
    if network.prefixlen > 28 or network.is_loopback:
        raise ValueError(f"--pod-cidr: {pod_cidr} has no room for pods; give an IPv4 network of at least /28")
    return NetworkOptions(mode, str(network))
