"""``glebe usage``: who used the GPUs, and what of them was idle."""

from __future__ import annotations

from typing import Annotated

import typer

from glebe.cli.app import app
from glebe.cli.command import Session, verb


@verb(app)
async def usage(
    session: Session,
    day: Annotated[str, typer.Option("--day", help="Only this UTC day, YYYY-MM-DD (else all days).")] = "",
) -> None:
    """Show GPU-hours by team, and that used, idle and unhealthy add up to what is owned."""
    from glebe.cli.output import Column
    from glebe.cli.read import items
    from glebe.cli.words import gpu_hours
    from glebe.kube import resources as r
    from glebe.kube.clock import SystemClock
    from glebe.platform.usage import usage_at

    async with session.connect() as client:
        reports = await items(client, r.USAGE_REPORTS)
    if day:
        reports = [report for report in reports if report["metadata"]["name"] == f"usage-{day}"]
    table = usage_at(reports, SystemClock().now())
    if not session.out.for_people and session.out.format != "name":
        session.out.document(table)
        return
    columns = (
        Column("NAMESPACE", "namespace"),
        Column("QUEUE", "queue"),
        Column("USER", "user", wide=True),
        Column("WORKLOADS", "workloads", right=True),
        Column("GPUS-NOW", "gpus", right=True),
        Column("GPU-HOURS", "gpuSeconds", gpu_hours, right=True),
        Column("SHARE", "share", lambda share: f"{share:.1%}", right=True),
    )
    session.out.rows(columns, table["rows"], empty="Nobody has used a GPU yet.", name="namespace")
    totals = table["totals"]
    session.out.line()
    session.out.line(
        " + ".join(f"{kind} {gpu_hours(totals[kind])}" for kind in ("allocated", "idle", "unhealthy"))
        + f" = owned {gpu_hours(totals['owned'])} GPU-hours"
    )
