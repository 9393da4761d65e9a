"""CronJobs on the real API server, over hours and days of virtual time."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from workloads_stage import Stage, events, names, stage, until

from glebe.kube.client import Client
from glebe.kube.clock import LoopClock, format_time, parse_time
from glebe.kube.cron import parse
from glebe.kube.objects import Object
from glebe.kube.resources import CRON_JOBS, JOBS
from glebe.workloads.cronjob import controller
from glebe.workloads.cronjob.reconcile import Facts, reconcile
from glebe.workloads.cronjob.times import NeverDue, look, until_next

ONE = (controller.build,)
NOW = LoopClock.EPOCH  # 2026-01-01T00:00:00Z, a Thursday
MINUTE = int(NOW) // 60


def make(name: str = "tick", schedule: str = "*/5 * * * *", **spec: Any) -> Object:
    pod = {"containers": [{"name": "main", "image": "x"}], "restartPolicy": "Never"}
    job = {"metadata": {"labels": {"l": "1"}, "annotations": {"a": "2"}}, "spec": {"template": {"spec": pod}}}
    return {
        "apiVersion": "batch/v1",
        "kind": "CronJob",
        "metadata": {"name": name, "namespace": "default"},
        "spec": {"schedule": schedule, "jobTemplate": job, **spec},
    }


async def end(client: Client, name: str, kind: str = "Complete") -> None:
    """As the Job controller would."""
    job = await client.get(JOBS, name, "default")
    now = job["metadata"]["creationTimestamp"]
    passing = {"Complete": "SuccessCriteriaMet", "Failed": "FailureTarget"}[kind]
    conditions = [{"type": t, "status": "True", "lastTransitionTime": now} for t in (passing, kind)]
    status: Object = {"conditions": conditions, "startTime": now, "uncountedTerminatedPods": {}}
    if kind == "Complete":
        status |= {"completionTime": now, "succeeded": 1}
    else:
        status |= {"failed": 1}
    await client.update_status(JOBS, {**job, "status": status})


async def active(client: Client) -> list[str]:
    owner = await client.get(CRON_JOBS, "tick", "default")
    return [r["name"] for r in (owner.get("status") or {}).get("active") or ()]


async def reasons(world: Stage) -> list[str]:
    return [reason for reason, _ in await events(world.root)]


async def test_a_job_at_each_time_of_the_schedule() -> None:
    async with stage(ONE, kubelet=False) as world:
        await world.root.create(CRON_JOBS, make())
        await asyncio.sleep(15 * 60 + 10)
        expected = [f"tick-{MINUTE + i}" for i in (5, 10, 15)]
        assert await names(world.root, JOBS) == expected
        assert await active(world.root) == expected
        owner = await world.root.get(CRON_JOBS, "tick", "default")
        assert owner["status"]["lastScheduleTime"] == format_time(NOW + 900)
        job = await world.root.get(JOBS, expected[0], "default")
        assert parse_time(job["metadata"]["creationTimestamp"]) - NOW == 300
        assert job["metadata"]["annotations"] == {
            "a": "2",
            "batch.kubernetes.io/cronjob-scheduled-timestamp": "2026-01-01T00:05:00Z",
        }
        assert job["metadata"]["labels"]["l"] == "1"
        assert job["metadata"]["ownerReferences"][0]["uid"] == owner["metadata"]["uid"]
        assert ("SuccessfulCreate", f"Created job {expected[0]}") in await events(world.root)


async def test_time_zones_count() -> None:
    async with stage(ONE, kubelet=False) as world:
        await world.root.create(CRON_JOBS, make(schedule="0 9 * * *", timeZone="America/New_York"))
        await asyncio.sleep(24 * 3600)
        (job,) = (await world.root.list(JOBS)).items
        stamp = job["metadata"]["annotations"]["batch.kubernetes.io/cronjob-scheduled-timestamp"]
        assert stamp == "2026-01-01T09:00:00-05:00"
        assert parse_time(job["metadata"]["creationTimestamp"]) == NOW + 14 * 3600


async def test_forbid_waits_for_the_one_before() -> None:
    async with stage(ONE, kubelet=False) as world:
        await world.root.create(CRON_JOBS, make(concurrencyPolicy="Forbid"))
        await asyncio.sleep(12 * 60)
        assert await names(world.root, JOBS) == [f"tick-{MINUTE + 5}"]
        assert "JobAlreadyActive" in await reasons(world)
        await end(world.root, f"tick-{MINUTE + 5}")
        await asyncio.sleep(5)  # the time that was missed is made up for at once
        assert await active(world.root) == [f"tick-{MINUTE + 10}"]
        assert ("SawCompletedJob", f"Saw completed job: tick-{MINUTE + 5}, condition: Complete") in await events(
            world.root
        )


async def test_replace_ends_the_one_before() -> None:
    async with stage(ONE, kubelet=False) as world:
        await world.root.create(CRON_JOBS, make(concurrencyPolicy="Replace"))
        await asyncio.sleep(5 * 60 + 5)
        assert await active(world.root) == [f"tick-{MINUTE + 5}"]
        await asyncio.sleep(5 * 60)
        assert await active(world.root) == [f"tick-{MINUTE + 10}"]
        assert ("SuccessfulDelete", f"Deleted job tick-{MINUTE + 5}") in await events(world.root)


async def test_suspended_nothing_happens_and_a_deadline_decides_what_is_made_up_for() -> None:
    async with stage(ONE, kubelet=False) as world:
        await world.root.create(CRON_JOBS, make(suspend=True, startingDeadlineSeconds=60))
        await asyncio.sleep(3600 + 150)
        assert await names(world.root, JOBS) == []
        await world.root.patch(CRON_JOBS, "tick", {"spec": {"suspend": False}}, "default")
        await asyncio.sleep(100)
        assert await names(world.root, JOBS) == []
        await asyncio.sleep(100)
        assert await names(world.root, JOBS) == [f"tick-{MINUTE + 65}"]


async def test_of_many_missed_times_only_the_last_is_made_up_for_with_a_warning() -> None:
    async with stage(ONE, kubelet=False) as world:
        await world.root.create(CRON_JOBS, make(schedule="* * * * *", suspend=True))
        await asyncio.sleep(4 * 3600 + 30)
        await world.root.patch(CRON_JOBS, "tick", {"spec": {"suspend": False}}, "default")
        await asyncio.sleep(5)
        assert await names(world.root, JOBS) == [f"tick-{MINUTE + 240}"]
        assert "TooManyMissedTimes" in await reasons(world)


async def test_finished_jobs_are_kept_to_the_limits() -> None:
    async with stage(ONE, kubelet=False) as world:
        body = make(schedule="* * * * *", successfulJobsHistoryLimit=2, failedJobsHistoryLimit=1)
        await world.root.create(CRON_JOBS, body)
        await asyncio.sleep(5)
        for i in range(1, 7):
            await asyncio.sleep(60)
            await end(world.root, f"tick-{MINUTE + i}", "Complete" if i % 2 else "Failed")
        await asyncio.sleep(5)
        assert await names(world.root, JOBS) == [f"tick-{MINUTE + i}" for i in (3, 5, 6)]
        owner = await world.root.get(CRON_JOBS, "tick", "default")
        assert owner["status"]["lastSuccessfulTime"] == format_time(NOW + 300)
        assert "active" not in owner["status"]


async def test_a_job_that_vanished_is_not_waited_for() -> None:
    async with stage(ONE, kubelet=False) as world:
        await world.root.create(CRON_JOBS, make(concurrencyPolicy="Forbid"))
        await asyncio.sleep(5 * 60 + 5)
        await world.root.delete(JOBS, f"tick-{MINUTE + 5}", "default", propagation="Background")

        async def empty() -> bool:
            return not await active(world.root)

        await until(empty)
        assert ("MissingJob", f"Active job went missing: tick-{MINUTE + 5}") in await events(world.root)


async def test_a_new_schedule_counts_from_now() -> None:
    async with stage(ONE, kubelet=False) as world:
        await world.root.create(CRON_JOBS, make(schedule="0 6 * * *"))
        await asyncio.sleep(3600 + 90)
        await world.root.patch(CRON_JOBS, "tick", {"spec": {"schedule": "*/30 * * * *"}}, "default")
        await asyncio.sleep(60)
        assert await names(world.root, JOBS) == []
        await asyncio.sleep(30 * 60)
        assert await names(world.root, JOBS) == [f"tick-{MINUTE + 90}"]


async def test_a_job_whose_creation_was_not_written_down_is_found_again() -> None:
    """As after a crash between the two writes."""
    async with stage((), kubelet=False) as world:
        await world.root.create(CRON_JOBS, make())
        env, informers = world.env, world.informers

        async def live(seconds: float) -> None:
            made = controller.build(world.every, informers, env)
            run = asyncio.create_task(made.run())
            await asyncio.sleep(seconds)
            run.cancel()
            await asyncio.gather(run, return_exceptions=True)

        await live(5 * 60 + 5)
        owner = await world.root.get(CRON_JOBS, "tick", "default")
        await world.root.update_status(CRON_JOBS, {**owner, "status": {}})
        await live(20)
        assert await active(world.root) == [f"tick-{MINUTE + 5}"]
        assert await names(world.root, JOBS) == [f"tick-{MINUTE + 5}"]


async def test_clusters_have_their_own() -> None:
    async with stage(ONE, "a", "b", kubelet=False) as world:
        await world["a"].create(CRON_JOBS, make())
        await world["b"].create(CRON_JOBS, make(schedule="*/2 * * * *"))
        await asyncio.sleep(5 * 60 + 5)
        assert await names(world["a"], JOBS) == [f"tick-{MINUTE + 5}"]
        assert await names(world["b"], JOBS) == [f"tick-{MINUTE + 2}", f"tick-{MINUTE + 4}"]
        assert await names(world.root, JOBS) == []
        await world["b"].delete(CRON_JOBS, "tick", "default")
        await asyncio.sleep(5 * 60)
        assert len(await names(world["a"], JOBS)) == 2
        assert len(await names(world["b"], JOBS)) == 2


# --- decisions


@pytest.mark.parametrize(
    ("spec", "reason"),
    [
        ({"schedule": "99 * * * *"}, "UnparseableSchedule"),
        ({"schedule": "59 23 31 2 *"}, "InvalidSchedule"),
        ({"timeZone": "Nowhere/Land"}, "UnknownTimeZone"),
        ({"schedule": "TZ=UTC * * * * *"}, "UnsupportedSchedule"),
        ({"startingDeadlineSeconds": 10}, ""),
    ],
)
def test_what_is_wrong_is_said(spec: Object, reason: str) -> None:
    owner = make(**spec)
    owner["metadata"] |= {"uid": "u", "creationTimestamp": format_time(NOW)}
    plan = reconcile(Facts(owner, [], NOW + 330))
    assert [r for _, r, _ in plan.events] == ([reason] if reason else [])
    assert (plan.create is None) == (reason != "UnsupportedSchedule")


def test_a_missed_start_is_said() -> None:
    owner = make(startingDeadlineSeconds=-1)
    owner["metadata"] |= {"uid": "u", "creationTimestamp": format_time(NOW)}
    assert reconcile(Facts(owner, [], NOW + 301)).create is None


def test_a_schedule_without_times() -> None:
    with pytest.raises(NeverDue):
        look(parse("0 0 31 2 *"), NOW, NOW + 60)


@given(
    text=st.sampled_from(["* * * * *", "*/7 * * * *", "30 6-16/4 * * 1-5", "0 0 1 * *", "@every 1h30m", "5 4 * * 0"]),
    since=st.integers(0, 40 * 86400),
    passed=st.integers(0, 40 * 86400),
)
def test_what_is_due_is_the_last_time_that_has_come(text: str, since: int, passed: int) -> None:
    schedule, start = parse(text), NOW + since
    now = start + passed
    due = look(schedule, start, now)
    moment, last = schedule.next(start), None
    while moment is not None and moment <= now:
        last, moment = moment, schedule.next(moment)
    assert due.latest == last
    assert 0 < until_next(schedule, start, now) <= 32 * 86400
