"""The same story of two queues on the embedded host and on a real kube-apiserver with upstream's controllers."""

from __future__ import annotations

import asyncio
from pathlib import Path

import pytest
from kube_peer import assets, real_kubernetes
from kueue_story import FLEET, story
from test_cluster_queue import controllers, install, running

from glebe.apiserver.store import MemoryStore
from glebe.kube.clock import Env
from glebe.node.fleet import parse_fleet
from glebe.node.simulated.nodes import SimulatedNodes
from glebe.platform.embedded import Platform, PlatformConfig


async def test_on_the_embedded_host() -> None:
    async with Platform(PlatformConfig(parse_fleet(FLEET)), Env.seeded(1), MemoryStore()) as platform:
        await asyncio.sleep(2)
        await story(platform.client)


@pytest.mark.cluster
@pytest.mark.realtime
async def test_on_real_kubernetes(tmp_path: Path) -> None:
    folder = assets()
    with real_kubernetes(tmp_path) as peer, controllers(peer, folder, tmp_path, "node-lifecycle-controller"):
        client, env = peer.client(), Env.system()
        await peer.ready(client)
        await install(client)
        nodes = SimulatedNodes(client, env, parse_fleet(FLEET).nodes)
        kubelets = asyncio.create_task(nodes.run())
        try:
            async with asyncio.timeout(30):
                await nodes.wait_registered()
            async with running(client, env):
                await story(client)
        finally:
            kubelets.cancel()
            await asyncio.gather(kubelets, return_exceptions=True)
            await client.close()
