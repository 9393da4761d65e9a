"""How times, states and amounts read in tables: one wording for all verbs."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

from glebe.kube.clock import parse_time
from glebe.kube.duration import format_duration
from glebe.platform.views import JobView


def ago(now: float) -> Callable[[str | None], str]:
    """A column's formatter for the age of a point in time: ``5m10s``."""

    def show(time: str | None) -> str:
        return format_duration(max(0.0, now - parse_time(time))) if time else ""

    return show


def start_interval(p50: str | None, p90: str | None, now: float) -> str:
    """``in 12m..25m`` (P50..P90), ``in 12m`` when both are equal, ``now`` when it is due."""
    if not p50:
        return ""
    early = max(0.0, parse_time(p50) - now)
    late = max(early, parse_time(p90) - now) if p90 else early
    if late < 1:
        return "now"
    first, last = format_duration(early), format_duration(late)
    return f"in {first}" if first == last else f"in {first}..{last}"


def start_of(view: JobView, now: float) -> str:
    """When a job starts or how long ago it did, for the START column."""
    if view.state == "Never starts":
        return "never"
    if view.started:
        return f"{format_duration(max(0.0, now - parse_time(view.started)))} ago"
    return start_interval(view.start_p50, view.start_p90, now)


def run_time(view: JobView, now: float) -> str:
    """How long it has run, or ran."""
    if not view.started:
        return ""
    end = parse_time(view.finished) if view.finished else now
    return format_duration(max(0.0, end - parse_time(view.started)))


def gpu_hours(gpu_seconds: float) -> str:
    """GPU-seconds as GPU-hours with three digits after the point."""
    return f"{gpu_seconds / 3600:.3f}"


def count(number: int, noun: str) -> str:
    """``1 job``, ``2 jobs``."""
    return f"{number} {noun}" if number == 1 else f"{number} {noun}s"


def failure_line(failure: Mapping[str, Any]) -> str:
    """``rank 1 (train-1-x): exit code 137, OOMKilled``."""
    how = f"exit code {failure['exit_code']}" if failure["exit_code"] is not None else ""
    text = ", ".join(dict.fromkeys(part for part in (how, failure["reason"], failure["message"]) if part))
    return f"rank {failure['rank']} ({failure['pod']}): {text or 'failed without a word'}"


def answer_line(view: JobView, now: float) -> str:
    """The five questions about a waiting job, on one line: place, work ahead, start, constraint, what would help."""
    parts = []
    if view.position:
        parts.append(f"position {view.position}")
    if view.gpus_ahead is not None:
        parts.append(f"{count(view.gpus_ahead, 'GPU')} ahead")
    start = start_of(view, now)
    if start and start != "never":
        parts.append(f"starts {start} (P50..P90)" if ".." in start else f"starts {start}")
    head = ", ".join(parts)
    sentence = view.message if not head else f"{head}: {view.message}"
    return f"{sentence}; would help: {view.remedy}" if view.remedy else sentence
