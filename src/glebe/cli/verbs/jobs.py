"""``glebe jobs``: every job and where it is."""

from __future__ import annotations

from dataclasses import asdict
from typing import Annotated

import typer

from glebe.cli.app import app
from glebe.cli.command import Session, verb


@verb(app)
async def jobs(
    session: Session,
    everywhere: Annotated[bool, typer.Option("--all-namespaces", "-A", help="In all namespaces.")] = False,
) -> None:
    """List jobs: state, pods, GPUs, start, run time."""
    from glebe.cli.output import Column
    from glebe.cli.read import read_jobs, require_namespace
    from glebe.cli.words import ago, run_time, start_of
    from glebe.kube.clock import SystemClock

    now = SystemClock().now()
    async with session.connect() as client:
        views = await read_jobs(client, None if everywhere else session.namespace)
        if not views and not everywhere:
            await require_namespace(client, session.namespace)
    rows = [
        asdict(view)
        | {"start": start_of(view, now), "run_time": run_time(view, now), "ready": f"{view.pods_ready}/{view.pods}"}
        for view in views
    ]
    where = "any namespace" if everywhere else f"namespace {session.namespace} (-A looks everywhere)"
    session.out.rows(
        (
            *((Column("NAMESPACE", "namespace"),) if everywhere else ()),
            Column("NAME", "name"),
            Column("KIND", "kind", wide=True),
            Column("STATE", "state"),
            Column("QUEUE", "queue"),
            Column("CLASS", "job_class", wide=True),
            Column("PODS", "ready"),
            Column("GPUS", "gpus", right=True),
            Column("START", "start"),
            Column("RUN TIME", "run_time"),
            Column("AGE", "created", ago(now)),
            Column("NODES", "nodes", lambda nodes: ",".join(nodes), wide=True),
            Column("REASON", "reason", wide=True),
            Column("MESSAGE", "message", wide=True, flexible=True),
        ),
        rows,
        empty=f"No jobs in {where}.",
    )
