"""``glebe usage``: who used the GPUs, and what of them was idle."""

from __future__ import annotations

from datetime import date
from typing import Annotated

import typer

from glebe.cli.app import app
from glebe.cli.command import Session, verb
from glebe.cli.exits import Exit, Failure


def _is_day(text: str) -> bool:
    try:
        return date.fromisoformat(text).isoformat() == text
    except ValueError:
        return False


@verb(app)
async def usage(
    session: Session,
    day: Annotated[str, typer.Option("--day", help="Only this UTC day, YYYY-MM-DD (else all days).")] = "",
) -> None:
    """Show GPU-hours by team, and that used, idle and unhealthy add up to what is owned."""
    from dataclasses import asdict

    from glebe.cli.output import Column
    from glebe.cli.read import items
    from glebe.cli.words import gpu_hours
    from glebe.kube import resources as r
    from glebe.kube.clock import SystemClock
    from glebe.metering.report import at

    if day and not _is_day(day):
        raise Failure(Exit.BAD_INPUT, f"--day: {day!r} is not a day", "write for example 2026-01-31")
    async with session.connect() as client:
        reports = await items(client, r.USAGE_REPORTS)
    if day:
        reports = [report for report in reports if report["metadata"]["name"] == f"usage-{day}"]
    total = at(reports, SystemClock().now())
    if not session.out.for_people:
        session.out.document(asdict(total))
        return
    owned = total.owned_gpu_seconds

    def share(seconds: int) -> str:
        return f"{seconds / owned:.1%}" if owned else ""

    rows = [asdict(row) | {"share": share(row.gpu_seconds)} for row in total.rows]
    session.out.rows(
        (
            Column("NAMESPACE", "namespace"),
            Column("QUEUE", "queue"),
            Column("CLUSTERQUEUE", "cluster_queue", wide=True),
            Column("USER", "user", wide=True),
            Column("WORKLOADS", "workloads", right=True),
            Column("GPUS NOW", "gpus", right=True),
            Column("GPU-HOURS", "gpu_seconds", gpu_hours, right=True),
            Column("OF OWNED", "share", right=True),
        ),
        rows,
        empty="Nobody has used a GPU yet.",
    )
    states = ("allocated", "idle", "unhealthy", "owned")
    summary = [
        {"state": state, "gpus": getattr(total, f"{state}_gpus"), "seconds": getattr(total, f"{state}_gpu_seconds")}
        for state in states
    ]
    session.out.line()
    session.out.rows(
        (
            Column("GPUS", "state"),
            Column("NOW", "gpus", right=True),
            Column("GPU-HOURS", "seconds", gpu_hours, right=True),
            Column("OF OWNED", "seconds", share, right=True),
        ),
        summary,
        empty="",
    )
