"""The admission webhook against a real kube-apiserver, as where MutatingAdmissionPolicy is not served."""

from __future__ import annotations

from pathlib import Path

import pytest
from kube_peer import real_kubernetes

from glebe.kube import resources as r
from glebe.kube.clock import Env
from glebe.kube.errors import ApiError
from glebe.platform import bootstrap
from glebe.platform.door import open_door
from glebe.platform.jobspec import JobRequest, build
from glebe.platform.webhook import CONFIGURATIONS, NAME, serve

pytestmark = [pytest.mark.cluster, pytest.mark.realtime]


async def test_queued_jobs_are_suspended_and_gated_and_bad_ones_refused(tmp_path: Path) -> None:
    with real_kubernetes(tmp_path) as peer:
        client = peer.client()
        await peer.ready(client)
        await bootstrap.install_crds(client)
        await bootstrap.wait_established(client)
        env = Env.system()
        async with open_door(env, "127.0.0.1:0") as door, serve(client, env, "glebe-system", door):
            queued = await client.create(r.JOBS, build(JobRequest(name="queued", command=["x"]))[1])
            assert queued["spec"]["suspend"] is True
            assert queued["spec"]["template"]["spec"]["schedulingGates"] == [{"name": "kueue.x-k8s.io/topology"}]
            free = build(JobRequest(name="free", command=["x"]))[1]
            free["metadata"]["labels"] = {}
            assert (await client.create(r.JOBS, free))["spec"].get("suspend") is False
            with pytest.raises(ApiError) as caught:
                await client.create(r.JOBS, build(JobRequest(name="bad", command=["x"], job_class="nosuch"))[1])
            assert "glebe.dev/class" in caught.value.message
        with pytest.raises(ApiError) as refused:
            await client.create(r.JOBS, build(JobRequest(name="late", command=["x"]))[1])
        assert "queue.glebe.dev" in refused.value.message, "without the webhook nobody jumps the queue"
        assert (await client.get(CONFIGURATIONS, NAME))["webhooks"][0]["failurePolicy"] == "Fail"
        await client.close()
