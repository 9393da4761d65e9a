"""Where clusters find this server: the endpoints of the service ``kubernetes``."""

from __future__ import annotations

import contextlib
from ipaddress import ip_address
from typing import TYPE_CHECKING

import orjson

from glebe.apiserver.clusters.firstobjects import first_objects
from glebe.apiserver.request.routing import ROOT
from glebe.apiserver.store import Key, Make, Mismatch
from glebe.kube.objects import Object

if TYPE_CHECKING:
    from glebe.apiserver.server import ApiServer

DEFAULT = ("127.0.0.1", 6443)
_PARTS = {"services": "spec", "endpoints": "subsets", "endpointslices.discovery.k8s.io": "endpoints"}


def address_of(host: str) -> str:
    """The IP address to advertise for a server that listens on ``host``."""
    try:
        address = ip_address(host.strip("[]"))
    except ValueError:
        return DEFAULT[0]
    return DEFAULT[0] if address.is_unspecified else str(address)


async def advertise(server: ApiServer, host: str, port: int) -> None:
    """The server listens now: root's service says where, whatever it said after an earlier start."""
    server.advertised = (address_of(host), port)
    for resource, wanted in first_objects(*server.advertised):
        if resource not in _PARTS:
            continue
        meta = wanted["metadata"]
        key = Key(resource, ROOT, meta["namespace"], meta["name"])
        entry = server.store.get(key)
        if entry is None:
            continue
        obj = entry.load()
        fields = [name for name in wanted if name not in ("apiVersion", "kind", "metadata", "status")]
        if resource == "services":  # its addresses may have been chosen under another range
            wanted["spec"] |= {f: obj["spec"][f] for f in ("clusterIP", "clusterIPs") if f in obj["spec"]}
        if any(obj.get(name) != wanted[name] for name in fields):
            obj |= {name: wanted[name] for name in fields}
            with contextlib.suppress(Mismatch):
                await server.store.put(key, _stamped(obj), entry.revision)


def _stamped(obj: Object) -> Make:
    def make(revision: int) -> bytes:
        obj["metadata"]["resourceVersion"] = str(revision)
        return orjson.dumps(obj)

    return make
