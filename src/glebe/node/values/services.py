"""Environment variables that tell containers of Services (``enableServiceLinks``), in Docker's old names. Pure."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

from glebe.kube.objects import Object

MASTER = ("default", "kubernetes")


def visible(services: Iterable[Object], namespace: str, links: bool) -> list[Object]:
    """The Services that a pod of ``namespace`` is told of: the API server's, and with ``links`` those beside it."""
    return [
        service
        for service in services
        if (where := (service["metadata"]["namespace"], service["metadata"]["name"])) == MASTER
        or (links and where[0] == namespace)
    ]


def variables(services: Iterable[Object]) -> dict[str, str]:
    """``NAME_SERVICE_HOST`` and so on, for Services that have an address."""
    out: dict[str, str] = {}
    for service in services:
        spec = service.get("spec") or {}
        address, ports = spec.get("clusterIP") or "", spec.get("ports") or []
        if address in ("", "None") or not ports or spec.get("type") == "ExternalName":
            continue
        prefix = _name(service["metadata"]["name"])
        out[f"{prefix}_SERVICE_HOST"] = address
        out[f"{prefix}_SERVICE_PORT"] = str(ports[0]["port"])
        for port in ports:
            if port.get("name"):
                out[f"{prefix}_SERVICE_PORT_{_name(port['name'])}"] = str(port["port"])
        out.update(_links(prefix, address, ports))
    return out


def _links(prefix: str, address: str, ports: list[dict[str, Any]]) -> dict[str, str]:
    host = f"[{address}]" if ":" in address else address
    out = {}
    for number, port in enumerate(ports):
        protocol = port.get("protocol") or "TCP"
        url = f"{protocol.lower()}://{host}:{port['port']}"
        base = f"{prefix}_PORT_{port['port']}_{protocol}"
        if number == 0:
            out[f"{prefix}_PORT"] = url
        out.update(
            {
                base: url,
                f"{base}_PROTO": protocol.lower(),
                f"{base}_PORT": str(port["port"]),
                f"{base}_ADDR": address,
            }
        )
    return out


def _name(text: str) -> str:
    return text.upper().replace("-", "_")
