"""Undoing what a node did to the machine's network: run by the node itself, and by ``guard`` when nobody else does.

``state.json`` in the node's network directory is written before anything is done: it names everything that may be
there.
"""

from __future__ import annotations

import contextlib
import json
import os
from dataclasses import asdict, dataclass, field
from pathlib import Path

from glebe.node.network import links, namespaces, nftables

#: How names of interfaces and of the table begin; the node's mark follows.
SINK, WIRE, TABLE = "glebe", "gw", "glebe_"


@dataclass
class State:
    """What a node in the mode ``namespace`` may have made: names of interfaces, of its table, settings it changed.

    ``options`` holds, by path below ``/proc/sys/net``, what was there before.
    """

    cidr: str
    sink: str
    wires: str
    table: str
    options: dict[str, str] = field(default_factory=dict)

    def write(self, directory: Path) -> None:
        directory.mkdir(parents=True, exist_ok=True)
        temporary = directory / "state.json.tmp"
        temporary.write_text(json.dumps(asdict(self)))
        os.replace(temporary, directory / "state.json")


def read_state(directory: Path) -> State | None:
    """What an earlier agent wrote, if it did."""
    try:
        return parse_state((directory / "state.json").read_text())
    except OSError:
        return None


def parse_state(text: str) -> State | None:
    """What is in a ``state.json``, if it is one."""
    try:
        return State(**json.loads(text))
    except (ValueError, TypeError):
        return None


def namespace_path(directory: Path, uid: str) -> Path:
    """Where the network namespace of a pod has its name."""
    return directory / "ns" / uid


def wire_name(wires: str, uid: str) -> str:
    """The machine's end of the pod's wire."""
    return wires + uid.replace("-", "")[:8]


def undo_pod(directory: Path, state: State, uid: str) -> None:
    """Remove a pod's namespace and wire, whether it has them or not.

    :raises OSError: the machine refuses.
    """
    wire = wire_name(state.wires, uid)
    if wire in links.names():  # else nothing is asked that needs a privilege
        with links.Links() as machine:
            machine.remove(wire)
    path = namespace_path(directory, uid)
    namespaces.remove(path)
    path.with_suffix(".json").unlink(missing_ok=True)


def known_pods(directory: Path) -> list[str]:
    """The uids of pods for which something is there."""
    return sorted({path.stem for path in (directory / "ns").glob("*")})


def undo_orphans() -> None:
    """Remove what nodes made whose directory is gone, so that nobody else will; only those of this view of the files.

    :raises OSError: the machine refuses.
    """
    view, links_now = view_of_files(), links.names()
    for sink in [name for name in links_now if name.startswith(SINK)]:
        seen_by, _, directory = links.alias_of(sink).partition(" ")
        if seen_by == view and not os.path.exists(directory):
            mark = sink.removeprefix(SINK)
            with links.Links() as machine:
                for name in (*(n for n in links_now if n.startswith(WIRE + mark)), sink):
                    machine.remove(name)
            nftables.delete_table(TABLE + mark)


def view_of_files() -> str:
    """A name for what this process sees of the file system: other containers of the machine may see something else."""
    return str(os.stat("/proc/self/ns/mnt").st_ino)


def read_done(directory: Path, uid: str) -> str | None:
    """The address of a pod that was connected."""
    try:
        return str(json.loads(namespace_path(directory, uid).with_suffix(".json").read_text())["address"])
    except (OSError, ValueError, KeyError, TypeError):
        return None


def undo_pods(directory: Path, state: State) -> None:
    """Remove the namespaces and wires of all pods.

    :raises OSError: the first that was refused.
    """
    for uid in known_pods(directory):
        undo_pod(directory, state, uid)


def undo(directory: Path, known: State | None = None) -> None:
    """Remove everything. What cannot be removed is left; ``state.json`` then stays, too, for another try.

    :param known: what there is, if the directory should not say so any more.
    :raises OSError: the first that was refused.
    """
    state = read_state(directory) or known
    if state is None:
        return
    undo_pods(directory, state)
    with links.Links() as machine:
        for name in links.names():
            if name.startswith(state.wires) or name == state.sink:
                machine.remove(name)
    nftables.delete_table(state.table)
    for option, before in state.options.items():
        with contextlib.suppress(FileNotFoundError):  # the interface is gone, and its settings with it
            links.set_option(option, before)
    (directory / "state.json").unlink(missing_ok=True)
