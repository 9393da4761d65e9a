"""The parent of one container's process: a program of its own, run as ``python -I -S supervisor.py RUN_DIR``.

It imports nothing of Glebe, so that it starts in about 10 ms and stays small. It outlives the platform: when the
platform dies, the container goes on, and the next platform finds everything in RUN_DIR. It

* claims RUN_DIR (``claim``, created exclusively), so that a run is started once whoever asks how often;
* starts the command in a session of its own and writes its output as CRI log lines;
* on SIGTERM ends the container gracefully, with SIGKILL after ``grace`` seconds (file, else run.json);
* ends it, too, when no platform has been there for ``window`` seconds, so that nothing is orphaned for ever;
* kills whatever the command left behind, and writes ``exit.json`` last, atomically.

Files in RUN_DIR: ``run.json`` (in: argv, env, cwd, log, agent, grace, window), ``claim`` (out: the supervisor's pid
and start time), ``started.json`` (out: pid, start, at), ``exit.json`` (out: code, signal, reason, message, startedAt,
finishedAt).
Times are seconds since the epoch; ``start`` is field 22 of /proc/PID/stat.
"""

from __future__ import annotations

import contextlib
import ctypes
import errno
import json
import os
import select
import signal
import sys
import time
from typing import Any

PR_SET_PDEATHSIG = 1
PR_SET_CHILD_SUBREAPER = 36
LOG_LIMIT = 50 * 1024 * 1024  # bytes; the log is then rotated once, to LOG.1
MARK = "GLEBE_RUN"  # a variable that everything in the run inherits: RUN_DIR
LINE_LIMIT = 16 * 1024  # longer lines are split and tagged P, as container runtimes do


def start_time(pid: int) -> int:
    """Field 22 of /proc/PID/stat (clock ticks since boot), 0 when there is no such process or it is a zombie."""
    try:
        with open(f"/proc/{pid}/stat", "rb") as file:
            fields = file.read().rpartition(b")")[2].split()
        return 0 if fields[0] in (b"Z", b"X") else int(fields[19])
    except (OSError, IndexError):
        return 0


def write_json(path: str, value: dict[str, Any]) -> None:
    """Write a file whole or not at all."""
    with open(path + ".tmp", "w") as file:
        json.dump(value, file)
        file.flush()
        os.fsync(file.fileno())
    os.replace(path + ".tmp", path)


class CannotStart(Exception):
    """Nothing runs; ``exit_code`` is what a shell would say (127 not found, 126 not executable)."""

    def __init__(self, exit_code: int, message: str) -> None:
        super().__init__(message)
        self.exit_code = exit_code


class Log:
    """A CRI log file: ``TIME STREAM F|P TEXT``."""

    def __init__(self, path: str) -> None:
        self._path = path
        self._file = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o640)
        self._rest = {"stdout": b"", "stderr": b""}

    def feed(self, stream: str, data: bytes) -> None:
        """Take output as it comes; a line is written when it is complete. No data: the stream has ended."""
        lines = (self._rest[stream] + data).split(b"\n")
        rest = lines.pop()
        stamp = self._stamp()
        head = f"{stamp} {stream} ".encode()
        out = []
        for line in lines:
            while len(line) > LINE_LIMIT:
                out.append(head + b"P " + line[:LINE_LIMIT])
                line = line[LINE_LIMIT:]
            out.append(head + b"F " + line)
        while len(rest) > LINE_LIMIT:
            out.append(head + b"P " + rest[:LINE_LIMIT])
            rest = rest[LINE_LIMIT:]
        if rest and not data:
            out.append(head + b"F " + rest)
            rest = b""
        self._rest[stream] = rest
        if out:
            self._write(b"\n".join(out) + b"\n")

    def _write(self, data: bytes) -> None:
        with contextlib.suppress(OSError):  # a full disk must not end the container
            os.write(self._file, data)
            if os.fstat(self._file).st_size > LOG_LIMIT:
                os.replace(self._path, self._path + ".1")
                os.close(self._file)
                self._file = os.open(self._path, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o640)

    @staticmethod
    def _stamp() -> str:
        now = time.time_ns()
        return time.strftime("%Y-%m-%dT%H:%M:%S", time.gmtime(now // 10**9)) + f".{now % 10**9:09d}Z"


class Supervisor:
    def __init__(self, run_dir: str) -> None:
        self.dir = run_dir
        with open(self.path("run.json")) as file:
            self.run: dict[str, Any] = json.load(file)
        self.log = Log(self.run["log"])
        self.pid = 0
        self.started = 0.0
        self.reason = ""
        self.message = ""
        self.kill_at: float | None = None
        self.alone_since: float | None = None
        self.agent_fd = -1
        self.wake_fd = -1
        self.ended: int | None = None  # the command's wait status

    def path(self, name: str) -> str:
        return os.path.join(self.dir, name)

    # --- 1. claim and start

    def claim(self) -> bool:
        """Whether this process is the one supervisor of the run."""
        try:
            fd = os.open(self.path("claim"), os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o640)
        except FileExistsError:
            return False
        os.write(fd, f"{os.getpid()} {start_time(os.getpid())}\n".encode())
        os.close(fd)
        return True

    def obey(self) -> None:
        """Take signals from now on; each wakes :meth:`watch`."""
        self.wake_fd, wake_w = os.pipe()
        os.set_blocking(wake_w, False)
        signal.set_wakeup_fd(wake_w)
        signal.signal(signal.SIGTERM, lambda *_: self.stop("", ""))
        signal.signal(signal.SIGCHLD, lambda *_: None)
        for number in (signal.SIGINT, signal.SIGHUP):
            signal.signal(number, signal.SIG_IGN)

    def start(self) -> tuple[int, int]:
        """Fork the command; returns the reading ends of its stdout and stderr.

        :raises CannotStart: the command, or its working directory, cannot be used.
        """
        out_r, out_w = os.pipe()
        err_r, err_w = os.pipe()
        fail_r, fail_w = os.pipe()  # closed by a successful exec, else carries errno and stage
        parent = os.getpid()
        self.pid = os.fork()
        if self.pid == 0:
            self._child(parent, out_w, err_w, fail_w)
        for fd in (out_w, err_w, fail_w):
            os.close(fd)
        self.started = time.time()
        failure = os.read(fail_r, 100).decode()
        os.close(fail_r)
        if failure:
            os.waitpid(self.pid, 0)
            number, _, stage = failure.partition(" ")
            raise self._cannot_start(int(number), stage)
        stamp = {"pid": self.pid, "start": start_time(self.pid), "at": self.started}
        write_json(self.path("started.json"), stamp)
        if self.kill_at is not None:  # asked to stop before there was anything to stop
            self.signal(signal.SIGTERM)
        return out_r, err_r

    def _cannot_start(self, number: int, stage: str) -> CannotStart:
        if stage == "chdir":
            return CannotStart(128, f'workingDir "{self.run["cwd"]}": {os.strerror(number)}')
        command = self.run["argv"][0]
        if number == errno.ENOENT:
            return CannotStart(127, f'command "{command}" not found on this machine')
        return CannotStart(126, f'command "{command}" cannot be executed: {os.strerror(number)}')

    def _child(self, parent: int, out: int, err: int, fail: int) -> None:
        stage = "chdir"
        try:
            os.setsid()
            libc.prctl(PR_SET_PDEATHSIG, signal.SIGKILL)
            if os.getppid() != parent:
                os._exit(137)
            for number in (signal.SIGTERM, signal.SIGINT, signal.SIGHUP, signal.SIGPIPE, signal.SIGCHLD):
                signal.signal(number, signal.SIG_DFL)
            null = os.open(os.devnull, os.O_RDONLY)
            for source, target in ((null, 0), (out, 1), (err, 2)):
                os.dup2(source, target)
            os.chdir(self.run["cwd"])
            stage = "exec"
            os.execvpe(self.run["argv"][0], self.run["argv"], {**self.run["env"], MARK: self.dir})
        except OSError as error:
            os.write(fail, f"{error.errno} {stage}".encode())
        finally:
            os._exit(127)

    # --- 2. watch

    def watch(self, out: int, err: int) -> int:
        """Until the command has ended: pass its output on, obey signals, mind the platform. Returns its wait status."""
        streams = {out: "stdout", err: "stderr"}
        self.find_agent()
        while True:
            self._reap()
            if self.ended is not None:
                self._drain(streams)
                return self.ended
            poll = select.poll()
            for fd in (*streams, self.wake_fd, *((self.agent_fd,) if self.agent_fd >= 0 else ())):
                poll.register(fd, select.POLLIN)
            for fd, _ in poll.poll(self._timeout()):
                if fd in streams:
                    self._pass_on(fd, streams)
                elif fd == self.wake_fd:
                    os.read(self.wake_fd, 512)
                else:
                    os.close(self.agent_fd)
                    self.agent_fd = -1
            self.mind_time()

    def _pass_on(self, fd: int, streams: dict[int, str]) -> bool:
        data = os.read(fd, 65536)
        self.log.feed(streams[fd], data)
        if not data:
            del streams[fd]
            os.close(fd)
        return bool(data)

    def _drain(self, streams: dict[int, str]) -> None:
        """What the command wrote before it ended; a left-over child that holds the pipe does not delay us."""
        self.sweep()
        for fd in list(streams):
            while select.select([fd], [], [], 0)[0] and self._pass_on(fd, streams):
                pass
            if fd in streams:
                self.log.feed(streams[fd], b"")

    def _reap(self) -> None:
        """Note the command's end, if it has ended; adopted grandchildren are reaped on the way."""
        with contextlib.suppress(ChildProcessError):
            while True:
                pid, status = os.waitpid(-1, os.WNOHANG)
                if pid == 0:
                    return
                if pid == self.pid:
                    self.ended = status

    def _timeout(self) -> int | None:
        """Milliseconds to the next thing to do by itself; ``None``: nothing, so sleep until something happens."""
        if self.kill_at is not None:
            return max(0, int((self.kill_at - time.monotonic()) * 1000)) + 1
        return 500 if self.agent_fd < 0 else None

    def mind_time(self) -> None:
        now = time.monotonic()
        if self.kill_at is not None and now >= self.kill_at:
            self.signal(signal.SIGKILL)
            self.sweep()
            self.kill_at = now + 1.0
        if self.agent_fd >= 0:
            return
        self.find_agent()
        if self.agent_fd >= 0:
            self.alone_since = None
            return
        self.alone_since = self.alone_since if self.alone_since is not None else now
        if now - self.alone_since >= self.run["window"]:
            self.stop("PlatformGone", f"no platform came back within {self.run['window']:g} s")

    def find_agent(self) -> None:
        """Hold on to the platform that is there now, if any, so that its death wakes us."""
        try:
            with open(self.run["agent"]) as file:
                pid, start = map(int, file.read().split())
            fd = os.pidfd_open(pid)
        except (OSError, ValueError):
            return
        if start_time(pid) == start:
            self.agent_fd = fd
        else:
            os.close(fd)

    # --- 3. end

    def stop(self, reason: str, message: str) -> None:
        """Ask the container to end; SIGKILL follows after the grace period."""
        if self.kill_at is not None and reason:
            return
        grace = float(self.run["grace"])
        with contextlib.suppress(OSError, ValueError), open(self.path("grace")) as file:
            grace = float(file.read())
        deadline = time.monotonic() + grace
        first = self.kill_at is None
        self.kill_at = deadline if first else min(self.kill_at or deadline, deadline)
        if first:
            self.reason, self.message = reason, message
            self.signal(signal.SIGTERM)

    def signal(self, number: int) -> None:
        if self.pid:
            with contextlib.suppress(OSError):
                os.killpg(self.pid, number)

    def sweep(self) -> None:
        """Kill everything that descends from the command, wherever it hid."""
        self.signal(signal.SIGKILL)
        for _ in range(100):
            children = self._children()
            if not children:
                return
            for pid in children:
                with contextlib.suppress(OSError):
                    os.kill(pid, signal.SIGKILL)
            time.sleep(0.002)
            self._reap()

    @staticmethod
    def _children() -> list[int]:
        with contextlib.suppress(OSError), open(f"/proc/self/task/{os.getpid()}/children") as file:
            return [int(word) for word in file.read().split()]
        return []

    def finish(self, status: int) -> None:
        code = os.waitstatus_to_exitcode(status)
        number = -code if code < 0 else 0
        self.write_exit(128 + number if number else code, number, self.reason, self.message)

    def write_exit(self, code: int, number: int, reason: str, message: str) -> None:
        value = {
            "code": code,
            "signal": number,
            "reason": reason,
            "message": message,
            "startedAt": self.started,
            "finishedAt": time.time(),
        }
        write_json(self.path("exit.json"), value)


def main() -> int:
    supervisor = Supervisor(sys.argv[1])
    if not supervisor.claim():
        return 75
    libc.prctl(PR_SET_CHILD_SUBREAPER, 1)
    supervisor.obey()
    try:
        out, err = supervisor.start()
    except CannotStart as error:
        supervisor.write_exit(error.exit_code, 0, "StartError", f"cannot start the container: {error}")
        return 0
    supervisor.finish(supervisor.watch(out, err))
    return 0


if __name__ == "__main__":
    libc = ctypes.CDLL(None)
    sys.exit(main())
