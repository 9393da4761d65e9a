"""``glebe simulate``: the whole platform under faults and virtual time (see :mod:`glebe.platform.simulate`)."""

from __future__ import annotations

import typer

from glebe.cli.app import app


@app.command(context_settings={"ignore_unknown_options": True, "allow_extra_args": True, "help_option_names": []})
def simulate(context: typer.Context) -> None:
    """Run the platform under faults and virtual time, one run per seed (see simulate --help)."""
    from glebe.platform.simulate import main

    raise typer.Exit(main(context.args))
