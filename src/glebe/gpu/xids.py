"""NVIDIA's XID errors: what the driver reports of a GPU in trouble. Pure.

Names are those of NVIDIA's XID listing. Which errors take a GPU out of service is what NVIDIA's Kubernetes device
plugin decides: all but those for which the application alone is to blame.
"""

from __future__ import annotations

from typing import Final

NAMES: Final = {
    8: "GPU stopped processing",
    13: "Graphics Engine Exception",
    31: "GPU memory page fault",
    43: "GPU stopped processing",
    45: "Preemptive cleanup, due to previous errors",
    48: "Double Bit ECC Error",
    61: "Internal micro-controller breakpoint/warning",
    62: "Internal micro-controller halt",
    63: "ECC page retirement or row remapping recording event",
    64: "ECC page retirement or row remapper recording failure",
    68: "Video processor exception",
    69: "Graphics Engine class error",
    74: "NVLINK Error",
    79: "GPU has fallen off the bus",
    92: "High single-bit ECC error rate",
    94: "Contained ECC error",
    95: "Uncontained ECC error",
    109: "Context Switch Timeout Error",
    119: "GSP RPC Timeout",
    120: "GSP Error",
    140: "Unrecovered ECC Error",
}
#: Errors after which the device plugin goes on to give the GPU out.
APPLICATION: Final = frozenset({13, 31, 43, 45, 68, 109})


def breaks(code: int) -> bool:
    """Whether nobody is given a GPU with this error until it is repaired."""
    return code not in APPLICATION


def text(code: int) -> str:
    """``Xid 79, GPU has fallen off the bus``."""
    return f"Xid {code}, {NAMES[code]}" if code in NAMES else f"Xid {code}"
