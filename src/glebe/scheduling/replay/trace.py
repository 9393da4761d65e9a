"""Job traces: the Standard Workload Format, and CSV with a stated mapping of columns.

A trace says when each job came, how long it ran and what it asked for; nothing else of it reaches the engine. Jobs that
never ran or asked for nothing are left out, and counted.
"""

from __future__ import annotations

import csv
import math
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from datetime import UTC, datetime

#: Fields of a job that a CSV column may be mapped to, with whether it must be.
CSV_FIELDS = {
    "submitted": True,  # seconds (any epoch) or an ISO 8601 time
    "duration": True,  # seconds
    "gpus": True,
    "id": False,
    "queue": False,
    "user": False,
    "image": False,
    "limit": False,  # declared maximum, seconds
    "priority": False,
}


class TraceError(ValueError):
    """A trace that cannot be read: what, and where."""


@dataclass(frozen=True, slots=True)
class Job:
    """One job of a trace. Times in seconds; ``gpus`` in whole GPUs; ``limit``: what its owner declared, if anything."""

    key: str
    submitted: float
    duration: float
    gpus: int
    queue: str = "default"
    user: str = ""
    image: str = ""
    limit: float | None = None
    priority: int = 0


@dataclass(frozen=True, slots=True)
class Trace:
    """Jobs by time of submission; ``left_out`` counts those that never ran or asked for nothing."""

    jobs: tuple[Job, ...]
    left_out: int = 0
    queues: tuple[str, ...] = field(default=())


def of(jobs: Iterable[Job], left_out: int = 0) -> Trace:
    listed = tuple(sorted(jobs, key=lambda j: (j.submitted, j.key)))
    return Trace(listed, left_out, tuple(sorted({j.queue for j in listed})))


def read_csv(lines: Iterable[str], mapping: Mapping[str, str]) -> Trace:
    """A CSV with a header line; ``mapping`` names the column of each field (see ``CSV_FIELDS``).

    A mapping to ``=text`` gives every job that value. Fields that are not mapped are read from a column of their own
    name if there is one.

    :raises TraceError: for a missing column or a value that is no number or time.
    """
    rows = csv.DictReader(lines)
    columns = rows.fieldnames or []
    for name in mapping:
        if name not in CSV_FIELDS:
            raise TraceError(f"a trace has no field {name}; those that can be mapped are {', '.join(CSV_FIELDS)}")
    used: dict[str, str] = {}
    for name, needed in CSV_FIELDS.items():
        column = mapping.get(name, name)
        if column in columns or column.startswith("="):
            used[name] = column
        elif needed or name in mapping:
            here = ", ".join(columns)
            raise TraceError(f"the trace has no column {column} for {name}; it has {here}: add --map {name}=COLUMN")
    jobs, left_out = [], 0
    for number, row in enumerate(rows, start=2):
        job = _csv_job(number, {n: c[1:] if c.startswith("=") else row[c] for n, c in used.items()})
        if job is None:
            left_out += 1
        else:
            jobs.append(job)
    return of(jobs, left_out)


def _csv_job(line: int, row: dict[str, str]) -> Job | None:
    limit = _number(line, row, "limit") if row.get("limit") else 0.0
    job = Job(
        key=row.get("id") or f"job-{line}",
        submitted=_time(line, row),
        duration=_number(line, row, "duration"),
        gpus=round(_number(line, row, "gpus")),
        queue=row.get("queue") or "default",
        user=row.get("user") or "",
        image=row.get("image") or "",
        limit=limit if limit > 0 else None,
        priority=int(_number(line, row, "priority")) if row.get("priority") else 0,
    )
    return job if job.duration > 0 and job.gpus > 0 else None


def _number(line: int, row: dict[str, str], name: str) -> float:
    try:
        found = float(row[name])
    except (ValueError, TypeError):
        found = math.nan
    if not math.isfinite(found):
        raise TraceError(f"line {line} of the trace: {name}: {row[name]!r} is no number")
    return found


def _time(line: int, row: dict[str, str]) -> float:
    text = (row["submitted"] or "").strip()
    try:
        moment = None if text.isdecimal() else datetime.fromisoformat(text)  # 20240101 are seconds
    except ValueError:
        moment = None
    if moment is None:
        return _number(line, row, "submitted")
    return (moment if moment.tzinfo else moment.replace(tzinfo=UTC)).timestamp()


def read_swf(lines: Iterable[str]) -> Trace:
    """The Standard Workload Format (Feitelson): 18 columns, ``-1`` where unknown, comments after ``;``.

    Processors are read as GPUs; the queue number (15) names the queue, the user (12) and executable (14) the history.

    :raises TraceError: for a line that is no SWF.
    """
    jobs, left_out = [], 0
    for number, line in enumerate(lines, start=1):
        words = line.split()
        if not words or words[0].startswith(";"):
            continue
        try:
            f = [float(w) for w in words]
            processors = int(f[7]) if f[7] > 0 else int(f[4])
            if f[3] <= 0 or processors <= 0:
                left_out += 1
                continue
            jobs.append(
                Job(
                    key=f"job-{int(f[0])}",
                    submitted=f[1],
                    duration=f[3],
                    gpus=processors,
                    queue=_named("queue", f, 14, "default"),
                    user=_named("user", f, 11),
                    image=_named("app", f, 13),
                    limit=f[8] if f[8] > 0 else None,
                )
            )
        except (ValueError, IndexError, OverflowError) as error:
            raise TraceError(f"line {number} is not in the Standard Workload Format: {error}") from error
    return of(jobs, left_out)


def _named(kind: str, values: list[float], column: int, otherwise: str = "") -> str:
    return f"{kind}-{int(values[column])}" if len(values) > column and values[column] >= 0 else otherwise
