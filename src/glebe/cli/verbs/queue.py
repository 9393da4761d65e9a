"""``glebe queue``: who waits, in order, and what for."""

from __future__ import annotations

from dataclasses import asdict
from typing import Annotated

import typer

from glebe.cli.app import app
from glebe.cli.command import Session, verb
from glebe.cli.complete import all_queue_names


@verb(app)
async def queue(
    session: Session,
    only: Annotated[
        str,
        typer.Argument(metavar="[QUEUE]", help="Only this LocalQueue or ClusterQueue.", autocompletion=all_queue_names),
    ] = "",
    everywhere: Annotated[
        bool, typer.Option("--all-namespaces", "-A", help="In all namespaces, as without --namespace.")
    ] = False,
) -> None:
    """Show who waits in the queue: place, GPUs ahead, expected start, reason."""
    from glebe.cli.output import Column
    from glebe.cli.read import fleet_summary, read_jobs, require_namespace, require_queue
    from glebe.cli.words import start_interval
    from glebe.kube.clock import SystemClock
    from glebe.platform.views import State

    now = SystemClock().now()
    async with session.connect() as client:
        # the line is everybody's: it is shown across namespaces unless one is asked for
        namespace = None if everywhere else session.namespace_option or None
        views = await read_jobs(client, namespace)
        waiting = [v for v in views if v.state in (State.WAITING, State.NEVER)]
        if only:
            waiting = [v for v in waiting if only in (v.queue, v.cluster_queue)]
        waiting.sort(key=lambda v: (v.cluster_queue or v.queue, v.position or 1 << 30, v.created, v.name))
        empty = "Nothing waits."
        if not waiting:
            if namespace:
                await require_namespace(client, namespace)
            if only:
                await require_queue(client, only, namespace)
            empty = f"Nothing waits{f' in {only}' if only else ''}. {await fleet_summary(client)}"
    rows = [asdict(v) | {"start": start_interval(v.start_p50, v.start_p90, now)} for v in waiting]
    for row, view in zip(rows, waiting, strict=True):
        if view.state is State.NEVER:
            row["start"] = "never"
    session.out.rows(
        (
            Column("POSITION", "position", right=True),
            Column("JOB", "name"),
            Column("NAMESPACE", "namespace"),
            Column("QUEUE", "queue"),
            Column("PRIORITY", "priority", right=True, wide=True),
            Column("GPUS", "gpus", right=True),
            Column("GPUS-AHEAD", "gpus_ahead", right=True),
            Column("START (P50..P90)", "start"),
            Column("KEPT", "reserved_start", wide=True),
            Column("REASON", "reason", wide=True),
            Column("WAITS FOR", "message", flexible=True),
            Column("WOULD HELP", "remedy", wide=True, flexible=True),
        ),
        rows,
        empty=empty,
    )
