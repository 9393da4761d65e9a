"""Is a remote there? The ``Available`` condition of APIServices (upstream's remote availability controller)."""

from __future__ import annotations

from typing import TYPE_CHECKING

import orjson

from glebe.apiserver.aggregation.merging import AGGREGATOR
from glebe.apiserver.aggregation.presence import RESOURCE
from glebe.apiserver.aggregation.proxying import Proxy
from glebe.apiserver.aggregation.remotes import Remote
from glebe.apiserver.dialing import DialError
from glebe.apiserver.store import Key, Mismatch
from glebe.kube.objects import set_condition

if TYPE_CHECKING:
    from glebe.apiserver.server import ApiServer

_SLICES = "endpointslices.discovery.k8s.io"


async def check(server: ApiServer, proxy: Proxy, cluster: str, remote: Remote) -> tuple[bool, str, str]:
    """(available, reason, message)."""
    service = server.read(cluster, "services", remote.namespace, remote.service)
    where = f'service/{remote.service} in "{remote.namespace}"'
    if service is None:
        return False, "ServiceNotFound", f"{where} is not present"
    spec = service.get("spec") or {}
    port = next((p for p in spec.get("ports") or () if p.get("port") == remote.port), None)
    if spec.get("type", "ClusterIP") == "ClusterIP":
        if port is None:
            return False, "ServicePortError", f"{where} is not listening on port {remote.port}"
        if spec.get("selector") or spec.get("clusterIP"):
            missing = _endpoints(server, cluster, remote, str(port.get("name") or ""))
            if missing is not None:
                return False, *missing
    path = f"/apis/{remote.group}/{remote.version}"
    url = f"https://{remote.service}.{remote.namespace}.svc:{remote.port}{path}"
    try:
        status, _, _ = await proxy.fetch(cluster, remote, path, AGGREGATOR, "application/json")
    except TimeoutError:
        return False, "FailedDiscoveryCheck", f"timed out waiting for {url}"
    except DialError as error:
        return False, "FailedDiscoveryCheck", f"failing or missing response from {url}: {error}"
    if not 200 <= status < 300:
        why = f"failing or missing response from {url}: bad status from {url}: {status}"
        return False, "FailedDiscoveryCheck", why
    return True, "Passed", "all checks passed"


def _endpoints(server: ApiServer, cluster: str, remote: Remote, port: str) -> tuple[str, str] | None:
    """(reason, message) when the service has no endpoints that could be asked."""
    where = f'service/{remote.service} in "{remote.namespace}"'
    slices = [
        s
        for s in server.read_all(cluster, _SLICES, remote.namespace)
        if (s["metadata"].get("labels") or {}).get("kubernetes.io/service-name") == remote.service
    ]
    if not slices and server.read(cluster, "endpoints", remote.namespace, remote.service) is None:
        return "EndpointsNotFound", f"cannot find endpointslices for {where}"
    try:
        server.dialer.service(cluster, remote.namespace, remote.service, remote.port)
    except DialError:
        return "MissingEndpoints", f'endpointslices for {where} have no addresses with port name "{port}"'
    return None


async def publish(server: ApiServer, cluster: str, remote: Remote, found: tuple[bool, str, str]) -> None:
    """Write the condition, unless it says so already."""
    good, reason, message = found
    key = Key(RESOURCE, cluster, "", remote.name)
    while (entry := server.store.get(key)) is not None:
        obj = entry.load()
        status = obj.setdefault("status", {})
        before = list(status.get("conditions") or ())
        status["conditions"] = set_condition(
            before, "Available", "True" if good else "False", reason, message, server.now_text()
        )
        if status["conditions"] == before:
            return

        def make(revision: int, obj: dict[str, object] = obj) -> bytes:
            obj["metadata"]["resourceVersion"] = str(revision)  # type: ignore[index]
            return orjson.dumps(obj)

        try:
            await server.store.put(key, make, entry.revision)
        except Mismatch:
            continue
        return
