"""What a process node is built from, as far as the rooms next door do not provide it yet: thin adapters.

Each class here stands in for one of the same name in ``network/``, ``volumes/``, ``devices/`` and ``containers/``;
``node.py`` imports them from one place, so that a room's own class replaces its stand-in with one line.
"""

from __future__ import annotations

import os

from glebe.node.volumes.volumes import Volumes as Volumes


def inherited() -> dict[str, str]:
    """What a container inherits of the platform's environment; everything else (credentials!) stays behind."""
    names = ("PATH", "HOME", "USER", "LOGNAME", "LANG", "LC_ALL", "TZ")
    return {name: os.environ[name] for name in names if name in os.environ}
