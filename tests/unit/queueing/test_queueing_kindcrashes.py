"""Jobs of all sorts while the queue's process dies again and again, at whatever it is doing."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest
from jobkindworlds import KindWorld, admitted, container, crd, finished, job, kind_world, template
from test_queueing_pods import pod, runs

from glebe import queueing
from glebe.kube import resources as r
from glebe.kube.informer import Informers
from glebe.kube.objects import condition_is_true
from glebe.queueing.jobkinds.registry import shipped

KINDS = {kind.resource.kind: kind for kind in shipped()}


async def dying_queue(w: KindWorld, seed: int) -> None:
    """Run a queue of its own, which dies after a moment and is started anew, until cancelled."""
    rng = w.env.rng
    for _ in range(seed):
        rng.random()
    while True:
        informers = Informers(w.client, w.env)
        queue = queueing.Queueing(w.client, informers, w.env)
        tasks = [asyncio.create_task(part.run()) for part in queue.controllers]
        tasks.append(asyncio.create_task(informers.run()))
        try:
            await asyncio.sleep(rng.uniform(0.02, 3.0))
        finally:
            for task in tasks:
                task.cancel()
            await asyncio.gather(*tasks, return_exceptions=True)


@pytest.mark.parametrize("seed", range(3))
async def test_everything_ends_well_although_the_queue_dies_all_the_time(seed: int) -> None:
    jobset = KINDS["JobSet"].resource
    async with kind_world(queue=False) as w:
        await w.apply(r.CUSTOM_RESOURCE_DEFINITIONS, crd(jobset))
        dying = asyncio.create_task(dying_queue(w, seed))
        try:
            for n in range(3):
                await w.apply(r.PODS, pod(f"g-{n}", 2, 20, group="gang", total=3))
            await w.apply(r.PODS, pod("alone", 1, 20))
            await w.apply(r.JOBS, job(r.JOBS, "j", {"parallelism": 2, "completions": 2, "template": template(2, 20)}))
            spec: dict[str, Any] = {"replicatedJobs": [{"name": "w", "template": {"spec": {"template": template(2)}}}]}
            await w.apply(jobset, job(jobset, "s", spec))
            serving = {"metadata": {"labels": {"app": "a"}}, "spec": {"containers": [container(2)]}}
            labels = {"selector": {"matchLabels": {"app": "a"}}, "template": serving}
            await w.apply(r.STATEFUL_SETS, job(r.STATEFUL_SETS, "db", {"replicas": 2, "serviceName": "d", **labels}))
            first = await w.workload(admitted, of="jobset-s", limit=300)
            await w.get(jobset, "s", lambda o: o["spec"]["suspend"] is False)
            await w.evict(first)
            stopped = await w.get(jobset, "s", lambda o: o["spec"]["suspend"] is True)
            assert "nodeSelector" not in stopped["spec"]["replicatedJobs"][0]["template"]["spec"]["template"]["spec"]
            await w.activate(first)
            await w.get(jobset, "s", lambda o: o["spec"]["suspend"] is False)
            done = {"conditions": [{"type": "Completed", "status": "True", "message": "ok"}]}
            await w.set_status(jobset, "s", done)
            for name in ("jobset-s", "gang", "pod-alone", "job-j"):
                await w.workload(finished, of=name, limit=300)
            ready = await w.workload(lambda o: condition_is_true(o, "PodsReady"), of="statefulset-db", limit=300)
            assert ready["status"]["admission"]
            running = await w.all_pods(runs, 2, "app=a")
            assert len(running) == 2
            await w.holds(4)
            names = [o["metadata"]["name"] for o in await w.workloads()]
            assert len(names) == len(set(names)) == 5  # none was made twice
        finally:
            dying.cancel()
            await asyncio.gather(dying, return_exceptions=True)
