"""``glebe why JOB``: everything about one job's wait or run, with the reason first."""

from __future__ import annotations

from dataclasses import asdict
from typing import Annotated, Any

import typer

from glebe.cli.app import app
from glebe.cli.command import Session, verb
from glebe.cli.complete import job_names
from glebe.cli.exits import Exit

_MOST_FAILURES = 8  # shown to people


@verb(app)
async def why(
    session: Session, job: Annotated[str, typer.Argument(help="Name of the job.", autocompletion=job_names)]
) -> int:
    """Say why a job waits, runs or failed, and what would help."""
    from glebe.cli.read import failures_of, items, read_job
    from glebe.kube import resources as r
    from glebe.kube.clock import SystemClock
    from glebe.platform.views import State

    now = SystemClock().now()
    async with session.connect() as client:
        view, obj, workload, pods = await read_job(client, session.namespace, job)
        about = {o["metadata"].get("uid") for o in (obj, workload, *pods) if o}
        events = [e for e in await items(client, r.EVENTS, session.namespace) if _about(e) in about]
    recent = _recent(events)
    failures = [f for pod in pods for f in failures_of(pod)]
    if not session.out.for_people:
        session.out.document(asdict(view) | {"failures": failures, "events": recent})
    else:
        _explain(session, view, failures, recent, now)
    return Exit.NEVER_STARTS if view.state is State.NEVER else Exit.OK


def _explain(
    session: Session, view: Any, failures: list[dict[str, Any]], events: list[dict[str, Any]], now: float
) -> None:
    from glebe.cli.words import ago, count, failure_line, run_time, start_interval

    out = session.out
    out.line(f"{view.name} ({view.namespace}): {view.state}")
    facts: list[tuple[str, Any]] = [
        ("because", f"{view.message} [{view.reason}]" if view.message else view.reason),
        ("would help", view.remedy),
        ("position", view.position),
        ("GPUs ahead", view.gpus_ahead),
        ("start", start_interval(view.start_p50, view.start_p90, now) if not view.started else ""),
        ("P50", view.start_p50 if not view.started else ""),
        ("P90", view.start_p90 if not view.started else ""),
        ("kept for it", view.reserved_start),
        ("checks", ", ".join(f"{c['name']}: {c['state']}" for c in view.checks)),
        ("stopped for", view.preempted),
        ("evictions", ", ".join(f"{e['count']} x {e.get('underlyingCause') or e['reason']}" for e in view.evictions)),
        ("forecast made", f"{ago(now)(view.computed_at)} ago" if view.computed_at else ""),
        ("asks for", f"{count(view.pods, 'pod')}, {count(view.gpus, 'GPU')}, together"),
        ("queue", f"{view.queue} -> {view.cluster_queue}" if view.cluster_queue else view.queue or "none"),
        ("started", view.started),
        ("run time", run_time(view, now)),
        ("nodes", ", ".join(view.nodes)),
    ]
    for title, value in facts:
        if value not in ("", None):
            out.line(f"  {title + ':':15}{value}")
    if view.sooner:
        out.line("would start it sooner:")
    for one in view.sooner:
        out.line(f"  {one['change']}: {start_interval(one.get('startP50'), one.get('startP90'), now)}")
    if failures:
        out.line("failed:")
    for failure in failures[:_MOST_FAILURES]:
        out.line(f"  {failure_line(failure)}")
    if len(failures) > _MOST_FAILURES:
        out.line(f"  and {len(failures) - _MOST_FAILURES} more (-o json lists all)")
    if events:
        out.line("events:")
        for event in events:
            out.line(f"  {ago(now)(event['time'])} ago  {event['about']}  {event['reason']}: {event['message']}")


def _recent(events: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """The last few, oldest first; what was said of the job and of its workload alike is shown once."""
    told = {(e.get("reason"), e.get("message")): e for e in sorted(events, key=_order)}
    return [
        {"time": _last(e), "about": e["involvedObject"]["name"], "reason": reason, "message": message}
        for (reason, message), e in list(told.items())[-8:]
    ]


def _about(event: dict[str, Any]) -> str | None:
    return (event.get("involvedObject") or {}).get("uid")


def _order(event: dict[str, Any]) -> tuple[str, int]:
    """By time, and within a second as they were written."""
    revision = str(event["metadata"].get("resourceVersion") or "")
    return _last(event), int(revision) if revision.isdigit() else 0


def _last(event: dict[str, Any]) -> str:
    return str(event.get("lastTimestamp") or event.get("eventTime") or event["metadata"].get("creationTimestamp") or "")
