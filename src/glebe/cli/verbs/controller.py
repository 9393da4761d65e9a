"""``glebe controller``: queue and ledger on any conformant Kubernetes."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from glebe.cli.app import app
from glebe.cli.command import fail
from glebe.cli.exits import Exit, Failure


@app.command()
def controller(
    kubeconfig: Annotated[
        str, typer.Option("--kubeconfig", help="Kubeconfig of the cluster (else $KUBECONFIG, then in-cluster).")
    ] = "",
    context: Annotated[str, typer.Option("--context", help="Context of the kubeconfig.")] = "",
    namespace: Annotated[
        str, typer.Option("--namespace", help="Where the controller keeps its lease and webhook.")
    ] = "glebe-system",
    identity: Annotated[str, typer.Option("--identity", help="Name in the lease (else host name and pid).")] = "",
    webhook: Annotated[
        str,
        typer.Option("--webhook-listen", help="HOST:PORT at which the cluster calls this process."),
    ] = "",
    ledger: Annotated[str, typer.Option("--ledger", help="File of the allocation ledger.")] = "glebe-ledger.db",
    queue_config: Annotated[
        str, typer.Option("--queue-config", help="Configuration of the queue, with Kueue's fields.")
    ] = "",
    install_only: Annotated[
        bool, typer.Option("--install-only", help="Install CRDs and admission policy, then exit.")
    ] = False,
    advisory: Annotated[
        bool, typer.Option("--advisory", help="Advise an installed Kueue: forecast its workloads, decide nothing.")
    ] = False,
    metrics: Annotated[str, typer.Option("--metrics-listen", help="HOST:PORT of /metrics, plain HTTP.")] = "",
    verbose: Annotated[bool, typer.Option("--verbose", "-v", help="Log what the controllers do.")] = False,
) -> None:
    """Run queueing and accounting against a Kubernetes cluster (1.34 or later)."""
    from glebe.platform.controller import ControllerConfig, StartError, main

    config = ControllerConfig(
        kubeconfig=kubeconfig,
        context=context,
        namespace=namespace,
        identity=identity,
        webhook_listen=webhook,
        ledger=ledger,
        queue_config=Path(queue_config) if queue_config else None,
        install_only=install_only,
        advisory=advisory,
        metrics_listen=metrics,
        verbose=verbose,
    )
    try:
        raise typer.Exit(main(config))
    except StartError as error:
        raise typer.Exit(fail(Failure(Exit.UNREACHABLE, str(error), error.remedy))) from error
