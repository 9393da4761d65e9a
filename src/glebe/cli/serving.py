"""What ``glebe up`` and ``glebe apiserver`` share: options of any server, and how it is run."""

from __future__ import annotations

from collections.abc import Callable
from typing import Annotated, NoReturn

import typer

from glebe.cli.command import fail
from glebe.cli.exits import Exit, Failure

Listen = Annotated[str, typer.Option("--listen", help="HOST:PORT of the API; port 0 lets the system choose.")]
Quiet = Annotated[bool, typer.Option("--quiet", help="Print nothing but errors.")]


def run(main: Callable[[], int]) -> NoReturn:
    """Run a server until it ends.

    :raises typer.Exit: always; a server that cannot start says why, and what to do.
    """
    from glebe.platform.up import StartError

    try:
        raise typer.Exit(main())
    except StartError as error:
        code = Exit.CONFLICT if error.conflict else Exit.BAD_INPUT
        raise typer.Exit(fail(Failure(code, str(error), error.remedy))) from error
