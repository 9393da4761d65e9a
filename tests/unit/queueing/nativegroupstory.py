"""A native PodGroup whose pods are queued together, with ``scheduling.k8s.io/v1alpha2`` served. Run as a program."""

from __future__ import annotations

import asyncio

from jobkindworlds import NAMESPACE, admitted, finished, job, kind_world, template

from glebe.apiserver.types import runtimeconfig
from glebe.kube import resources as r
from glebe.kube import virtualtime
from glebe.queueing.jobs import foreign


async def story() -> None:
    async with kind_world() as w:
        resource = foreign.NATIVE_GROUPS[0]
        meta = {"name": "g", "namespace": NAMESPACE, "labels": {"kueue.x-k8s.io/queue-name": "main"}}
        spec = {"schedulingPolicy": {"gang": {"minCount": 2}}}
        await w.apply(
            resource, {"apiVersion": resource.api_version, "kind": "PodGroup", "metadata": meta, "spec": spec}
        )
        for n in range(2):
            await asyncio.sleep(5)
            assert await w.workloads() == []
            made = job(r.PODS, f"n-{n}", {**template(1)["spec"], "schedulingGroup": {"podGroupName": "g"}})
            made["metadata"]["labels"] = {}
            made["metadata"]["annotations"] = {"sim.glebe.dev/run-time": "30s"}
            stored = await w.apply(r.PODS, made)
            assert stored["metadata"]["labels"]["kueue.x-k8s.io/pod-group-name"] == "g"
        first = await w.workload(admitted, of="g")
        assert [p["count"] for p in first["spec"]["podSets"]] == [2]
        await w.all_pods(lambda p: (p.get("status") or {}).get("phase") == "Running", 2)
        await w.workload(finished)
        await w.free()


if __name__ == "__main__":
    runtimeconfig.use(runtimeconfig.parse("scheduling.k8s.io/v1alpha2=true"))
    virtualtime.run(story())
