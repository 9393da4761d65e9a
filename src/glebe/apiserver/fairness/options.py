"""What may be chosen about fairness and about how long requests take."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class FairnessOptions:
    """The defaults are upstream's where upstream has one. Times in seconds; 0 is without limit where it says so."""

    enabled: bool = True
    seats: int = 600
    """Of each logical cluster, divided among its priority levels by their shares (upstream: 400 reading, 200 writing).
    """
    total_seats: int = 1200
    """Of all clusters together."""
    quantum: int = 2
    """Work that begins in one turn of the loop, in about the cost of one GET each."""
    waiting: int = 5000
    """Requests that may wait together; beyond, those of the cluster that has most are refused."""
    cluster_waiting: int = 1000
    """Requests of one cluster that may wait."""
    wait_seconds: float = 15.0
    """The longest that a request waits for its turn (upstream: a quarter of the request's time)."""
    request_seconds: float = 60.0
    """The longest that a request takes which is not long-running, unless it asks for less."""
    cluster_requests: float = 0.0
    """Requests per second of each cluster whose budget does not say otherwise; 0: no limit."""
    cluster_watches: int = 0
    """Watches that each cluster may have open whose budget does not say otherwise; 0: no limit."""
    user_requests: float = 0.0
    """Requests per second of each user of each cluster; 0: no limit."""
    user_watches: int = 0
    """Watches that each user of each cluster may have open; 0: no limit."""

    def __post_init__(self) -> None:
        for name in ("seats", "total_seats", "quantum", "waiting", "cluster_waiting"):
            if getattr(self, name) < 1:
                raise ValueError(f"{name} must be at least 1")
        for name in ("wait_seconds", "request_seconds"):
            if getattr(self, name) <= 0:
                raise ValueError(f"{name} must be more than 0")
        for name in ("cluster_requests", "cluster_watches", "user_requests", "user_watches"):
            if getattr(self, name) < 0:
                raise ValueError(f"{name} must not be negative")
