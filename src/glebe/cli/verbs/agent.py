"""``glebe agent``: nodes of a fleet file on any Kubernetes."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from glebe.cli.app import app
from glebe.cli.command import fail
from glebe.cli.exits import Exit, Failure


@app.command()
def agent(
    fleet: Annotated[str, typer.Option("--fleet", help="Fleet file: its pools are the nodes.")],
    kubeconfig: Annotated[str, typer.Option("--kubeconfig", help="Kubeconfig of the cluster (else $KUBECONFIG).")] = "",
    context: Annotated[str, typer.Option("--context", help="Context of the kubeconfig.")] = "",
    simulated: Annotated[
        bool, typer.Option("--simulated", help="Run the simulated nodes of the fleet (so far the only kind).")
    ] = False,
    scenario: Annotated[str, typer.Option("--scenario", help="Scenario file: what befalls nodes and pods.")] = "",
    quiet: Annotated[bool, typer.Option("--quiet", help="Print nothing but errors.")] = False,
    verbose: Annotated[bool, typer.Option("--verbose", "-v", help="Log what the nodes do.")] = False,
) -> None:
    """Run the simulated nodes of a fleet file against a Kubernetes cluster until Ctrl-C."""
    from glebe.platform.agent import AgentConfig, main
    from glebe.platform.up import StartError

    if not simulated:
        problem = "say which nodes to run: --simulated"
        raise typer.Exit(fail(Failure(Exit.BAD_INPUT, problem, "glebe up runs this machine as a node")))
    config = AgentConfig(
        fleet=Path(fleet),
        scenario=Path(scenario) if scenario else None,
        kubeconfig=kubeconfig,
        context=context,
        quiet=quiet,
        verbose=verbose,
    )
    try:
        raise typer.Exit(main(config))
    except StartError as error:
        raise typer.Exit(fail(Failure(Exit.BAD_INPUT, str(error), error.remedy))) from error
