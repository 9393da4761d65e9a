"""Linux capabilities: numbers, what containers have by default, and what a pod adds and drops."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path

from glebe.node.contracts import Identity

_KNOWN = """
CHOWN DAC_OVERRIDE DAC_READ_SEARCH FOWNER FSETID KILL SETGID SETUID SETPCAP LINUX_IMMUTABLE NET_BIND_SERVICE
NET_BROADCAST NET_ADMIN NET_RAW IPC_LOCK IPC_OWNER SYS_MODULE SYS_RAWIO SYS_CHROOT SYS_PTRACE SYS_PACCT SYS_ADMIN
SYS_BOOT SYS_NICE SYS_RESOURCE SYS_TIME SYS_TTY_CONFIG MKNOD LEASE AUDIT_WRITE AUDIT_CONTROL SETFCAP MAC_OVERRIDE
MAC_ADMIN SYSLOG WAKE_ALARM BLOCK_SUSPEND AUDIT_READ PERFMON BPF CHECKPOINT_RESTORE
"""
_USUAL = """
CHOWN DAC_OVERRIDE FSETID FOWNER MKNOD NET_RAW SETGID SETUID SETFCAP SETPCAP NET_BIND_SERVICE SYS_CHROOT KILL
AUDIT_WRITE
"""
NAMES = tuple(_KNOWN.split())
NUMBERS = {name: number for number, name in enumerate(NAMES)}

#: What container runtimes give to a container that asks for nothing.
DEFAULT = tuple(_USUAL.split())


class UnknownCapability(ValueError):
    """No such capability."""


def of(identity: Identity) -> list[str]:
    """The names (without ``CAP_``) of what a container may have, in the kernel's order.

    :raises UnknownCapability: the pod names one that there is not.
    """
    if identity.privileged:
        return list(NAMES)
    add, drop = _names(identity.add_capabilities), _names(identity.drop_capabilities)
    have = set(NAMES) if "ALL" in add else set() if "ALL" in drop else set(DEFAULT)
    if "ALL" in add and "ALL" not in drop:
        have -= drop
    else:
        have = (have | (add - {"ALL"})) - (drop - {"ALL"})
    return [name for name in NAMES if name in have]


def _names(given: Iterable[str]) -> set[str]:
    names = {name.upper().removeprefix("CAP_") for name in given}
    unknown = sorted(names - {"ALL"} - NUMBERS.keys())
    if unknown:
        raise UnknownCapability(f'unknown capability "CAP_{unknown[0]}"')
    return names


def own_bounds() -> int:
    """The capabilities that this process may ever have or give, as bits."""
    for line in Path("/proc/self/status").read_text().splitlines():
        if line.startswith("CapBnd:"):
            return int(line.split()[1], 16)
    return 0
