"""The assembled platform under virtual time."""

from __future__ import annotations

import asyncio
import itertools
from collections.abc import Awaitable, Callable
from typing import Any

import pytest

from glebe.apiserver.store import MemoryStore
from glebe.kube import resources as r
from glebe.kube.client import Client
from glebe.kube.clock import Env
from glebe.kube.objects import Object
from glebe.kube.transport import Request, Response, Transport
from glebe.node.fleet import parse_fleet
from glebe.platform import bootstrap
from glebe.platform.embedded import Platform, PlatformConfig
from glebe.platform.jobspec import JobRequest, build
from glebe.platform.parts import Part, Parts, Wiring
from glebe.platform.views import State, job_views

FLEET = """\
apiVersion: glebe.dev/v1alpha1
kind: Fleet
pools:
- {name: gpu, count: COUNT, gpu: {model: h100-sxm5-80gb, count: 8}, topology: {nodesPerRack: 2}, runTime: 100s}
"""


def platform(count: int = 4, store: MemoryStore | None = None, **options: Any) -> Platform:
    config = PlatformConfig(parse_fleet(FLEET.replace("COUNT", str(count))))
    return Platform(config, Env.seeded(1), store or MemoryStore(), **options)


def job(name: str, nodes: int) -> Object:
    return build(JobRequest(name=name, command=["x"], nodes=nodes, gpus_per_node=8, expected="90s..120s"))[1]


async def states(client: Client) -> dict[str, str]:
    jobs, workloads = await client.list_all(r.JOBS), await client.list_all(r.WORKLOADS)
    return {view.name: str(view.state) for view in job_views(jobs.items, workloads.items)}


async def until(what: Callable[[], Awaitable[bool]], seconds: float = 300) -> None:
    async with asyncio.timeout(seconds):
        while not await what():  # noqa: ASYNC110 - virtual time
            await asyncio.sleep(0.5)


async def test_a_job_runs_and_the_next_waits_for_it() -> None:
    async with platform() as p:
        assert p.first_start
        await asyncio.sleep(3)
        await p.client.create(r.JOBS, job("first", 3))
        await p.client.create(r.JOBS, job("second", 3))
        await asyncio.sleep(5)
        assert await states(p.client) == {"first": State.RUNNING, "second": State.WAITING}
        await until(lambda: _all(p.client, State.SUCCEEDED))


async def _all(client: Client, state: State) -> bool:
    return set((await states(client)).values()) == {str(state)}


@pytest.mark.parametrize("part", ["workloads", "queueing", "metering", "nodes"])
async def test_any_part_may_crash_and_come_back(part: str) -> None:
    async with platform() as p:
        assert part in p.parts.names
        await asyncio.sleep(3)
        await p.client.create(r.JOBS, job("first", 4))
        await asyncio.sleep(4)
        await p.crash(part)
        assert not p.parts.running(part)
        await p.client.create(r.JOBS, job("second", 4))
        await asyncio.sleep(20)
        await p.restart(part)
        await until(lambda: _all(p.client, State.SUCCEEDED))


async def test_every_part_has_its_own_transport() -> None:
    seen: list[str] = []

    class Counted:
        def __init__(self, inner: Transport) -> None:
            self._inner = inner

        async def send(self, request: Request) -> Response:
            return await self._inner.send(request)

        async def close(self) -> None:
            await self._inner.close()

    def wrap(part: str, transport: Transport) -> Transport:
        seen.append(part)
        return Counted(transport)

    async with platform(wrap_transport=wrap) as p:
        await asyncio.sleep(1)
        await p.crash("queueing")
        await p.restart("queueing")
        await asyncio.sleep(1)
    assert sorted(set(seen)) == sorted(p.parts.names)
    assert seen.count("queueing") == 2


async def test_defaults_are_made_once_and_may_be_removed() -> None:
    store = MemoryStore()
    async with platform(store=store) as p:
        queue = await p.client.get(r.CLUSTER_QUEUES, "default")
        quotas = queue["spec"]["resourceGroups"][0]["flavors"][0]["resources"]
        assert {"name": "nvidia.com/gpu", "nominalQuota": "32"} in quotas
        await p.client.delete(r.LOCAL_QUEUES, "default", "default")
        assert not await bootstrap.create_defaults(p.client, [])
        assert (await p.client.list_all(r.LOCAL_QUEUES)).items == []


async def test_nodes_that_left_the_fleet_file_are_removed() -> None:
    async with platform(4) as p:
        await asyncio.sleep(3)
        fewer = parse_fleet(FLEET.replace("COUNT", "3")).nodes
        assert await bootstrap.remove_departed_nodes(p.client, fewer) == ["gpu-03"]


async def test_a_part_that_fails_is_started_again() -> None:
    starts: list[float] = []

    class Broken:
        async def run(self) -> None:
            starts.append(asyncio.get_running_loop().time())
            raise RuntimeError("broken")

    class Silent:
        async def send(self, request: Request) -> Response:
            raise NotImplementedError

        async def close(self) -> None:
            pass

    def build_part(wiring: Wiring) -> list[Broken]:
        return [Broken()]

    parts = Parts([Part("one", build_part)], lambda name: Silent(), Env.seeded(1), shared_cache=False)
    parts.start("one")
    with pytest.raises(RuntimeError, match="runs already"):
        parts.start("one")
    await asyncio.sleep(40)
    await parts.stop_all()
    gaps = [round(b - a, 1) for a, b in itertools.pairwise(starts)]
    assert gaps[:4] == [0.2, 1.0, 5.0, 15.0], "it is tried ever more slowly"


@pytest.mark.parametrize(
    ("topology", "name"), [("topology: {nodesPerRack: 2, racksPerBlock: 2}", "default"), ("", "hosts")]
)
def test_a_flavor_has_a_topology_that_its_nodes_have(topology: str, name: str) -> None:
    head = "apiVersion: glebe.dev/v1alpha1\nkind: Fleet\nlocal: {enabled: false}\n"
    pool = f"pools:\n- name: h100\n  count: 4\n  gpu: {{model: h100-sxm5-80gb, count: 8}}\n  {topology}\n"
    nodes = parse_fleet(head + pool).nodes
    made = [obj for _, obj in bootstrap.default_objects(nodes)]
    flavor = next(obj for obj in made if obj["kind"] == "ResourceFlavor")
    assert flavor["spec"]["topologyName"] == name
    topologies = {obj["metadata"]["name"]: obj["spec"]["levels"] for obj in made if obj["kind"] == "Topology"}
    assert all(level["nodeLabel"] in node.labels for level in topologies[name] for node in nodes)
