"""``glebe simulate``: the whole platform under faults and virtual time (see :mod:`glebe.platform.simulation`).

With ``--trace``: a job trace replayed through the production engine (see :mod:`glebe.platform.replays`).
"""

from __future__ import annotations

from pathlib import Path
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
    trace: Annotated[Path | None, typer.Option("--trace", help="Replay this job trace instead: CSV or SWF.")] = None,
    fleets: Annotated[list[Path] | None, typer.Option("--fleet", help="Fleet file of the replay; repeatable.")] = None,
    policies: Annotated[
        list[Path] | None, typer.Option("--policy", help="Queues and quotas of the replay, as YAML; repeatable.")
    ] = None,
    mapping: Annotated[
        list[str] | None, typer.Option("--map", help="FIELD=COLUMN of the CSV, or FIELD==VALUE; repeatable.")
    ] = None,
    run_times: Annotated[
        str, typer.Option("--run-times", help="What the engine knows of run times: history, limits or truth.")
    ] = "history",
    every: Annotated[
        float | None, typer.Option("--forecast-every", min=0, help="Seconds between forecasts of the replay.")
    ] = None,
    as_json: Annotated[Path | None, typer.Option("--json", help="Write the replay's scores to this file.")] = None,
    plot: Annotated[
        Path | None, typer.Option("--plot", help="Write plots of the replay: this path with .png and .svg.")
    ] = None,
) -> None:
    """Run the platform under faults and virtual time, one run per seed; exit 1 if an invariant breaks.

    With --trace: replay a job trace through the scheduling engine, on each fleet under each policy, and compare.
    """
    import logging

    if trace is not None:
        raise typer.Exit(_replay(trace, fleets or [], policies or [], mapping or [], run_times, every, as_json, plot))

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


def _replay(
    trace: Path,
    fleets: list[Path],
    policies: list[Path],
    mapping: list[str],
    run_times: str,
    every: float | None,
    as_json: Path | None,
    plot: Path | None,
) -> Exit:
    import json

    from glebe.node.values.fields import FleetError
    from glebe.platform import replays
    from glebe.scheduling.replay.trace import TraceError

    try:
        if not policies:
            raise TraceError("a replay needs queues and quotas: add --policy FILE")
        if run_times not in ("history", "limits", "truth"):
            raise TraceError(f"run times are known from history, limits or truth, not from {run_times}")
        jobs = replays.read_trace(trace, dict(pair.partition("=")[::2] for pair in mapping))
        known = [(f.stem, replays.read_fleet(f)) for f in fleets] or [("", ())]
        outcomes = [
            replays.replay(jobs, policy, nodes, name=_named(policy.name, fleet), run_times=run_times, every=every)
            for policy in (replays.read_policy(p) for p in policies)
            for fleet, nodes in known
        ]
    except OSError as error:
        typer.echo(f"error: cannot read {error.filename}: {error.strerror}", err=True)
        return Exit.BAD_INPUT
    except (TraceError, FleetError) as error:
        typer.echo(f"error: {error}", err=True)
        return Exit.BAD_INPUT
    rows = replays.table(outcomes)
    widths = [max(len(row[i]) for row in rows) for i in range(len(rows[0]))]
    for row in rows:
        typer.echo("  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip())
    if as_json is not None:
        found = {"trace": trace.name, "leftOut": jobs.left_out, "replays": {o.name: o.scores for o in outcomes}}
        as_json.write_text(json.dumps(found, indent=2) + "\n")
    if plot is not None:
        from glebe.platform.replayplots import NoPlots
        from glebe.platform.replayplots import plot as draw

        try:
            draw(outcomes, plot)
        except NoPlots as error:
            typer.echo(f"error: {error}", err=True)
            return Exit.FAILED
    return Exit.OK


def _named(policy: str, fleet: str) -> str:
    return f"{policy} on {fleet}" if fleet else policy
