"""Where a proxied request goes: ``[scheme:]name[:port]`` of a pod, a service or a node to an address.

Upstream's rules (``ResourceLocation`` in ``pkg/registry/core``). Only what the cluster itself runs can
be reached: a pod's own address, an endpoint that is one of the namespace's pods, a node's address.
"""

from __future__ import annotations

import ipaddress
from dataclasses import dataclass
from typing import Any

from glebe.apiserver.dialing import DialError
from glebe.apiserver.request.call import Call
from glebe.apiserver.store import Key
from glebe.kube import errors
from glebe.kube.objects import Object

#: A node's addresses, in the order in which they are tried (as upstream, for those that are addresses).
_NODE_ADDRESSES = ("Hostname", "InternalDNS", "InternalIP", "ExternalDNS", "ExternalIP")


@dataclass(frozen=True, slots=True)
class Location:
    """An address; ``port`` 0 is the scheme's. ``kubelet``: the connection shows the server's own certificate.

    ``trust`` (PEM): what must have signed the certificate that is shown there; none: it is taken unseen.
    """

    scheme: str
    host: str
    port: int = 0
    kubelet: bool = False
    trust: bytes = b""

    @property
    def number(self) -> int:
        return self.port or (443 if self.scheme == "https" else 80)

    @property
    def authority(self) -> str:
        host = f"[{self.host}]" if ":" in self.host else self.host
        return f"{host}:{self.port}" if self.port else host


@dataclass(frozen=True, slots=True)
class OwnKubelet:
    """The server of a node that lives in this very process, registered by whoever put the process together.

    It may listen on this machine's loopback. Nothing that users write (a Node's status) leads there: it is known by
    cluster and name alone, and by its certificate (PEM).
    """

    host: str
    port: int
    certificate: bytes


def split(text: str) -> tuple[str, str, str] | None:
    """``name``, ``name:port`` or ``scheme:name:port`` to (scheme, name, port); None when it is neither."""
    parts = text.split(":")
    if len(parts) > 3 or not all(parts[:1]):
        return None if len(parts) != 3 else _of_three(parts)
    if len(parts) == 3:
        return _of_three(parts)
    return ("", parts[0], parts[1] if len(parts) == 2 else "")


def _of_three(parts: list[str]) -> tuple[str, str, str] | None:
    scheme, name, port = parts
    return (scheme, name, port) if scheme in ("", "http", "https") and name else None


def _named(call: Call, kind: str) -> tuple[str, str, str]:
    found = split(call.route.name)
    if found is None:
        raise errors.bad_request(f'invalid {kind} request "{call.route.name}"')
    return found


def check_address(call: Call, host: str, pod: str = "") -> None:
    """Addresses of this machine alone are nobody's pod, unless the server's operator allows them, or this process' own
    node says that it gave the address to that very ``pod`` (its uid).

    :raises ApiError: 400.
    """
    try:
        address = ipaddress.ip_address(host)
    except ValueError:
        raise errors.bad_request("address not allowed") from None
    rules, own = call.server.dialer.rules, call.server.own_address
    if any(address in network for network in rules.allow):
        return
    if pod and own is not None and own(call.cluster, pod) == host:
        return
    if address.is_loopback or address.is_link_local or address.is_multicast or address.is_unspecified:
        raise errors.bad_request("address not allowed")
    try:
        rules.check(call.cluster, host)
    except DialError:
        raise errors.bad_request("address not allowed") from None


def of_pod(call: Call) -> Location:
    """
    :raises ApiError: 404, 400.
    """
    scheme, name, port = _named(call, "pod")
    pod = _read(call, "pods", name)
    if not port:
        declared = (p for c in pod["spec"].get("containers") or () for p in (c.get("ports") or ())[:1])
        port = str(next((p["containerPort"] for p in declared), ""))
    status = pod.get("status") or {}
    host = next((a["ip"] for a in status.get("podIPs") or () if a.get("ip")), "") or status.get("podIP") or ""
    check_address(call, host, pod["metadata"]["uid"])
    return Location(scheme or "http", host, _number(port))


def _number(text: str) -> int:
    """
    :raises ApiError: 400 for what is no port.
    """
    if not text:
        return 0
    if not (text.isascii() and text.isdigit() and 0 < int(text) < 65536):
        raise errors.bad_request(f'invalid port "{text}"')
    return int(text)


def _read(call: Call, resource: str, name: str) -> Object:
    namespace = call.route.namespace if resource != "nodes" else ""
    found = call.server.read(call.cluster, resource, namespace, name)
    if found is None:
        raise errors.not_found("", resource, name)
    return found


def of_service(call: Call) -> Location:
    """An endpoint of the service that is one of the namespace's pods.

    :raises ApiError: 404; 503 when there is none.
    """
    scheme, name, port = _named(call, "service")
    if port.isascii() and port.isdigit():
        ports = (_read(call, "services", name).get("spec") or {}).get("ports") or ()
        declared = next((p for p in ports if p.get("port") == int(port)), None)
        if declared is None:
            raise _unavailable(f'no service port {port} found for service "{name}"')
        port = declared.get("name", "")
    subsets: list[dict[str, Any]] = list(_read(call, "endpoints", name).get("subsets") or ())
    if not subsets:
        raise _unavailable(f'no endpoints available for service "{name}"')
    rng = call.server.env.rng
    for subset in rng.sample(subsets, len(subsets)):
        number = next((p["port"] for p in subset.get("ports") or () if p.get("name", "") == port), 0)
        addresses = list(subset.get("addresses") or ()) if number else []
        for address in rng.sample(addresses, len(addresses)):
            if _is_pod(call, address):
                check_address(call, address["ip"], address["targetRef"].get("uid") or "")
                return Location(scheme or "http", address["ip"], number)
    raise _unavailable(f'no endpoints available for service "{call.route.name}"')


def _is_pod(call: Call, address: dict[str, Any]) -> bool:
    ref = address.get("targetRef") or {}
    if ref.get("namespace") != call.route.namespace or not ref.get("name"):
        return False
    entry = call.server.store.get(Key("pods", call.cluster, call.route.namespace, ref["name"]))
    status = (entry.view().get("status") or {}) if entry is not None else {}
    return any(a.get("ip") == address.get("ip") for a in status.get("podIPs") or ())


def _unavailable(why: str) -> errors.ApiError:
    return errors.ApiError(503, "ServiceUnavailable", why)


def of_node(call: Call) -> Location:
    """The node's kubelet, or another port of the node.

    :raises ApiError: 404, 400.
    """
    scheme, name, port = _named(call, "node")
    kubelet = kubelet_of(call, name)
    if not port or _number(port) == kubelet.port:
        return kubelet
    check_address(call, kubelet.host)  # that this process' own node listens on the loopback opens no other port there
    return Location(scheme or "http", kubelet.host, _number(port))


def kubelet_of(call: Call, name: str) -> Location:
    """Where a node's status says that its kubelet listens.

    :raises ApiError: 404 for an unknown node, 500 for one that does not say, 400 for a forbidden address.
    """
    status = _read(call, "nodes", name).get("status") or {}
    own = call.server.own_kubelets.get((call.cluster, name))
    if own is not None:
        return Location("https", own.host, own.port, True, own.certificate)
    port = ((status.get("daemonEndpoints") or {}).get("kubeletEndpoint") or {}).get("Port") or 10250
    for kind in _NODE_ADDRESSES:
        for address in status.get("addresses") or ():
            if address.get("type") == kind and _is_address(address.get("address", "")):
                check_address(call, address["address"])
                return Location("https", address["address"], int(port), True)
    raise errors.internal(f"no preferred addresses found; known addresses: {status.get('addresses') or []}")


def _is_address(text: str) -> bool:
    try:
        ipaddress.ip_address(text)
    except ValueError:
        return False
    return True
