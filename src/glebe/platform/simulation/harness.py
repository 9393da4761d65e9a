"""One seed, one run: build the platform, drive the load, inject faults, settle, judge.

A run has two parts. While the load lasts, anything may fail and the :class:`~.invariants.Checker` judges every write.
Then faults stop, dead nodes return, and the platform must settle: every job that can run has run, nothing is left over,
and the ledger agrees with the checker's own books.
"""

from __future__ import annotations

import asyncio
import hashlib
import logging
import random
import sqlite3
from collections import Counter
from contextlib import closing
from dataclasses import dataclass, field, replace
from pathlib import Path
from tempfile import TemporaryDirectory

import orjson

from glebe.kube import virtualtime
from glebe.kube.client import Client
from glebe.kube.clock import Env
from glebe.kube.errors import ApiError, is_not_found
from glebe.kube.objects import Object
from glebe.kube.resources import JOBS, PODS, Resource
from glebe.kube.transport import Transport
from glebe.platform.embedded import Platform
from glebe.platform.simulation import contest, settled, tenants
from glebe.platform.simulation.applications import applications
from glebe.platform.simulation.assembly import simulated_platform
from glebe.platform.simulation.faults import FaultRates, FaultyTransport
from glebe.platform.simulation.invariants import Checker, Violation
from glebe.platform.simulation.load import Action, Load, generate

log = logging.getLogger("glebe.simulation")

SETTLE_SECONDS = 3600.0
LEDGER_SECONDS = 400.0
CRASH_DOWNTIME = 4.0
TENANTS = 4
"""With every fourth seed several logical clusters follow."""
SPAN = 240.0
APPLICATIONS = 8
"""Each so many seeds have applications beside their jobs."""


@dataclass(frozen=True, slots=True)
class Report:
    """What one seed did. ``digest`` is equal for two runs of one seed."""

    seed: int
    simulated_seconds: float
    writes: int
    faults: int
    outcomes: dict[str, int]
    digest: str
    violation: str = ""


@dataclass(slots=True)
class Run:
    """The state of one run in progress."""

    seed: int
    load: Load
    env: Env
    checker: Checker
    rates: FaultRates
    transports: list[FaultyTransport] = field(default_factory=list)
    digest: hashlib._Hash = field(default_factory=hashlib.sha256)
    violation: str = ""
    downtimes: list[asyncio.Task[None]] = field(default_factory=list)
    down: set[str] = field(default_factory=set)  # parts that have crashed and are not back

    def wrap(self, part: str, transport: Transport) -> Transport:
        """The platform asks for every component's transport here."""
        rng = random.Random(f"faults-{self.seed}-{part}-{len(self.transports)}")
        faulty = FaultyTransport(transport, rng, self.rates)
        faulty.active = self.rates != FaultRates.none()
        self.transports.append(faulty)
        return faulty

    def on_commit(self, group_resource: str, namespace: str, name: str, body: bytes | None, revision: int) -> None:
        """The store tells every committed write, before anybody else learns of it."""
        self.digest.update(f"{revision} {group_resource} {namespace}/{name}".encode())
        self.digest.update(body or b"-")
        if self.violation:
            return
        try:
            self.checker.observe(group_resource, namespace, name, orjson.loads(body) if body else None, revision)
        except Violation as violation:
            self.violation = str(violation)

    def stop_faults(self) -> None:
        self.rates = FaultRates.none()
        for transport in self.transports:
            transport.active = False


def simulate(seed: int, rates: FaultRates | None = None) -> Report:
    """Run one seed to its end under virtual time; never raises for a broken invariant, reports it."""
    rates = rates or FaultRates()
    with TemporaryDirectory(prefix="glebe-simulation-") as folder:
        report = virtualtime.run(_simulate(seed, rates, Path(folder)))
        if report.violation or seed % TENANTS:
            return report
        violation, writes, injected = virtualtime.run(tenants.run(seed, rates, Path(folder)))
        text = f"tenants: {violation}" if violation else ""
        return replace(report, writes=report.writes + writes, faults=report.faults + injected, violation=text)


async def _simulate(seed: int, rates: FaultRates, folder: Path) -> Report:
    env = Env.seeded(seed)
    run = Run(seed, _load(seed), env, Checker(env.clock.now), rates)
    async with simulated_platform(
        run.load.fleet, env, folder, run.wrap, run.on_commit, run.load.queue_config
    ) as platform:
        await _create_all(platform.client, run.load.queues)
        for action in run.load.actions:
            await _until(action.at)
            if run.violation:
                break
            await _act(run, platform, action)
        await _settle(run, platform)
    injected = sum(t.injected for t in run.transports)
    loop_time = asyncio.get_running_loop().time()
    outcomes = Counter(settled.outcome(job) for job in run.checker.world.all("jobs.batch"))
    return Report(
        seed, loop_time, run.checker.writes, injected, dict(outcomes), run.digest.hexdigest()[:16], run.violation
    )


def _load(seed: int) -> Load:
    """Jobs; with every third seed applications, too."""
    load = generate(seed)
    if seed % APPLICATIONS:
        return load
    objects, actions = applications(seed, SPAN)
    together = sorted([*load.actions, *actions], key=lambda a: (a.at, a.verb, a.name))
    return replace(load, queues=[*load.queues, *objects], actions=together)


async def _until(at: float) -> None:
    await asyncio.sleep(max(0.0, at - asyncio.get_running_loop().time()))


async def _create_all(client: Client, objects: list[Object]) -> None:
    for obj in objects:
        group, _, version = obj["apiVersion"].rpartition("/")
        kind = obj["kind"]
        plural = kind[:-1].lower() + "ies" if kind.endswith("y") else kind.lower() + ("es" if kind[-1] == "s" else "s")
        await client.create(Resource(group, version, plural, kind, "namespace" in obj["metadata"]), obj)


async def _act(run: Run, platform: Platform, action: Action) -> None:
    """Do one thing of the load, as a user without faults between himself and the server."""
    if action.verb == "submit":
        assert action.manifest is not None
        await platform.client.create(JOBS, action.manifest)
    elif action.resource is not None:
        await _act_on_application(platform.client, action.resource, action)
    elif action.verb == "evict":
        await _evict(run, platform.client, action)
    elif action.verb == "cancel":
        try:
            await platform.client.delete(JOBS, action.name, action.namespace, propagation="Background")
        except ApiError as error:
            if not is_not_found(error):
                raise
    elif action.verb == "decide":
        await contest.decide(platform.client, run.checker.world, action.name, run.env.clock.now())
    elif action.verb == "fail-node":
        platform.simulated_nodes.fail_node(action.name)
    elif action.verb == "recover-node":
        platform.simulated_nodes.recover_node(action.name)
    elif action.verb == "crash":
        if action.name in run.down:
            return
        run.down.add(action.name)
        await platform.crash(action.name)
        run.downtimes.append(asyncio.create_task(_restart_later(run, platform, action.name)))


async def _act_on_application(client: Client, resource: Resource, action: Action) -> None:
    if action.verb == "create":
        assert action.manifest is not None
        await client.create(resource, action.manifest)
        return
    try:
        if action.verb == "delete":
            await client.delete(resource, action.name, action.namespace, propagation="Background")
        else:
            await client.patch(resource, action.name, action.manifest, action.namespace, kind="strategic")
    except ApiError as error:
        if not is_not_found(error):
            raise


async def _evict(run: Run, client: Client, action: Action) -> None:
    """Evict a pod of an application, as a drain does; a budget may refuse."""
    pods = [p["metadata"] for p in run.checker.world.all("pods")]
    names = sorted(meta["name"] for meta in pods if meta["namespace"] == action.namespace)
    if not names:
        return
    name = random.Random(action.name).choice(names)
    body = {"apiVersion": "policy/v1", "kind": "Eviction", "metadata": {"name": name, "namespace": action.namespace}}
    try:
        await client.create(PODS, body, action.namespace, name=name, subresource="eviction")
    except ApiError as error:
        if error.code != 429 and not is_not_found(error):
            raise


async def _restart_later(run: Run, platform: Platform, part: str) -> None:
    await asyncio.sleep(CRASH_DOWNTIME)
    run.down.discard(part)
    await platform.restart(part)


async def _settle(run: Run, platform: Platform) -> None:
    """Faults off, everything up; then nothing may be left to do."""
    await asyncio.gather(*run.downtimes)
    run.stop_faults()
    deadline = asyncio.get_running_loop().time() + SETTLE_SECONDS
    left = settled.unfinished(run.checker.world)
    while left and not run.violation and asyncio.get_running_loop().time() < deadline:
        await contest.decide(platform.client, run.checker.world, "yes", run.env.clock.now())
        for name, namespace in (*settled.never_starting(run.checker.world), *contest.denied(run.checker.world)):
            await platform.client.delete(JOBS, name, namespace, propagation="Background")
        await asyncio.sleep(5)
        left = settled.unfinished(run.checker.world)
    if left and not run.violation:
        run.violation = f"not settled after {SETTLE_SECONDS:.0f} s without faults: {'; '.join(left[:5])}"
    if not run.violation:
        run.violation = await _ledger_verdict(run, platform)


async def _ledger_verdict(run: Run, platform: Platform) -> str:
    """The ledger may still sit behind a watch that went silent: its reflector gives that up in its own time."""
    deadline = asyncio.get_running_loop().time() + LEDGER_SECONDS
    while True:
        await asyncio.sleep(10)
        verdict = settled.ledger_disagrees(run.checker, _recorded(platform), run.env.clock.now())
        if not verdict or asyncio.get_running_loop().time() > deadline:
            return verdict


def _recorded(platform: Platform) -> dict[str, int | None]:
    """The uids of all pods in the ledger's file, with their end when the ledger had to estimate it."""
    with closing(sqlite3.connect(str(platform.config.ledger))) as db:
        rows = db.execute("SELECT uid, ended_at, estimated FROM allocations ORDER BY rowid")
        return {uid: end if estimated else None for uid, end, estimated in rows}  # the last word on a pod counts
