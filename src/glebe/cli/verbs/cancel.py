"""``glebe cancel JOB``: take a job out of the queue, or stop it."""

from __future__ import annotations

from typing import Annotated

import typer

from glebe.cli.app import app
from glebe.cli.command import Session, verb
from glebe.cli.complete import job_names
from glebe.cli.exits import Exit, Failure


@verb(app, output=False)
async def cancel(
    session: Session,
    jobs: Annotated[list[str], typer.Argument(metavar="JOB...", help="Names of the jobs.", autocompletion=job_names)],
) -> None:
    """Delete jobs with their pods and the service that glebe run made for them."""
    from glebe.kube import resources as r
    from glebe.kube.errors import ApiError
    from glebe.kube.objects import labels_of

    missing = []
    async with session.connect() as client:
        for name in jobs:
            try:
                await client.delete(r.JOBS, name, session.namespace, propagation="Background")
            except ApiError as error:
                if error.code != 404:
                    raise
                missing.append(name)
                continue
            session.out.line(f"{name} is cancelled: its pods end and its GPUs return to the queue")
            try:
                service = await client.get(r.SERVICES, name, session.namespace)
                if labels_of(service).get("app.kubernetes.io/managed-by") == "glebe":
                    await client.delete(r.SERVICES, name, session.namespace)
            except ApiError as error:
                if error.code != 404:
                    raise
    if missing:
        raise Failure(
            Exit.NOT_FOUND,
            f"no such job in namespace {session.namespace}: {', '.join(missing)}",
            "glebe jobs -A shows all jobs; -n NAMESPACE chooses another namespace",
        )
