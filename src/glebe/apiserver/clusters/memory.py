"""Memory that was freed goes back to the system.

The C library keeps what is freed in between of what is not; after thousands of objects went at once, that is most of
the process.
"""

from __future__ import annotations

import ctypes
import logging
from typing import Any

from glebe.apiserver.store import forget_views

log = logging.getLogger("glebe.apiserver.clusters")


def give_back(*grown: dict[Any, Any]) -> None:
    """Return free memory to the system, where the C library can (glibc). Takes some milliseconds.

    :param grown: dictionaries that have lost most of what they held; they do not shrink by themselves.
    """
    forget_views()
    for each in grown:
        held = list(each.items())
        each.clear()
        each.update(held)
    try:
        ctypes.CDLL(None).malloc_trim(0)
    except (OSError, AttributeError) as error:
        log.debug("free memory cannot be given back: %s", error)
