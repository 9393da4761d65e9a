"""What is known elsewhere and only read when somebody scrapes: fairness, storage, watches, controllers, the process."""

from __future__ import annotations

import contextlib
import os
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING

from glebe.apiserver.metrics.families import Families, Family, Histogram, Values
from glebe.apiserver.metrics.requests import OTHER, Requests
from glebe.apiserver.types import release
from glebe.kube import controller

if TYPE_CHECKING:
    from glebe.apiserver.fairness.gate import Gate
    from glebe.apiserver.server import ApiServer

_LEVEL, _SCHEMA = "priority_level", "flow_schema"
_KIND = ("group", "version", "resource")
_ADMISSION = (0.005, 0.025, 0.1, 0.5, 1.0, 2.5)
Tuple = tuple[str, ...]


class WatchEvents:
    """Events sent to watchers, by kind."""

    def __init__(self, requests: Requests, families: Families) -> None:
        self._kind = requests.kind
        self._sent: dict[tuple[str, str, str], list[int]] = {}
        families.reading("apiserver_watch_events_total", "Events sent to watchers.", _KIND, self._read, "counter")

    def cell(self, group: str, version: str, resource: str) -> list[int]:
        """Where a watcher of the kind counts its events."""
        kind = self._kind(group, version, resource)[:3]
        return self._sent.setdefault((kind[0], kind[1], kind[2]), [0])

    def _read(self) -> Values:
        return {kind: float(cell[0]) for kind, cell in self._sent.items()}


def admission(families: Families) -> Histogram:
    """Times of the two phases of admission."""
    return families.histogram(
        "apiserver_admission_step_admission_duration_seconds",
        "Time that all plugins together take for a write, by phase (admit, validate).",
        ("type",),
        _ADMISSION,
    )


def install(server: ApiServer, requests: Requests, families: Families) -> None:
    """Everything that is only read."""
    _fairness(server, families)
    _requests(server, requests, families)
    _storage(server, families)
    _controllers(families)
    _process(families)
    one: Values = {(f"v{release.chosen()}.{release.PATCHES[release.chosen()]}+glebe",): 1.0}
    families.reading("kubernetes_build_info", "The version that is served.", ("git_version",), lambda: one)


def _fairness(server: ApiServer, families: Families) -> None:
    def levels(measure: Callable[[Gate], dict[str, float]]) -> Callable[[], Values]:
        return lambda: {(k,): v for k, v in measure(server.gate).items()} if server.gate is not None else {}

    def gate(measure: Callable[[Gate], Values]) -> Callable[[], Values]:
        return lambda: measure(server.gate) if server.gate is not None else {}

    put, flow = families.reading, "apiserver_flowcontrol_"
    put(
        flow + "dispatched_requests_total",
        "Requests that began, by priority level and flow schema.",
        (_LEVEL, _SCHEMA),
        gate(lambda g: {k: float(t.dispatched) for k, t in g.tallies.items()}),
        "counter",
    )
    put(
        flow + "rejected_requests_total",
        "Requests that were refused, by priority level, flow schema and reason.",
        (_LEVEL, _SCHEMA, "reason"),
        gate(lambda g: {k: float(v) for k, v in g.rejected.items()}),
        "counter",
    )
    put(
        flow + "current_executing_seats",
        "Seats in use, by priority level, of all logical clusters.",
        (_LEVEL,),
        levels(lambda g: g.by_level(lambda use: float(use.used))),
    )
    put(
        flow + "current_inqueue_requests",
        "Requests that wait, by priority level, of all logical clusters.",
        (_LEVEL,),
        levels(lambda g: g.by_level(lambda use: float(use.order.live))),
    )
    put(
        flow + "nominal_limit_seats",
        "Seats of each priority level, in each logical cluster that has not changed it.",
        (_LEVEL,),
        levels(lambda g: g.nominal()),
    )
    _self_defence(families, gate)


def _self_defence(families: Families, gate: Callable[[Callable[[Gate], Values]], Callable[[], Values]]) -> None:
    """What is in progress, and what was ended or refused before it began."""
    put = families.reading
    put(
        "apiserver_current_inflight_requests",
        "Requests in progress, by kind; without the platform's own and long-running ones.",
        ("request_kind",),
        gate(lambda g: {("readOnly",): float(g.reads), ("mutating",): float(g.writes)}),
    )
    put(
        "apiserver_current_inqueue_requests",
        "Requests that wait for their turn or a seat.",
        (),
        gate(lambda g: {(): float(g.turns.waiting)}),
    )
    put(
        "apiserver_request_terminations_total",
        "Requests that the server ended to protect itself, by code.",
        ("code",),
        gate(lambda g: {k: float(v) for k, v in g.terminated.items()}),
        "counter",
    )
    put(
        "glebe_budget_refusals_total",
        "Requests and watches refused because a logical cluster's or user's budget was used up.",
        ("budget",),
        gate(lambda g: {k: float(v) for k, v in g.over_budget.items()}),
        "counter",
    )


def _requests(server: ApiServer, requests: Requests, families: Families) -> None:
    def long() -> Values:
        out: Counter[Tuple] = Counter()
        for kind, many in server.gate.watching.open.items() if server.gate is not None else ():
            out["WATCH", *requests.kind(*kind)[:3]] += many
        return out

    families.reading(
        "apiserver_longrunning_requests",
        "Open watches of clients, by kind; without the platform's own.",
        ("verb", *_KIND),
        long,
    )

    def audit(what: str) -> Callable[[], Values]:
        return lambda: {(): float(getattr(server.audit_log, what))} if server.audit_log is not None else {}

    families.reading("apiserver_audit_event_total", "Audit events written.", (), audit("written"), "counter")
    families.reading(
        "apiserver_audit_error_total", "Audit events that could not be written.", (), audit("dropped"), "counter"
    )
    families.reading(
        "glebe_logical_clusters", "Logical clusters.", (), lambda: {(): float(len(server.clusters.names()))}
    )


def _storage(server: ApiServer, families: Families) -> None:
    def objects() -> Values:
        out: Counter[Tuple] = Counter()
        for resource, many in server.store.counts().items():
            plural, _, group = resource.partition(".")
            out[(resource if server.registry.is_builtin(group, plural) else OTHER,)] += many
        return out

    families.reading(
        "apiserver_storage_objects", "Stored objects by resource, of all logical clusters.", ("resource",), objects
    )
    families.reading(
        "glebe_storage_commits_total",
        "Transactions that this server's database made durable; many writes may share one.",
        (),
        lambda: {(): float(server.store.commits)},
        "counter",
    )
    families.reading(
        "glebe_storage_commit_seconds_total",
        "Time that these transactions took together.",
        (),
        lambda: {(): server.store.commit_seconds},
        "counter",
    )
    families.reading("glebe_storage_revision", "The newest revision.", (), lambda: {(): float(server.store.revision)})
    families.reading(
        "glebe_storage_writable", "1 while the storage takes writes.", (), lambda: {(): float(not server.store.trouble)}
    )


def _controllers(families: Families) -> None:
    def each(measure: Callable[[controller.Controller], float]) -> Callable[[], Values]:
        def read() -> Values:
            out: Counter[Tuple] = Counter()
            for one in controller.running():
                out[(one.name,)] += measure(one)  # type: ignore[assignment]
            return out

        return read

    put = families.reading
    put("workqueue_depth", "Keys that wait, by controller.", ("name",), each(lambda c: len(c.queue)))
    put("workqueue_adds_total", "Keys added, by controller.", ("name",), each(lambda c: c.queue.added), "counter")
    put(
        "workqueue_working",
        "Keys that are being worked on, by controller.",
        ("name",),
        each(lambda c: c.queue.working),
    )
    put(
        "glebe_controller_reconciles_total",
        "Reconciliations that succeeded, by controller.",
        ("name",),
        each(lambda c: c.reconciled),
        "counter",
    )
    put(
        "glebe_controller_failures_total",
        "Reconciliations that failed and are tried again, by controller.",
        ("name",),
        each(lambda c: c.failed),
        "counter",
    )


def _process(families: Families) -> None:
    def one(read: Callable[[], float]) -> Callable[[], Values]:
        def safely() -> Values:
            with contextlib.suppress(OSError, ValueError, IndexError):
                return {(): read()}
            return {}

        return safely

    def field(number: int) -> float:
        fields = Path("/proc/self/stat").read_text(encoding="ascii").rpartition(")")[2].split()
        return float(fields[number])

    def limit() -> float:
        import resource  # not on every system

        return float(resource.getrlimit(resource.RLIMIT_NOFILE)[0])

    def began() -> float:
        text = Path("/proc/stat").read_text(encoding="ascii")
        boot = next(float(line.split()[1]) for line in text.splitlines() if line.startswith("btime"))
        return boot + field(19) / os.sysconf("SC_CLK_TCK")

    def cpu() -> float:
        times = os.times()
        return times.user + times.system

    put = families.put
    for name, text, kind, read in (
        ("process_cpu_seconds_total", "Processor time of this process, seconds.", "counter", cpu),
        (
            "process_resident_memory_bytes",
            "Resident memory.",
            "gauge",
            lambda: field(21) * os.sysconf("SC_PAGE_SIZE"),
        ),
        ("process_virtual_memory_bytes", "Virtual memory.", "gauge", lambda: field(20)),
        ("process_open_fds", "Open files.", "gauge", lambda: float(len(os.listdir("/proc/self/fd")))),
        ("process_max_fds", "Files that may be open.", "gauge", limit),
        ("process_start_time_seconds", "When the process began, Unix time.", "gauge", began),
    ):
        put(Family(name, text, kind=kind, read=one(read)))
