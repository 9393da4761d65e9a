"""``glebe demo``: the whole story on this machine, nothing pre-recorded."""

from __future__ import annotations

from typing import Annotated

import typer

from glebe.cli.app import app


@app.command()
def demo(
    data_dir: Annotated[
        str, typer.Option("--data-dir", help="Keep the platform's data here (else a folder that is removed).")
    ] = "",
    deadline: Annotated[float, typer.Option("--deadline", help="Give up after so many seconds.")] = 170.0,
) -> None:
    """Tell the whole story: a 64-GPU job queues with an honest start time, runs, and is accounted for."""
    from glebe.cli.demo.story import main

    raise typer.Exit(main(data_dir, deadline))
