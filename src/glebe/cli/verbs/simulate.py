"""``glebe simulate``: the whole platform under faults and virtual time (see :mod:`glebe.platform.simulation`)."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated

import typer

from glebe.cli.app import app
from glebe.cli.exits import Exit

if TYPE_CHECKING:
    from glebe.platform.simulation.harness import Report


@app.command()
def simulate(
    seeds: Annotated[int, typer.Option("--seeds", min=1, help="How many seeds to run.")] = 200,
    first: Annotated[int, typer.Option("--from", min=0, help="The first seed.")] = 0,
    seed: Annotated[int | None, typer.Option("--seed", min=0, help="Replay just this seed, with its log.")] = None,
    workers: Annotated[int, typer.Option("--workers", min=0, help="Processes (0: one per core).")] = 0,
) -> None:
    """Run the platform under faults and virtual time, one run per seed; exit 1 if an invariant breaks."""
    import logging

    from glebe.platform.simulation import campaign

    def tell(report: Report) -> None:
        if report.violation:
            typer.echo(f"seed {report.seed}: {report.violation}\n  replay: glebe simulate --seed {report.seed}")

    if seed is not None:
        logging.basicConfig(level=logging.INFO, format="%(name)s: %(message)s")
        summary = campaign.run([seed], workers=1, progress=tell)
    else:
        logging.disable(logging.ERROR)  # faults are expected here; only broken invariants matter
        summary = campaign.run(range(first, first + seeds), workers=workers, progress=tell)
    typer.echo(summary.text())
    raise typer.Exit(Exit.FAILED if summary.violations else Exit.OK)
