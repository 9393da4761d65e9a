"""``glebe logs [-f] JOB [--rank N]``: what one rank of a job printed."""

from __future__ import annotations

import sys
from typing import Annotated

import typer

from glebe.cli.app import app
from glebe.cli.command import Session, verb
from glebe.cli.complete import job_names
from glebe.cli.exits import Exit, Failure


@verb(app, output=False)
async def logs(
    session: Session,
    job: Annotated[str, typer.Argument(help="Name of the job.", autocompletion=job_names)],
    rank: Annotated[int, typer.Option("--rank", help="Which rank (pod) of the job.", min=0)] = 0,
    follow: Annotated[bool, typer.Option("--follow", "-f", help="Go on until the rank ends.")] = False,
    tail: Annotated[int, typer.Option("--tail", help="Only the last lines; -1 is all.")] = -1,
    timestamps: Annotated[bool, typer.Option("--timestamps", help="Begin each line with its time.")] = False,
) -> None:
    """Print the log of one rank of a job."""
    from glebe.cli.follow import wait_for_rank
    from glebe.cli.read import has_started, rank_of, read_job
    from glebe.cli.words import count

    async with session.connect() as client:
        view, _, _, pods = await read_job(client, session.namespace, job)
        if rank >= view.pods:
            raise Failure(
                Exit.BAD_INPUT,
                f"--rank: {job} has {count(view.pods, 'rank')}",
                f"give a number from 0 to {view.pods - 1}" if view.pods > 1 else "leave it out",
            )
        pod = next((p for p in pods if rank_of(p) == rank and has_started(p)), None)
        if pod is None and follow:
            pod = await wait_for_rank(client, session.namespace, job, rank)
        if pod is None:
            raise Failure(
                Exit.FAILED,
                f"rank {rank} of {job} has not started: {view.state}, {view.message}",
                f"glebe logs -f {job} waits for it; glebe why {job} says more",
            )
        stream = client.logs(
            pod["metadata"]["name"],
            session.namespace,
            follow=follow,
            tail=tail if tail >= 0 else None,
            timestamps=timestamps,
        )
        async for chunk in stream:
            sys.stdout.buffer.write(chunk)
            sys.stdout.buffer.flush()
