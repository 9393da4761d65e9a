"""What the rooms of the process node hand to each other.

``process`` decides what a pod needs and when; ``network``, ``volumes`` and ``devices`` provide it; ``containers`` runs
it and ``kubelet`` shows it to the API server. They meet in the shapes of this module.
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Mapping, Sequence
from dataclasses import dataclass, field
from types import MappingProxyType
from typing import Protocol

#: Handlers that a process node may know: the file system of the machine, whatever OCI runtime there is, a certain one.
RUNTIMES = ("process", "container", "crun", "runc")


def _no_text() -> Mapping[str, str]:
    return MappingProxyType({})


@dataclass(frozen=True, slots=True)
class Mount:
    """``source`` (an absolute path of this machine, a file or a directory) appears at ``target`` in the container."""

    source: str
    target: str
    read_only: bool = False


@dataclass(frozen=True, slots=True)
class Limits:
    """What a container may use. ``cpu`` in thousandths of a core, ``memory`` in bytes; ``None``: no bound."""

    cpu_request: int = 0
    cpu: int | None = None
    memory: int | None = None
    processes: int | None = None


@dataclass(frozen=True, slots=True)
class Identity:
    """As whom a container runs; ``None``: as the node agent itself, or as its image says."""

    user: int | None = None
    group: int | None = None
    groups: tuple[int, ...] = ()
    no_new_privileges: bool = False
    privileged: bool = False
    add_capabilities: tuple[str, ...] = ()  # as pods write them: NET_ADMIN, ALL
    drop_capabilities: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class PodNetwork:
    """A pod's place in the network.

    ``namespace`` is the path of a network namespace, ``""`` for the machine's own. ``mounts`` brings ``/etc/hosts`` and
    ``/etc/resolv.conf`` where containers can have mounts; ``env`` what they are told where they cannot.
    """

    address: str
    namespace: str = ""
    mounts: tuple[Mount, ...] = ()
    env: Mapping[str, str] = field(default_factory=_no_text)


@dataclass(frozen=True, slots=True)
class ContainerSpec:
    """Everything that is needed to start one run of one container; it is written down before the start.

    ``argv`` is the whole command; with an image and no command of its own, the image's. ``rootfs`` is the unpacked root
    of an image, ``""`` for the machine's own file system. ``handler`` is the RuntimeClass' handler.
    """

    argv: Sequence[str]
    env: Mapping[str, str]
    cwd: str
    hostname: str = ""
    mounts: tuple[Mount, ...] = ()
    network: str = ""
    limits: Limits = field(default_factory=Limits)
    identity: Identity = field(default_factory=Identity)
    rootfs: str = ""
    handler: str = ""
    read_only_root: bool = False
    devices: tuple[str, ...] = ()  # device nodes of this machine, for a root of its own (else all are seen)
    host_pids: bool = False  # sees the machine's processes (hostPID)
    sysctls: Mapping[str, str] = field(default_factory=_no_text)  # of namespaces that the container's runtime makes
    stop_signal: str = ""  # asks the container to end, SIGTERM unless an image or the pod says otherwise
    stdin: bool = False
    stdin_once: bool = False
    tty: bool = False
    grace: float = 30.0


class ImageError(Exception):
    """The image cannot be had. ``reason``: ErrImagePull, ErrImageNeverPull, InvalidImageName or ImageInspectError."""

    def __init__(self, reason: str, message: str) -> None:
        super().__init__(message)
        self.reason = reason


class CreateError(Exception):
    """The container cannot be made although it is written well (CreateContainerError); tried again later."""


class SandboxError(Exception):
    """The pod's surroundings cannot be made, e.g. there is no such runtime handler (FailedCreatePodSandBox)."""


class VolumeError(Exception):
    """A volume cannot be made (yet): the pod stays in ContainerCreating, with an event FailedMount."""


class AdmissionError(Exception):
    """The node cannot take the pod at all: it fails with ``reason``, e.g. UnexpectedAdmissionError."""

    def __init__(self, reason: str, message: str) -> None:
        super().__init__(message)
        self.reason = reason


class Streams(Protocol):
    """A process somebody talks to: ``kubectl exec`` and ``attach``, exec probes, hooks."""

    async def write(self, data: bytes) -> None:
        """To its standard input; waits while that is full."""

    async def close_input(self) -> None:
        """End of its standard input."""

    def output(self) -> AsyncIterator[tuple[int, bytes]]:
        """``(1, bytes)`` of standard output, ``(2, bytes)`` of standard error, until both have ended."""

    async def resize(self, columns: int, rows: int) -> None:
        """The size of its terminal."""

    async def wait(self) -> int:
        """Its exit code, as a shell says it (128 + signal)."""

    async def close(self) -> None:
        """End it (exec) or leave it (attach)."""
