"""What an agent notes about a run or a pod, so that the next agent, after ``kill -9``, goes on from there.

Notes lie as small JSON files beside what the supervisor writes. They are written whole or not at all, and before what
they announce is done: what is noted may have happened; what is not noted has not.
"""

from __future__ import annotations

import contextlib
from pathlib import Path
from typing import Any

import orjson

POST_START = "post-start"  # of a run: {"at", "done": bool, "failed": str}
KILL = "kill"  # of a run: {"at", "grace", "why"}: the node decided to end this run
PRE_STOP = "pre-stop"  # of a run: {"at"}: the hook was begun
BACK_OFF = "back-off"  # of a run: {"delay"}: what its failure would cost
IMAGE = "image"  # of a run: {"id"}: what its image was
ROUND = "round"  # of a pod: {"first": {container: number of its first run in this round}}
ALLOCATED = "allocated"  # of a pod: {"resources": {container: resources}}
RESOURCES = "resources"  # of a run: {"has"}: with which it was started
STOP = "stop"  # of a pod: {"at", "grace", "verdict"}: the pod is ending for good


def read(directory: Path, name: str) -> dict[str, Any] | None:
    """The note of this name, ``None`` where there is none (or no whole one)."""
    try:
        value = orjson.loads((directory / f"note.{name}").read_bytes())
    except (OSError, orjson.JSONDecodeError):
        return None
    return value if isinstance(value, dict) else None


def write(directory: Path, name: str, **value: Any) -> None:
    """Note it. A full disk must not hold up what is to be done: then the note is lost."""
    path = directory / f"note.{name}"
    temporary = path.with_name(path.name + ".tmp")
    with contextlib.suppress(OSError):
        temporary.write_bytes(orjson.dumps(value))
        temporary.replace(path)


def erase(directory: Path, name: str) -> None:
    """Take it back."""
    with contextlib.suppress(OSError):
        (directory / f"note.{name}").unlink()
