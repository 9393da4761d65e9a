"""Entry point of the ``glebe`` command."""

from __future__ import annotations

import importlib
import sys

from glebe.cli.app import app

#: Each module registers its verb; the help lists them in this order.
VERBS = (
    "up",
    "demo",
    "run",
    "queue",
    "jobs",
    "why",
    "logs",
    "cancel",
    "approve",
    "deny",
    "plan",
    "nodes",
    "usage",
    "cluster",
    "apiserver",
    "snapshot",
    "controller",
    "agent",
    "simulate",
    "version",
)

for _name in VERBS:
    importlib.import_module(f"glebe.cli.verbs.{_name}")


def main() -> None:
    """Run the command line; never shows a traceback for an error that a user can mend."""
    try:
        app()
    except KeyboardInterrupt:
        sys.exit(130)


if __name__ == "__main__":
    main()
