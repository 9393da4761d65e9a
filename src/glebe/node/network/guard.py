"""Cleans up the machine's network when no platform comes back; run as ``python -I -S guard.py NODE_DIR WINDOW``.

It waits, next to the supervisors of the containers, for the agent that NODE_DIR/agent names. When no agent has been
there for WINDOW seconds and the last supervisor is gone, it removes what ``network/state.json`` says, and ends. A new
agent ends it before it starts (:func:`dismiss`).
"""

from __future__ import annotations

import contextlib
import fcntl
import os
import select
import signal
import subprocess
import sys
import time
from pathlib import Path

_STEP = 1.0  # seconds between looks when there is no agent


def post(node_dir: Path, window: float) -> None:
    """Start the guard of a node, whose agent is this process."""
    (node_dir / "network").mkdir(parents=True, exist_ok=True)
    subprocess.Popen(
        [sys.executable, "-I", "-S", os.path.abspath(__file__), str(node_dir), str(window)],
        stdin=subprocess.DEVNULL,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
        start_new_session=True,
        cwd="/",
    )


def dismiss(node_dir: Path) -> None:
    """End the guard of a node, if there is one; it has ended when this returns. Blocking, at most 5 s."""
    lock = node_dir / "network" / "guard"
    with contextlib.suppress(FileNotFoundError), lock.open("r+") as file:
        for _ in range(100):
            try:
                fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
                return
            except BlockingIOError:
                file.seek(0)
                pid, _, start = file.read().partition(" ")
                if pid.isdigit() and start_time(int(pid)) == int(start or 0):
                    with contextlib.suppress(OSError):
                        os.kill(int(pid), signal.SIGTERM)
            time.sleep(0.05)


def start_time(pid: int) -> int:
    """Field 22 of /proc/PID/stat, 0 when there is no such process or it is a zombie."""
    try:
        with open(f"/proc/{pid}/stat", "rb") as file:
            fields = file.read().rpartition(b")")[2].split()
        return 0 if fields[0] in (b"Z", b"X") else int(fields[19])
    except (OSError, IndexError):
        return 0


def _is_alive(file: Path) -> bool:
    """Whether the process that a file names (pid and start time) is there."""
    try:
        pid, start = map(int, file.read_text().split())
    except (OSError, ValueError):
        return False
    return start_time(pid) == start


def _wait_for_end(file: Path) -> None:
    with contextlib.suppress(OSError, ValueError):
        pid = os.pidfd_open(int(file.read_text().split()[0]))
        try:
            if _is_alive(file):
                select.select([pid], [], [])
        finally:
            os.close(pid)


def watch(node_dir: Path, window: float) -> str:
    """Return when nobody needs the network any more, with what was in ``state.json``."""
    alone, said = 0.0, ""
    while True:
        with contextlib.suppress(OSError):
            said = (node_dir / "network" / "state.json").read_text()
        if _is_alive(node_dir / "agent"):
            if said:
                _wait_for_end(node_dir / "agent")
            else:  # it has not yet begun
                time.sleep(_STEP)
            alone = 0.0
            continue
        runs = (node_dir / "pods").glob("*/*/*/claim")
        if alone >= window and not any(_is_alive(claim) for claim in runs):
            return said
        time.sleep(_STEP)
        alone += _STEP


def main() -> int:
    named, window = Path(sys.argv[1]), float(sys.argv[2])
    # The directory may be renamed or removed while this waits; what is mounted in it must be found all the same.
    node_dir = Path(f"/proc/self/fd/{os.open(named, os.O_RDONLY | os.O_DIRECTORY)}")
    file = (node_dir / "network" / "guard").open("a+")
    try:
        fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return 75
    file.truncate(0)
    file.write(f"{os.getpid()} {start_time(os.getpid())}")
    file.flush()
    said = watch(node_dir, window)
    sys.path.insert(0, str(Path(__file__).resolve().parents[3]))  # late: it stays small while it waits
    from glebe.node.network import undo

    state = undo.parse_state(said)
    if state is not None and _is_taken(file.fileno(), named / "network" / "guard"):
        undo.undo_pods(node_dir / "network", state)  # the rest has the names of those who are there now
    else:
        undo.undo(node_dir / "network", state)
    return 0


def _is_taken(file: int, path: Path) -> bool:
    """Whether somebody has made the directory anew, with a guard of its own."""
    try:
        return os.fstat(file).st_ino != path.stat().st_ino
    except FileNotFoundError:
        return path.parent.exists()


if __name__ == "__main__":
    sys.exit(main())
