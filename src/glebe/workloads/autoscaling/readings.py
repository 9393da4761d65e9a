"""Asks the metrics APIs: ``metrics.k8s.io``, and custom and external ones where a server for them is registered.

Usage of resources is read by one list for all pods of a cluster, which serves all of its autoscalers of that moment.
"""

from __future__ import annotations

import asyncio
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any

import orjson

from glebe.kube.client import Client
from glebe.kube.clock import Clock, parse_time
from glebe.kube.duration import parse_duration
from glebe.kube.errors import ApiError, is_not_found
from glebe.kube.objects import Object
from glebe.kube.quantity import ceil, parse
from glebe.kube.transport import ConnectionLost
from glebe.workloads.autoscaling.calculator import Reading, Uncountable

FRESH = 5.0
"""Seconds for which one list serves; autoscalers of one cluster come all at once."""
FORGET = 60.0
CUSTOM = "custom.metrics.k8s.io"
EXTERNAL = "external.metrics.k8s.io"
_WINDOW = 60.0


@dataclass(slots=True)
class _Page:
    at: float = float("-inf")
    pods: dict[tuple[str, str], Object] = field(default_factory=dict)
    why: str = ""
    lock: asyncio.Lock = field(default_factory=asyncio.Lock)


class Readings:
    """What the metrics APIs of all clusters say.

    :raises Uncountable: (all methods) there is no answer, in upstream's words.
    """

    def __init__(self, client: Client, clock: Clock) -> None:
        self._client = client
        self._clock = clock
        self._pages: dict[str, _Page] = {}

    # --- metrics.k8s.io

    async def resource(
        self, cluster: str, namespace: str, pods: Iterable[Object], resource: str, container: str = ""
    ) -> dict[str, Reading]:
        """Usage of ``resource`` by each of ``pods`` (or by their containers of one name) that is known."""
        page = await self._page(cluster)
        if page.why:
            raise Uncountable(page.why)
        names = [pod["metadata"]["name"] for pod in pods]
        found = {name: item for name in names if (item := page.pods.get((namespace, name))) is not None}
        if not found:
            raise Uncountable("no metrics returned from resource metrics API")
        out = {}
        for name, item in found.items():
            value = _usage(item, resource, container)
            if value is not None:
                out[name] = Reading(value, parse_time(item["timestamp"]), _seconds(item.get("window")))
        return out

    async def _page(self, cluster: str) -> _Page:
        page = self._pages.setdefault(cluster, _Page())
        async with page.lock:
            now = self._clock.now()
            if now - page.at < FRESH:
                return page
            for name in [n for n, p in self._pages.items() if now - p.at > FORGET and n != cluster]:
                if not self._pages[name].lock.locked():
                    del self._pages[name]
            page.why, page.pods = "", {}
            try:
                listing = await self._get(cluster, "/apis/metrics.k8s.io/v1beta1/pods", {}, "pods.metrics.k8s.io")
            except Uncountable as error:
                page.why = f"unable to fetch metrics from resource metrics API: {error}"
            else:
                for item in listing.get("items") or ():
                    page.pods[(item["metadata"].get("namespace", ""), item["metadata"]["name"])] = item
            page.at = self._clock.now()
            return page

    # --- custom.metrics.k8s.io

    async def of_pods(
        self, cluster: str, namespace: str, metric: str, selector: str, metric_selector: str
    ) -> dict[str, Reading]:
        """A metric of each selected pod."""
        path = f"{await self._custom(cluster)}/namespaces/{namespace}/pods/*/{metric}"
        items = await self._custom_items(cluster, path, metric, selector, metric_selector)
        out: dict[str, Reading] = {}
        for item in items:
            window = item.get("windowSeconds", item.get("window"))
            seconds = _WINDOW if window is None else float(window)
            out[item["describedObject"]["name"]] = Reading(_milli(item), parse_time(item["timestamp"]), seconds)
        return out

    async def of_object(
        self, cluster: str, namespace: str, resource: str, name: str, metric: str, metric_selector: str
    ) -> int:
        """A metric of one object, in thousandths. ``resource``: ``PLURAL.GROUP``; of a namespace its own metric."""
        base = await self._custom(cluster)
        of = (
            f"namespaces/{namespace}/metrics"
            if resource == "namespaces"
            else f"namespaces/{namespace}/{resource}/{name}"
        )
        items = await self._custom_items(cluster, f"{base}/{of}/{metric}", metric, "", metric_selector)
        if len(items) != 1:
            text = f"the custom metrics API server returned {len(items)} results when we asked for exactly one"
            raise Uncountable(f"unable to fetch metrics from custom metrics API: {text}")
        return _milli(items[0])

    async def _custom(self, cluster: str) -> str:
        """The path of the API's best version."""
        try:
            response = await self._client.at(cluster).raw("GET", f"/apis/{CUSTOM}")
        except (ApiError, ConnectionLost) as error:
            why = f"no custom metrics API ({CUSTOM}) registered" if _is_missing(error) else str(error)
            raise Uncountable(f"unable to fetch metrics from custom metrics API: {why}") from error
        served = {v["version"] for v in orjson.loads(response.body).get("versions") or ()}
        return f"/apis/{CUSTOM}/{'v1beta2' if 'v1beta2' in served else 'v1beta1'}"

    async def _custom_items(
        self, cluster: str, path: str, metric: str, selector: str, metric_selector: str
    ) -> list[Object]:
        query = {"labelSelector": selector, "metricLabelSelector": metric_selector}
        try:
            listing = await self._get(cluster, path, query, f"{metric}.{CUSTOM}")
        except Uncountable as error:
            raise Uncountable(f"unable to fetch metrics from custom metrics API: {error}") from error
        items = listing.get("items") or []
        if not items:
            raise Uncountable("no metrics returned from custom metrics API")
        return list(items)

    # --- external.metrics.k8s.io

    async def external(self, cluster: str, namespace: str, metric: str, metric_selector: str) -> list[int]:
        """The values of a metric that is of no object, in thousandths."""
        path = f"/apis/{EXTERNAL}/v1beta1/namespaces/{namespace}/{metric}"
        try:
            listing = await self._get(cluster, path, {"labelSelector": metric_selector}, f"{metric}.{EXTERNAL}")
        except Uncountable as error:
            raise Uncountable(f"unable to fetch metrics from external metrics API: {error}") from error
        items = listing.get("items") or []
        if not items:
            raise Uncountable("no metrics returned from external metrics API")
        return [_milli(item) for item in items]

    async def _get(self, cluster: str, path: str, query: Mapping[str, str], what: str) -> Object:
        pairs = [(name, value) for name, value in query.items() if value]
        try:
            response = await self._client.at(cluster).raw("GET", path, query=pairs)
        except (ApiError, ConnectionLost) as error:
            text = f"the server could not find the requested resource (get {what})"
            raise Uncountable(text if _is_missing(error) else str(error)) from error
        body: Object = orjson.loads(response.body)
        return body


def _is_missing(error: Exception) -> bool:
    """Whether there is no such API (rather than no such object in it)."""
    return isinstance(error, ApiError) and is_not_found(error) and not error.details.get("name")


def _usage(item: Object, resource: str, container: str) -> int | None:
    containers = item.get("containers") or ()
    if container:
        containers = [c for c in containers if c.get("name") == container][:1]
    total = 0
    for each in containers:
        amount = (each.get("usage") or {}).get(resource)
        if amount is None:
            return None
        total += ceil(parse(amount) * 1000)
    return total if containers else None


def _milli(item: Object) -> int:
    return ceil(parse(item["value"]) * 1000)


def _seconds(window: Any) -> float:
    try:
        return parse_duration(str(window or "0s"))
    except ValueError:
        return 0.0
