"""``glebe deny JOB``: a person stops a job at the checks that ask for one."""

from __future__ import annotations

from typing import Annotated

import typer

from glebe.cli.app import app
from glebe.cli.command import Session, verb
from glebe.cli.complete import job_names


@verb(app, output=False)
async def deny(
    session: Session,
    job: Annotated[str, typer.Argument(help="Name of the job or workload.", autocompletion=job_names)],
    check: Annotated[str, typer.Option("--check", help="Only this admission check.")] = "",
    message: Annotated[str, typer.Option("--message", "-m", help="Why; the job's owner reads it.")] = "",
) -> None:
    """Deny a job that waits for a person: it is switched off."""
    from glebe.cli import approving

    await approving.answer(session, job, check, message, yes=False)
