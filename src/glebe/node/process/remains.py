"""What an agent leaves on disk for the next one: the node's directory, held by one at a time, and those of its pods."""

from __future__ import annotations

import asyncio
import contextlib
import fcntl
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import IO, Any

import orjson

from glebe.node.containers.rundir import Run, runs_in
from glebe.node.process.machine import Machine


class NodeDirBusy(RuntimeError):
    """Another platform uses this node's directory."""


@contextlib.contextmanager
def held(root: Path) -> Iterator[None]:
    """Have the node's directory, for as long as the block runs.

    :raises NodeDirBusy: somebody else has it.
    """
    (root / "pods").mkdir(parents=True, exist_ok=True)
    root.chmod(0o700)  # values of Secrets lie below: in volumes, and as environments in run.json
    file: IO[str] = (root / "lock").open("w")
    try:
        fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError:
        file.close()
        raise NodeDirBusy(f"{root} is in use by another platform; stop that one first") from None
    try:
        yield
    finally:
        file.close()


def restore(machine: Machine, directory: Path) -> bool:
    """Remember what an earlier agent gave to the pod of this directory; whether it had taken the pod."""
    record = _read_record(directory)
    if record is None:
        return False
    # Records of older releases have address and devices at the top.
    machine.network.restore(directory.name, record.get("network") or record)
    machine.devices.restore(directory.name, record.get("devices") or record)
    return True


async def bury(machine: Machine, directory: Path) -> None:
    """End whatever runs in a pod directory without a pod, give back what it had, and remove it."""
    runs = runs_in(directory)
    for run in runs:
        run.stop(2.0)
    for run in runs:
        if run.supervisor is not None:
            await run.wait()
    await machine.volumes.withdraw(directory.name, directory)
    await machine.network.detach(directory.name)
    await machine.devices.release(directory.name)
    await asyncio.to_thread(shutil.rmtree, directory, True)


def all_runs(pods: Path) -> list[Run]:
    """The runs of all pods."""
    return [run for directory in pods.glob("*") for run in runs_in(directory)]


def _read_record(directory: Path) -> dict[str, Any] | None:
    try:
        record = orjson.loads((directory / "pod.json").read_bytes())
    except (OSError, orjson.JSONDecodeError):
        return None
    return record if isinstance(record, dict) else None
