"""Services and the ways to them."""

from __future__ import annotations

from typing import Any

from glebe.apiserver.printers.cells import NONE, Printers, age, name_of, pairs, plain, selector_text, spec_of, status_of
from glebe.kube.objects import Object


def _service(obj: Object, now: float) -> list[Any]:
    spec = spec_of(obj)
    kind = spec.get("type", "")
    if kind == "ExternalName":
        external = spec.get("externalName", "")
    else:
        ingress = (status_of(obj).get("loadBalancer") or {}).get("ingress") or ()
        found = [*(i.get("ip") or i.get("hostname", "") for i in ingress), *(spec.get("externalIPs") or ())]
        external = ",".join(found) or ("<pending>" if kind == "LoadBalancer" else NONE)
    ports = []
    for port in spec.get("ports") or ():
        node = f":{port['nodePort']}" if port.get("nodePort") else ""
        ports.append(f"{port.get('port')}{node}/{port.get('protocol', 'TCP')}")
    address = spec.get("clusterIP") or NONE
    shown = ",".join(ports) or NONE
    return [name_of(obj), kind, address, external, shown, age(obj, now), pairs(spec.get("selector"))]


def _endpoints(obj: Object, now: float) -> list[Any]:
    found: list[str] = []
    for subset in obj.get("subsets") or ():
        addresses = [str(a.get("ip")) for a in subset.get("addresses") or ()]
        ports = [f":{p['port']}" for p in subset.get("ports") or () if "port" in p] or [""]
        found.extend(address + port for port in ports for address in addresses)
    text = ",".join(found[:3]) + (f" + {len(found) - 3} more..." if len(found) > 3 else "")
    return [name_of(obj), text or NONE, age(obj, now)]


def _slice(obj: Object, now: float) -> list[Any]:
    ports = ",".join(str(p.get("port", "*")) for p in obj.get("ports") or ()) or "<unset>"
    found = [a for e in obj.get("endpoints") or () for a in e.get("addresses") or ()]
    text = ",".join(found[:3]) + (f" + {len(found) - 3} more..." if len(found) > 3 else "")
    return [name_of(obj), obj.get("addressType", ""), ports, text or "<unset>", age(obj, now)]


def _ingress(obj: Object, now: float) -> list[Any]:
    spec = spec_of(obj)
    hosts = ",".join(r["host"] for r in spec.get("rules") or () if r.get("host")) or "*"
    found = (status_of(obj).get("loadBalancer") or {}).get("ingress") or ()
    address = ",".join(i.get("ip") or i.get("hostname", "") for i in found)
    ports = "80, 443" if spec.get("tls") else "80"
    return [name_of(obj), spec.get("ingressClassName", NONE), hosts, address, ports, age(obj, now)]


#: group resource -> (columns, row)
PRINTERS: Printers = {
    "services": (("Name", "Type", "Cluster-IP", "External-IP", "Port(s)", "Age", "+Selector"), _service),
    "endpoints": (("Name", "Endpoints", "Age"), _endpoints),
    "endpointslices.discovery.k8s.io": (("Name", "AddressType", "Ports", "Endpoints", "Age"), _slice),
    "ingresses.networking.k8s.io": (("Name", "Class", "Hosts", "Address", "Ports", "Age"), _ingress),
    "networkpolicies.networking.k8s.io": (
        ("Name", "Pod-Selector", "Age"),
        plain(lambda o: selector_text(spec_of(o).get("podSelector"))),
    ),
}
