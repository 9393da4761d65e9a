"""``glebe approve JOB``: a person lets a job pass the checks that ask for one."""

from __future__ import annotations

from typing import Annotated

import typer

from glebe.cli.app import app
from glebe.cli.command import Session, verb
from glebe.cli.complete import job_names


@verb(app)
async def approve(
    session: Session,
    job: Annotated[
        str, typer.Argument(metavar="[JOB]", help="Job or workload; without one: what waits.", autocompletion=job_names)
    ] = "",
    check: Annotated[str, typer.Option("--check", help="Only this admission check.")] = "",
    message: Annotated[str, typer.Option("--message", "-m", help="Why; kept with the answer.")] = "",
    everywhere: Annotated[bool, typer.Option("--all-namespaces", "-A", help="List all namespaces.")] = False,
) -> None:
    """Approve a job that waits for a person, or list those that do."""
    from glebe.cli import approving
    from glebe.cli.output import Column

    if job:
        await approving.answer(session, job, check, message, yes=True)
        return
    rows = await approving.waiting(session, everywhere=everywhere)
    names = (["namespace"] if everywhere else []) + ["name", "check", "quota", "queue", "created"]
    columns = [Column({"name": "JOB"}.get(name, name.upper()), name) for name in names]
    session.out.rows(columns, rows, empty="Nothing waits for a person.")
