"""Memory that was freed goes back to the system.

The C library keeps what is freed in between of what is not; after thousands of objects went at once, that is most of
the process.
"""

from __future__ import annotations

import ctypes
import logging

log = logging.getLogger("glebe.apiserver.clusters")


def give_back() -> None:
    """Return free memory to the system, where the C library can (glibc). Takes some milliseconds."""
    try:
        ctypes.CDLL(None).malloc_trim(0)
    except (OSError, AttributeError) as error:
        log.debug("free memory cannot be given back: %s", error)
