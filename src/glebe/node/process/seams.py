"""What a process node is built from, as far as the rooms next door do not provide it yet: thin adapters.

Each class here stands in for one of the same name in ``network/``, ``volumes/``, ``devices/`` and ``containers/``;
``node.py`` imports them from one place, so that a room's own class replaces its stand-in with one line.
"""

from __future__ import annotations

import os
from pathlib import Path

from glebe.node.containers.rundir import Run
from glebe.node.contracts import ContainerSpec
from glebe.node.volumes.volumes import Volumes as Volumes


class Containers:
    """Processes of this machine, each with a supervisor.

    :param agent_file: names the agent that runs now; :param window: how long containers go on without one (seconds).
    """

    #: Whether mounts appear in containers; where not, paths are rewritten.
    mounts = False
    runtime = "process"  # in containerID: RUNTIME://...

    def __init__(self, agent_file: Path, window: float) -> None:
        self._agent_file = agent_file
        self._window = window

    def prepare(self, spec: ContainerSpec, run: Run) -> None:
        """Write down what is to run, once; a run that was prepared before keeps what it has."""
        run.prepare(
            {
                "argv": list(spec.argv),
                "env": dict(spec.env),
                "cwd": spec.cwd,
                "log": str(run.log),
                "agent": str(self._agent_file),
                "grace": spec.grace,
                "window": self._window,
            }
        )


def inherited() -> dict[str, str]:
    """What a container inherits of the platform's environment; everything else (credentials!) stays behind."""
    names = ("PATH", "HOME", "USER", "LOGNAME", "LANG", "LC_ALL", "TZ")
    return {name: os.environ[name] for name in names if name in os.environ}
