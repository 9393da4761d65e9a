"""A disk that is nearly full."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from test_node_podlife import c, events, status_of, until
from test_node_process import machine, phase

from glebe.kube.objects import condition_is_true
from glebe.node.contracts import AdmissionError
from glebe.node.process.pressure import LASTS, MOST, DiskPressure

GIB = 1 << 30


@pytest.mark.parametrize(
    ("total", "free", "under"),
    [(100 * GIB, 2 * GIB, False), (100 * GIB, MOST - 1, True), (10 * GIB, GIB, False), (10 * GIB, GIB // 4, True)],
)
async def test_pressure_begins_late_and_lasts(total: int, free: int, under: bool) -> None:
    now, told, room = [1000.0], [], [free]
    pressure = DiskPressure(Path("/"), lambda: now[0], list, lambda: told.append(1), lambda _: (total, room[0]))
    await pressure.look()
    assert (pressure.under, len(told)) == (under, int(under))
    room[0] = total
    now[0] += LASTS - 1
    await pressure.look()
    assert pressure.under is under
    now[0] += 1
    await pressure.look()
    assert not pressure.under
    assert len(told) == 2 * int(under)


async def test_the_node_says_so_and_refuses_all_but_critical_pods() -> None:
    pressure = DiskPressure(Path("/"), lambda: 0.0, list, lambda: None, lambda _: (100 * GIB, 0))
    old = [{"type": "DiskPressure", "status": "False"}, {"type": "Ready", "status": "True"}]
    assert pressure.conditions(old) == old
    await pressure.look()
    made = {x["type"]: x for x in pressure.conditions(old)}
    assert (made["DiskPressure"]["status"], made["DiskPressure"]["reason"]) == ("True", "KubeletHasDiskPressure")
    with pytest.raises(AdmissionError, match=r"The node had condition: \[DiskPressure\]") as refusal:
        pressure.refuse({"spec": {}})
    assert refusal.value.reason == "Evicted"
    pressure.refuse({"spec": {"priority": 2_000_001_000}})


@pytest.mark.realtime
async def test_who_uses_the_most_is_evicted(tmp_path: Path) -> None:
    async with machine(tmp_path) as (w, node):
        asked: dict[str, Any] = {"requests": {"ephemeral-storage": "1Gi"}}
        for name, mebibytes, more in (("small", 1, {}), ("big", 4, {}), ("entitled", 8, {"resources": asked})):
            script = f"head -c {mebibytes << 20} /dev/zero > fill; touch filled; sleep 60"
            await w.pod(name, "local", containers=[c(script, **more)], terminationGracePeriodSeconds=3)
            pod = await until(w, name, lambda p: status_of(p)["state"].get("running"))
            work = tmp_path / "local" / "pods" / pod["metadata"]["uid"] / "c" / "work"

            async def filled(work: Path = work) -> bool:
                return (work / "filled").exists()

            await w.until(filled, timeout=5, every=0.02)
        pressure = DiskPressure(
            tmp_path, w.env.clock.now, node._runners.values, lambda: None, lambda _: (100 * GIB, 1 << 20)
        )
        await pressure.look()
        pod = await phase(w, "big", "Failed")
        assert pod["status"]["reason"] == "Evicted"
        text = pod["status"]["message"]
        assert text.startswith(
            "The node was low on resource: ephemeral-storage. Threshold quantity: 1073741824, available: 1024Ki. "
            "Container c was using 4"
        )
        assert text.endswith("request is 0, has larger consumption of ephemeral-storage. ")
        assert condition_is_true(pod, "DisruptionTarget")
        assert ("Evicted", text, "") in await events(w, "big")
        for name in ("small", "entitled"):
            assert (await w.get(name))["status"]["phase"] == "Running"
