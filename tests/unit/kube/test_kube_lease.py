from __future__ import annotations

import asyncio
import contextlib

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from kube_fake import FakeServer, make

from glebe.kube import errors, virtualtime
from glebe.kube.client import Client
from glebe.kube.clock import Env, FixedClock
from glebe.kube.lease import FencedTransport, LeaderElector, LeadershipLost, NotLeading
from glebe.kube.resources import LEASES, PODS
from glebe.kube.transport import ConnectionLost, Request, Response


class Link:
    """One candidate's connection, which can break or hang without the others noticing."""

    def __init__(self, server: FakeServer) -> None:
        self.server = server
        self.mode = "up"

    async def send(self, request: Request) -> Response:
        if self.mode == "down":
            raise ConnectionLost("down")
        if self.mode == "hang":
            await asyncio.sleep(3600)
        response = await self.server.send(request)
        if self.mode == "deaf":  # the request arrives, the answer does not
            raise ConnectionLost("deaf")
        return response

    async def close(self) -> None:
        pass


class Candidate:
    def __init__(self, server: FakeServer, name: str, seed: int = 1) -> None:
        self.link = Link(server)
        # every candidate has a clock of its own, and they disagree by hours
        env = Env.seeded(seed, FixedClock(1e9 + 7200 * seed))
        self.elector = LeaderElector(Client(self.link), env, "glebe", "x", name)
        self.fenced = Client(FencedTransport(self.link, self.elector.fence))
        self.started: list[float] = []
        self.stop = asyncio.Event()

    async def work(self) -> None:
        self.started.append(asyncio.get_running_loop().time())
        await self.stop.wait()

    def start(self) -> asyncio.Task[None]:
        return asyncio.create_task(self.elector.run(self.work))


async def end(*tasks: asyncio.Task[None]) -> None:
    for task in tasks:
        task.cancel()
    await asyncio.gather(*tasks, return_exceptions=True)


async def test_one_leads_and_renews_and_the_record_says_so() -> None:
    server = FakeServer()
    a, b = Candidate(server, "a", 1), Candidate(server, "b", 2)
    tasks = [a.start(), b.start()]
    await asyncio.sleep(300)
    assert a.elector.is_leader()
    assert not b.elector.is_leader()
    assert b.elector.holder == "a"
    lease = await Client(server).get(LEASES, "glebe", "x")
    assert lease["spec"]["holderIdentity"] == "a"
    assert lease["spec"]["leaseTransitions"] == 0
    assert lease["spec"]["leaseDurationSeconds"] == 15
    assert lease["spec"]["acquireTime"].endswith("Z")
    await end(*tasks)


async def test_a_leader_that_ends_gives_the_lease_back() -> None:
    server = FakeServer()
    a, b = Candidate(server, "a", 1), Candidate(server, "b", 2)
    first = a.start()
    await asyncio.sleep(30)
    second = b.start()
    await asyncio.sleep(10)
    a.stop.set()
    await first
    assert not a.elector.is_leader()
    await asyncio.sleep(3)
    assert b.elector.is_leader()
    spec = (await Client(server).get(LEASES, "glebe", "x"))["spec"]
    assert (spec["holderIdentity"], spec["leaseTransitions"]) == ("b", 1)
    await end(second)
    assert (await Client(server).get(LEASES, "glebe", "x"))["spec"]["holderIdentity"] == ""


@pytest.mark.parametrize("mode", ["down", "hang", "deaf"])
async def test_a_leader_that_cannot_renew_is_fenced_before_another_leads(mode: str) -> None:
    server = FakeServer()
    a, b = Candidate(server, "a", 1), Candidate(server, "b", 2)
    first = a.start()
    await asyncio.sleep(30)
    second = b.start()
    await asyncio.sleep(30)
    await a.fenced.create(PODS, make("ok"))
    a.link.mode = mode
    for _ in range(200):
        await asyncio.sleep(0.25)
        assert not (a.elector.is_leader() and b.elector.is_leader())
        if first.done():
            break
    with pytest.raises(LeadershipLost):
        await first
    with pytest.raises(NotLeading, match="does not lead"):
        await a.fenced.create(PODS, make("late"))
    a.link.mode = "up"
    assert (await a.fenced.get(PODS, "ok", "default"))["kind"] == "Pod"  # reads pass
    if mode != "deaf":
        await asyncio.sleep(25)
        assert b.elector.is_leader()
    again = a.start()  # and it may stand again
    await asyncio.sleep(60)
    assert a.elector.is_leader() != b.elector.is_leader()
    await end(second, again)


async def test_a_stolen_lease_ends_leadership_at_once() -> None:
    server = FakeServer()
    a = Candidate(server, "a")
    task = a.start()
    await asyncio.sleep(5)
    await Client(server).patch(LEASES, "glebe", {"spec": {"holderIdentity": "thief"}}, "x")
    await asyncio.sleep(4)
    assert not a.elector.is_leader()
    with pytest.raises(LeadershipLost, match="thief"):
        await task


async def test_conflicts_and_errors_while_standing_are_no_leadership() -> None:
    server = FakeServer()

    def refuse(request: Request) -> Response | None:
        if request.method != "GET":
            raise errors.modified("", "leases", "glebe")
        return None

    server.fault = refuse
    a = Candidate(server, "a")
    task = a.start()
    await asyncio.sleep(30)
    assert not a.elector.is_leader()
    assert a.started == []
    server.fault = lambda _: None
    await asyncio.sleep(5)
    assert a.elector.is_leader()
    await end(task)


async def test_what_work_raises_comes_out() -> None:
    server = FakeServer()
    a = Candidate(server, "a")

    async def fail() -> None:
        raise RuntimeError("boom")

    with pytest.raises(RuntimeError, match="boom"):
        await a.elector.run(fail)
    assert (await Client(server).get(LEASES, "glebe", "x"))["spec"]["holderIdentity"] == ""


def test_deadlines_must_make_sense() -> None:
    with pytest.raises(ValueError, match="lease_duration"):
        LeaderElector(Client(FakeServer()), Env.seeded(1), "n", "x", "a", lease_duration=10, renew_deadline=10)


STEPS = st.lists(
    st.tuples(
        st.integers(0, 2),
        st.sampled_from(["up", "up", "down", "hang", "deaf", "restart"]),
        st.sampled_from([0.1, 1.0, 4.0, 9.0, 20.0]),
    ),
    max_size=25,
)


async def never_two(steps: list[tuple[int, str, float]]) -> None:
    server = FakeServer()
    candidates = [Candidate(server, f"c{n}", n + 1) for n in range(3)]

    async def life(candidate: Candidate) -> None:
        while True:
            try:
                await candidate.elector.run(lambda: act(candidate))
            except LeadershipLost:
                await asyncio.sleep(0.5)

    async def act(candidate: Candidate) -> None:
        while True:
            leaders = [c for c in candidates if c.elector.is_leader()]
            assert len(leaders) <= 1, "two lead at once"
            with contextlib.suppress(ConnectionLost):
                await candidate.fenced.transport.send(Request("POST", "/api/v1/namespaces/x/configmaps"))
            await asyncio.sleep(0.5)

    server.fault = lambda r: Response(201, {}, b"{}") if r.path.endswith("configmaps") else None
    tasks = [asyncio.create_task(life(c)) for c in candidates]
    for who, what, pause in steps:
        if what == "restart":
            tasks[who].cancel()
            await asyncio.gather(tasks[who], return_exceptions=True)
            tasks[who] = asyncio.create_task(life(candidates[who]))
        else:
            candidates[who].link.mode = what
        await asyncio.sleep(pause)
        for task in tasks:
            assert not task.done(), task.exception()
    for candidate in candidates:
        candidate.link.mode = "up"
    await asyncio.sleep(60)
    assert sum(c.elector.is_leader() for c in candidates) == 1
    await end(*tasks)


@settings(max_examples=40, deadline=None)
@given(STEPS)
def test_never_two_leaders(steps: list[tuple[int, str, float]]) -> None:
    virtualtime.run(never_two(steps))
