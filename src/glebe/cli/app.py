"""The ``glebe`` application that the verbs register themselves with."""

from __future__ import annotations

import typer

app = typer.Typer(
    name="glebe",
    help="A private GPU cloud: one fair queue, honest start times, a ledger of who used what.",
    epilog="Start a platform on this machine with: glebe up    See it all happen with: glebe demo",
    no_args_is_help=True,
    rich_markup_mode=None,  # plain help: quick to print, and easy on pipes and screen readers
    pretty_exceptions_enable=False,
    context_settings={"help_option_names": ["-h", "--help"]},
)
