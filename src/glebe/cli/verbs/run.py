"""``glebe run``: submit a gang of pods to the queue and follow it."""

from __future__ import annotations

import asyncio
import sys
from typing import TYPE_CHECKING, Annotated, Any

import typer

from glebe.cli.app import app
from glebe.cli.command import Session, verb
from glebe.cli.complete import queue_names
from glebe.cli.exits import Exit, Failure

if TYPE_CHECKING:
    from glebe.kube.client import Client
    from glebe.kube.objects import Object
    from glebe.platform.jobspec import JobRequest
    from glebe.scheduling.model import Decision

Topology = tuple[str, str]


@verb(app)
async def run(
    session: Session,
    command: Annotated[list[str], typer.Argument(metavar="-- CMD...", help="What each pod runs.")],
    name: Annotated[str, typer.Option("--name", help="Name of the job.")],
    queue: Annotated[
        str, typer.Option("--queue", "-q", help="LocalQueue in the namespace.", autocompletion=queue_names)
    ] = "default",
    nodes: Annotated[int, typer.Option("--nodes", help="Pods that start together, one rank each.")] = 1,
    gpus_per_node: Annotated[int, typer.Option("--gpus-per-node", help="GPUs of each pod.")] = 0,
    cpus_per_node: Annotated[
        str, typer.Option("--cpus-per-node", help="CPUs of each pod, e.g. 500m or 32 (else 4 per GPU, at least 1).")
    ] = "",
    memory: Annotated[
        str, typer.Option("--memory", help="Memory of each pod, e.g. 64Gi (else 16Gi per GPU, at least 1Gi).")
    ] = "",
    env: Annotated[list[str] | None, typer.Option("--env", "-e", metavar="K=V", help="Environment; repeat.")] = None,
    job_class: Annotated[str, typer.Option("--class", help="WorkloadClass: priority and usual run time.")] = "",
    max_time: Annotated[str, typer.Option("--max-time", help="Stop the job after this run time, e.g. 4h.")] = "",
    expected: Annotated[
        str, typer.Option("--expected", help="Expected run time, 20m or 20m..35m (P50..P90): better forecasts.")
    ] = "",
    topology: Annotated[
        Topology | None,
        typer.Option(
            "--topology", metavar="MODE LEVEL", help="required or preferred; block, rack, host or a node label."
        ),
    ] = None,
    image: Annotated[
        str, typer.Option("--image", help="Container image; process nodes run the command on the machine itself.")
    ] = "",
    retries: Annotated[
        int, typer.Option("--retries", help="Times that each rank may fail and be started again; lost nodes are free.")
    ] = 0,
    detach: Annotated[bool, typer.Option("--detach", "-d", help="Submit and return.")] = False,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Say what would happen; submit nothing.")] = False,
) -> int:
    """Submit a job: N pods that start together, with the environment that launchers expect."""
    from glebe.platform.jobspec import DEFAULT_IMAGE, BadRequest, JobRequest, build, parse_env

    async with session.connect() as client:
        try:
            request = JobRequest(
                name=name,
                command=command,
                queue=queue,
                namespace=session.namespace,
                nodes=nodes,
                gpus_per_node=gpus_per_node,
                cpus_per_node=cpus_per_node,
                memory_per_node=memory,
                env=parse_env(env or []),
                job_class=job_class,
                max_time=max_time,
                expected=expected,
                topology=topology,
                image=image or DEFAULT_IMAGE,
                retries=retries,
            )
            objects = build(request)
        except BadRequest as error:
            raise Failure(Exit.BAD_INPUT, f"{error.field}: {error.problem}", error.remedy) from error
        client.on_warning = lambda text: print(f"warning: {text}", file=sys.stderr)
        if dry_run:
            return await _dry_run(session, client, objects)
        await _submit(client, objects)
        return await _follow(session, client, request, detach)


async def _submit(client: Client, objects: list[Object]) -> None:
    """Create Service and Job; a job that is refused leaves no service behind."""
    from glebe.kube import resources as r
    from glebe.kube.errors import ApiError, is_already_exists

    service, job = objects
    mine = False
    try:
        await client.create(r.SERVICES, service)
        mine = True
    except ApiError as error:
        if not is_already_exists(error):
            raise
    try:
        await client.create(r.JOBS, job)
    except ApiError:
        if mine:
            await client.delete(r.SERVICES, service["metadata"]["name"], service["metadata"]["namespace"])
        raise


async def _follow(session: Session, client: Client, request: JobRequest, detach: bool) -> int:
    from glebe.cli.follow import follow
    from glebe.cli.words import count

    out, again = session.out, f"glebe logs -f {request.name} -n {request.namespace}"
    if not out.for_people:
        from glebe.cli.read import read_job

        view, job, _, _ = await read_job(client, request.namespace, request.name)
        if out.format == "name":
            print(f"job.batch/{view.name}")
        else:
            out.document(job)
        return Exit.OK
    what = f"{count(request.nodes, 'pod')}, {count(request.nodes * request.gpus_per_node, 'GPU')}"
    out.line(f"{request.name} is submitted to queue {request.queue} of {request.namespace}: {what}, together")
    if detach:
        out.line(f"follow it with: {again}")
        return Exit.OK
    try:
        return await follow(client, request.namespace, request.name, out.line)
    except asyncio.CancelledError:
        print(f"\ndetached: {request.name} goes on. Follow it again with: {again}", file=sys.stderr)
        print(f"  stop it with: glebe cancel {request.name} -n {request.namespace}", file=sys.stderr)
        raise


def _is_told(warning: str, decision: Decision) -> bool:
    """Whether a warning of the server says what the answer says anyway."""
    from glebe.scheduling.model import Reason

    no_queue = decision.reason is Reason.QUEUE_NOT_FOUND and warning.startswith("there is no LocalQueue")
    return no_queue or decision.message in warning


async def _dry_run(session: Session, client: Client, objects: list[Object]) -> int:
    """What would happen, from the code that decides it."""
    from glebe.cli.words import count, start_interval
    from glebe.kube import resources as r
    from glebe.kube.clock import Env, format_time
    from glebe.queueing.jobs.dryrun import evaluate
    from glebe.scheduling.model import Outcome

    service, job = objects
    warnings: list[str] = []
    client.on_warning = warnings.append
    await client.create(r.SERVICES, service, dry_run=True)  # what the API would refuse is refused here, too
    await client.create(r.JOBS, job, dry_run=True)
    env = Env.system()
    result = await evaluate(client, env, job)
    decision, forecast = result.decision, result.forecast
    for text in warnings:
        if not _is_told(text, decision):
            print(f"warning: {text}", file=sys.stderr)
    p50, p90 = (forecast.start_p50, forecast.start_p90) if forecast else (None, None)
    answer: dict[str, Any] = {
        "name": job["metadata"]["name"],
        "namespace": job["metadata"]["namespace"],
        "queue": result.queue,
        "cluster_queue": result.cluster_queue,
        "outcome": str(decision.outcome),
        "reason": str(decision.reason),
        "message": decision.message,
        "remedy": decision.remedy,
        "position": forecast.position if forecast else None,
        "gpus_ahead": forecast.gpus_ahead if forecast else None,
        "start_p50": format_time(p50) if p50 is not None else None,
        "start_p90": format_time(p90) if p90 is not None else None,
        "nodes": [node for a in decision.assignments for node, _ in a.nodes],
    }
    verdict = {
        Outcome.ADMIT: "would start now",
        Outcome.WAIT: "would wait",
        Outcome.NEVER: "would never start",
    }[decision.outcome]
    if forecast and decision.outcome is Outcome.WAIT:
        verdict += f" at position {forecast.position} with {count(forecast.gpus_ahead, 'GPU')} ahead"
        start = start_interval(answer["start_p50"], answer["start_p90"], env.clock.now())
        verdict += f", and start {start} (P50..P90)" if start else ""
    if session.out.for_people:
        session.out.line(f"{answer['name']} {verdict}: {decision.message}")
        if decision.remedy:
            session.out.line(f"  would help: {decision.remedy}")
        if answer["nodes"]:
            session.out.line(f"  on {', '.join(answer['nodes'])}")
    else:
        session.out.document(answer)
    return Exit.NEVER_STARTS if decision.outcome is Outcome.NEVER else Exit.OK
