"""Following one job from the queue to its end, event by event."""

from __future__ import annotations

import asyncio
import sys
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager, suppress
from logging import WARNING, Handler, LogRecord, getLogger

from glebe.cli.exits import Exit, Failure
from glebe.cli.read import failures_of
from glebe.cli.words import answer_line, count, failure_line
from glebe.kube import resources as r
from glebe.kube.client import Client
from glebe.kube.clock import Env, parse_time
from glebe.kube.duration import format_duration
from glebe.kube.errors import ApiError
from glebe.kube.informer import Informers
from glebe.kube.objects import Object
from glebe.kube.transport import ConnectionLost
from glebe.platform.jobspec import JOB_NAME_LABEL
from glebe.platform.views import ENDED, JobView, State, job_view

_MOST_FAILURES = 3  # of a gang, the others tell the same
_REPEAT_SECONDS = 60.0  # between two sentences that the platform is away
_RETRY_SECONDS = 0.5
_SETTLE_SECONDS = 0.05  # changes that come together are shown once


class Watched:
    """One job, its workload and its pods, kept up to date."""

    def __init__(self, informers: Informers, namespace: str, name: str) -> None:
        self._jobs = informers.get(r.JOBS, namespace=namespace, field_selector=f"metadata.name={name}")
        self._workloads = informers.get(r.WORKLOADS, namespace=namespace)
        self._pods = informers.get(r.PODS, namespace=namespace, label_selector=f"{JOB_NAME_LABEL}={name}")
        self._changed = asyncio.Event()
        for informer in (self._jobs, self._workloads, self._pods):
            informer.add_handler(lambda old, new: self._changed.set())

    async def views(self) -> AsyncIterator[tuple[JobView, list[Object]]]:
        """The job's view and pods, now and after every change; ends when the job is gone."""
        for informer in (self._jobs, self._workloads, self._pods):
            await informer.wait_synced()
        while True:
            self._changed.clear()
            job = next(iter(self._jobs.store.values()), None)
            if job is None:
                return
            pods = sorted(self._pods.store.values(), key=lambda pod: pod["metadata"]["name"])
            yield job_view(job, self._workload_of(job), pods), pods
            await self._changed.wait()
            await asyncio.sleep(_SETTLE_SECONDS)

    def _workload_of(self, job: Object) -> Object | None:
        uid = job["metadata"]["uid"]
        for workload in self._workloads.store.values():
            if any(owner.get("uid") == uid for owner in workload["metadata"].get("ownerReferences") or ()):
                return workload
        return None


class _Lost(Handler):
    """What the watches log while the platform is away, as one sentence now and then."""

    def __init__(self) -> None:
        super().__init__(WARNING)
        self._told = 0.0

    def emit(self, record: LogRecord) -> None:
        if record.created - self._told > _REPEAT_SECONDS:
            self._told = record.created
            print("the platform does not answer; waiting for it (Ctrl-C ends that, not the job)", file=sys.stderr)


@asynccontextmanager
async def watched(client: Client, namespace: str, name: str) -> AsyncIterator[Watched]:
    """A :class:`Watched` that is fed while the block runs; a lost server is waited for."""
    informers = Informers(client, Env.system())
    job = Watched(informers, namespace, name)
    feeding = asyncio.create_task(informers.run())
    lost, log = _Lost(), getLogger("glebe.kube")
    log.addHandler(lost)
    log.propagate = False
    try:
        yield job
    finally:
        log.propagate = True
        log.removeHandler(lost)
        feeding.cancel()
        with suppress(asyncio.CancelledError):
            await feeding


async def follow(client: Client, namespace: str, name: str, say: Callable[[str], None]) -> int:
    """Tell what happens to a job until it ends, with the log of rank 0; returns the exit code."""
    logging: asyncio.Task[None] | None = None
    promised: tuple[str, str] | None = None
    last = ""
    try:
        async with watched(client, namespace, name) as job:
            async for view, pods in job.views():
                if view.start_p50 and view.state is State.WAITING:
                    promised = (view.start_p50, view.start_p90 or view.start_p50)
                line = _line(view, Env.system().clock.now())
                if line != last and view.state not in ENDED:
                    say(line)
                    last = line
                if view.state is State.NEVER:
                    say(f"  it stays in the queue in case quota or fleet change; glebe cancel {name} removes it")
                    return Exit.NEVER_STARTS
                first = rank_pod(pods, 0)
                if logging is None and first is not None:
                    if view.started and promised:
                        say(_kept(view.started, promised))
                    logging = asyncio.create_task(print_log(client, first))
                if view.state in ENDED:
                    if logging is not None:
                        await logging
                    say(line)  # after the log, however quick the job was
                    for failure in [f for pod in pods for f in failures_of(pod)][:_MOST_FAILURES]:
                        say(f"  {failure_line(failure)}")
                    if view.state is State.STOPPED:
                        say(f"  it stays suspended; glebe cancel {name} removes it")
                    return Exit.OK if view.state is State.SUCCEEDED else Exit.FAILED
    finally:
        if logging is not None:
            logging.cancel()
    raise Failure(Exit.NOT_FOUND, f"{name} was deleted", "")


def _line(view: JobView, now: float) -> str:
    if view.state in (State.WAITING, State.NEVER):
        return f"{view.state}: {answer_line(view, now)}"
    if view.state is State.RUNNING:
        return f"{view.state}: {count(view.pods, 'pod')} with {count(view.gpus, 'GPU')} on {', '.join(view.nodes)}"
    return f"{view.state}: {view.message}" if view.message else str(view.state)


def _kept(started: str, promised: tuple[str, str]) -> str:
    """Predicted against actual start."""
    early, late = (parse_time(text) for text in promised)
    actual = parse_time(started)
    delta = actual - early
    word = "as predicted" if abs(delta) < 1 else f"{format_duration(abs(delta))} {'later' if delta > 0 else 'earlier'}"
    inside = "within" if actual <= late + 1 else "after"
    return f"  started {started}; last forecast P50 {promised[0]}, P90 {promised[1]} ({word}; {inside} P90)"


def rank_pod(pods: list[Object], rank: int) -> Object | None:
    """The newest pod of a rank that has started to run."""
    from glebe.cli.read import has_started, rank_of

    found = [pod for pod in pods if rank_of(pod) == rank and has_started(pod)]
    return max(found, key=lambda pod: pod["metadata"].get("creationTimestamp", ""), default=None)


async def print_log(client: Client, pod: Object) -> None:
    """Follow a pod's log to its end on stdout, across restarts of the platform; an error is said, not fatal."""
    meta = pod["metadata"]
    printed = 0
    while True:
        known = printed  # a log only grows: what was printed comes first again
        try:
            async for chunk in client.logs(meta["name"], meta["namespace"], follow=True):
                fresh = chunk[known:]
                known = max(0, known - len(chunk))
                printed += len(fresh)
                sys.stdout.buffer.write(fresh)
                sys.stdout.buffer.flush()
        except ApiError as error:
            print(f"the log of {meta['name']} broke off: {error}", file=sys.stderr)
        except ConnectionLost:
            await asyncio.sleep(_RETRY_SECONDS)
            continue
        return


async def wait_for_rank(client: Client, namespace: str, name: str, rank: int) -> Object | None:
    """Wait until a rank of the job runs; ``None`` when the job ended or can never start without that."""
    last = ""
    async with watched(client, namespace, name) as job:
        async for view, pods in job.views():
            pod = rank_pod(pods, rank)
            if pod is not None or view.state in ENDED or view.state is State.NEVER:
                return pod
            line = _line(view, Env.system().clock.now())
            if line != last:
                print(line, file=sys.stderr)
                last = line
    return None
