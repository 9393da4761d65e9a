"""Regular expressions whose matching takes linear time, whatever the pattern: RE2, the syntax that Kubernetes speaks.

Patterns come from users (CRD schemas, CEL); Python's own engine backtracks, so that one of them could hold up the
whole server.
"""

from __future__ import annotations

from functools import lru_cache
from typing import Any, Protocol

#: Memory that one compiled pattern may take, in bytes: what is bigger is refused as too large.
_MEMORY = 2 << 20
_LONGEST = 16 * 1024

#: RE2's words -> those of Go's regexp, which upstream's messages carry.
_WORDS = (
    ("missing )", "missing closing )"),
    ("unexpected )", "unexpected )"),
    ("missing ]", "missing closing ]"),
    ("invalid perl operator", "invalid or unsupported Perl syntax"),
    ("invalid repetition size", "invalid repeat count"),
    ("no argument for repetition operator", "missing argument to repetition operator"),
    ("bad repetition operator", "invalid nested repetition operator"),
    ("trailing \\", "trailing backslash at end of expression"),
    ("invalid escape sequence", "invalid escape sequence"),
    ("invalid character class range", "invalid character class range"),
    ("invalid named capture group", "invalid named capture"),
)


class BadPattern(ValueError):
    """The text is no regular expression; says why in the words of Go's ``regexp``."""


class Match(Protocol):
    """What a found match can tell (as :class:`re.Match`)."""

    def span(self, group: int = 0) -> tuple[int, int]: ...
    def group(self, group: int = 0) -> str | None: ...


class Pattern(Protocol):
    """A compiled pattern (the part of :class:`re.Pattern` that is used here)."""

    @property
    def groups(self) -> int: ...
    def search(self, text: str, pos: int = 0) -> Match | None: ...
    def fullmatch(self, text: str) -> Match | None: ...
    def finditer(self, text: str) -> Any: ...


@lru_cache(maxsize=1)
def _engine() -> tuple[Any, Any]:
    import re2  # late: most servers never see a pattern

    options = re2.Options()
    options.log_errors = False
    options.max_mem = _MEMORY
    return re2, options


@lru_cache(maxsize=512)
def compile(pattern: str) -> Pattern:
    """The compiled pattern, remembered.

    :raises BadPattern: it cannot be compiled, or is too large.
    """
    if len(pattern) > _LONGEST:
        raise BadPattern("error parsing regexp: expression too large")
    re2, options = _engine()
    try:
        compiled: Pattern = re2.compile(pattern.replace("\\Z", "\\z") if "\\Z" in pattern else pattern, options)
    except re2.error as error:
        raise BadPattern(f"error parsing regexp: {_in_go(_text(error), pattern)}") from None
    return compiled


def _text(error: Exception) -> str:
    said = error.args[0] if error.args else ""
    return said.decode("utf-8", "replace") if isinstance(said, bytes) else str(said)


def _in_go(text: str, pattern: str) -> str:
    what, _, where = text.partition(": ")
    for theirs, ours in _WORDS:
        if what == theirs:
            return f"{ours}: `{where or pattern}`"
    return f"{what}: `{where or pattern}`" if where else what
