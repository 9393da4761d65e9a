"""Samples of nodes elsewhere: their kubelet's ``/metrics/resource``, through the API server."""

from __future__ import annotations

import asyncio
import re
from collections.abc import Iterator

from glebe.kube.client import Client
from glebe.node.metrics.model import NodeSample, Place, Used

_SECONDS = 10.0
_LINE = re.compile(r"([a-z_]+)(?:\{([^}]*)\})?\s+([0-9.eE+-]+)(?:\s+(\d+))?")
_LABEL = re.compile(r'([a-z_]+)="((?:[^"\\]|\\.)*)"')


async def scrape(client: Client, node: str, now: float) -> NodeSample:
    """
    :raises ApiError, ConnectionLost, TimeoutError: the node does not answer. :raises ValueError: not with a sample.
    """
    async with asyncio.timeout(_SECONDS):
        answer = await client.raw("GET", f"/api/v1/nodes/{node}/proxy/metrics/resource", accept="text/plain")
    return parse(answer.body.decode(errors="replace"), now)


def parse(text: str, now: float) -> NodeSample:
    """A kubelet's text as a sample.

    :raises ValueError: it says nothing of the node.
    """
    cpu: dict[Place | None, float] = {}
    memory: dict[Place | None, int] = {}
    started: dict[Place | None, float] = {}
    stamp = 0
    for name, labels, value, at in _lines(text):
        place = None
        if name.startswith("container_"):
            place = Place(labels.get("namespace", ""), labels.get("pod", ""), labels.get("container", ""))
        if name in ("container_cpu_usage_seconds_total", "node_cpu_usage_seconds_total"):
            cpu[place] = value
            stamp = max(stamp, at) if place is None else stamp
        elif name in ("container_memory_working_set_bytes", "node_memory_working_set_bytes"):
            memory[place] = int(value)
        elif name == "container_start_time_seconds":
            started[place] = value
    if None not in cpu or None not in memory:
        raise ValueError("the node says nothing of its use")
    node = Used(cpu.pop(None), memory.pop(None))
    both = [place for place in cpu if place is not None and place in memory]
    containers = {place: Used(cpu[place], memory[place], started.get(place, 0.0)) for place in both}
    return NodeSample(stamp / 1000 if stamp else now, node, containers)


def _lines(text: str) -> Iterator[tuple[str, dict[str, str], float, int]]:
    for line in text.splitlines():
        found = _LINE.fullmatch(line.strip())
        if found is not None:
            yield found[1], dict(_LABEL.findall(found[2] or "")), float(found[3]), int(found[4] or 0)
