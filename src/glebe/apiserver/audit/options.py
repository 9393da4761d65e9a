"""What may be chosen about the audit log."""

from __future__ import annotations

from dataclasses import dataclass

from glebe.apiserver.audit.policy import Policy


@dataclass(frozen=True, slots=True)
class Rotation:
    """When a file is full (MiB), and which full ones are kept: so many days, so many files (0: without limit)."""

    max_size: int = 100
    max_age: int = 0
    max_backups: int = 0


@dataclass(frozen=True, slots=True)
class AuditOptions:
    """Where the log goes (``-``: standard output) and what stands in it."""

    policy: Policy
    path: str
    rotation: Rotation = Rotation()
