"""What a client may cost before it has shown that it is worth it."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Limits:
    """Sizes in bytes, times in seconds. The defaults are upstream's where upstream has one."""

    body: int = 3 * 1024 * 1024
    """A request's body (413 beyond)."""
    head: int = 256 * 1024
    """Request line and headers together (431 beyond)."""
    headers: int = 256
    """How many headers (431 beyond)."""
    connections: int = 20_000
    """Open at once; who comes then is told 503."""
    pipelined: int = 16
    """Requests of one connection that wait for their turn; then it is not read from."""
    handshake_seconds: float = 10.0
    head_seconds: float = 32.0
    """From a request's first byte to the end of its headers."""
    body_seconds: float = 60.0
    """From there to the end of its body (408 beyond)."""
    idle_seconds: float = 90.0
    """Between requests."""
    write_seconds: float = 30.0
    """A client that takes nothing for so long, while there is something for it, is cut off."""
    drain_seconds: float = 5.0
    """How long a shutdown waits for requests in flight."""
    linger_seconds: float = 0.5
    """After a refusal: closing at once, with unread bytes, would reset the connection before the answer is read."""
    check_seconds: float = 1.0
    """How often the deadlines are looked at."""
    compress: int = 128 * 1024
    """Bodies from this size on are compressed for clients that accept gzip."""
