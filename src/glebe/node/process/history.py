"""What is left of a container's earlier runs: directories, exits, last words, and what the API says of them."""

from __future__ import annotations

import contextlib
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from glebe.kube.clock import parse_time
from glebe.kube.objects import Object
from glebe.node.containers.crilog import last_lines
from glebe.node.containers.rundir import Run
from glebe.node.process import launch, reasons
from glebe.node.status import Exit

_MESSAGE = 4096  # bytes of a termination message, and ...
_MESSAGES = 12 * 1024  # ... of all in one pod
_FIELDS = ("containerStatuses", "initContainerStatuses", "ephemeralContainerStatuses")


def latest_attempt(base: Path) -> int | None:
    """The number of the latest run below a container's directory, ``None`` where there is none."""
    return max((int(path.name) for path in base.glob("[0-9]*") if path.name.isdigit()), default=None)


def seen_status(pod: Object, container: str) -> dict[str, Any]:
    """What the API's status says of a container."""
    status = pod.get("status") or {}
    every = (seen for field in _FIELDS for seen in status.get(field) or ())
    return next((dict(seen) for seen in every if seen["name"] == container), {})


def finished(run: Run, end: Exit | None, body: Mapping[str, Any], containers: int, run_id: str, now: float) -> Exit:
    """How a run ended, as the status shows it, with its last words.

    :param end: ``None``: its supervisor is gone without a word. :param containers: how many the pod has.
    """
    if end is None:
        end = Exit(137, now, run.started_at, reasons.LOST, reasons.LOST_MESSAGE)
    message = end.message or _last_words(run, end, body, _MESSAGES // max(1, containers))
    return Exit(end.code, end.finished_at, end.started_at, end.reason, message, end.signal, run_id)


def _last_words(run: Run, end: Exit, body: Mapping[str, Any], share: int) -> str:
    with contextlib.suppress(OSError), (run.path / launch.TERMINATION_LOG).open("rb") as file:
        if text := file.read(min(_MESSAGE, share)).decode("utf-8", "replace"):
            return text
    if end.code and body.get("terminationMessagePolicy") == "FallbackToLogsOnError":
        return last_lines(run.log)
    return ""


def lost_exit(seen: Mapping[str, Any], now: float) -> Exit:
    """How a container ended of which nothing is left but what the API says."""
    state = seen.get("state") or {}
    ended = state.get("terminated")
    if ended is None and state.get("waiting") is not None:
        ended = (seen.get("lastState") or {}).get("terminated")
    if ended is None:
        return Exit(137, now, None, reasons.LOST, reasons.LOST_MESSAGE, id=seen.get("containerID", ""))
    began = ended.get("startedAt")
    return Exit(
        int(ended.get("exitCode", 0)),
        parse_time(ended["finishedAt"]) if ended.get("finishedAt") else now,
        parse_time(began) if began else None,
        ended.get("reason", ""),
        ended.get("message", ""),
        int(ended.get("signal", 0)),
        ended.get("containerID", ""),
    )
