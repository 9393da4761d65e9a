"""The parent of one container's process.

It imports nothing of Glebe but this package, so that it starts quickly and stays small. It outlives the platform: when
the platform dies, the container goes on, and the next platform finds everything in RUN_DIR. It

* claims RUN_DIR (``claim``, created exclusively), so that a run is started once whoever asks how often;
* starts the command, in namespaces and cgroups if it is told to, and writes its output as CRI log lines;
* serves those who execute further commands in the container or attach to it (``socket``);
* on SIGTERM ends the container gracefully, with SIGKILL after ``grace`` seconds (file, else run.json);
* ends it, too, when no platform has been there for ``window`` seconds, so that nothing is orphaned for ever;
* kills whatever the command left behind, removes its cgroups, and writes ``exit.json`` last, atomically.

Files in RUN_DIR: ``run.json`` (in: argv, env, cwd, log, agent, grace, window; further keys as
:mod:`glebe.node.containers.runspec` writes them), ``claim`` (out: the supervisor's pid and start time),
``started.json`` (out: pid, start, at), ``exit.json`` (out: code, signal, reason, message, startedAt, finishedAt).
Times are seconds since the epoch; ``start`` is field 22 of /proc/PID/stat.
"""

# ruff: noqa: SIM105 - contextlib is not imported here
from __future__ import annotations

import os
import select
import time

from glebe.node.containers.supervise import crifile, limits, native, oci, sessions, stdio, system

TYPE_CHECKING = False
if TYPE_CHECKING:
    import signal as _signal
    from typing import Any
else:
    import _signal

MARK = "GLEBE_RUN"  # a variable that everything in the run inherits: RUN_DIR
_IDLE = 500  # milliseconds between two looks for a platform


class Supervisor:
    def __init__(self, run_dir: str) -> None:
        self.dir = run_dir
        with open(self.path("run.json")) as file:
            self.run: dict[str, Any] = system.loads(file.read())
        sizes = (self.run.get("logSize") or crifile.SIZE, self.run.get("logFiles") or crifile.FILES)
        self.stdio = stdio.Stdio(self.run, crifile.Log(self.run["log"], *sizes))
        self.limits = limits.Limits(self.run, run_dir)
        mark = {MARK: run_dir}
        made: Any = oci.Oci(self.run, self.limits.procs) if self.run.get("oci") else None
        self.container: Any = made or native.Native(self.run, mark, self.limits.procs)
        self.sessions = sessions.Sessions(self.container, self.stdio, bool(self.run.get("tty")))
        self.stdio.tell = self.sessions.tell
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
            fd = os.open(self.path("claim"), os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o640)
        except FileExistsError:
            return False
        os.write(fd, f"{os.getpid()} {system.start_time(os.getpid())}\n".encode())
        os.close(fd)
        return True

    def obey(self) -> None:
        """Take signals from now on; each wakes :meth:`watch`."""
        self.wake_fd, wake_w = os.pipe()
        os.set_blocking(wake_w, False)
        _signal.set_wakeup_fd(wake_w)
        _signal.signal(_signal.SIGTERM, lambda *_: self.stop("", ""))
        _signal.signal(_signal.SIGCHLD, lambda *_: None)
        for number in (_signal.SIGINT, _signal.SIGHUP, _signal.SIGPIPE):
            _signal.signal(number, _signal.SIG_IGN)

    def start(self) -> None:
        """Start the container.

        :raises CannotStart: it cannot be started as it is written.
        """
        try:
            self.limits.open()
            self.sessions.open(self.dir)
        except OSError as error:
            raise native.CannotStart(128, f"{error.filename or 'cgroup'}: {error.strerror}") from error
        self.container.listen(self._began, self._ended)
        self.container.open()
        theirs = self.stdio.open()
        try:
            self.pid = self.container.start_main(theirs)
        finally:
            for fd in set(theirs):
                os.close(fd)
        if self.container.console >= 0:
            self.stdio.use_terminal(self.container.console)
        self.started = time.time()
        stamp = {"pid": self.pid, "start": system.start_time(self.pid), "at": self.started}
        system.write_json(self.path("started.json"), stamp)
        if self.kill_at is not None:  # asked to stop before there was anything to stop
            self.container.signal(self._stop_signal())

    # --- 2. watch

    def watch(self) -> int:
        """Until the command has ended: pass its output on, obey signals, mind the platform. Returns its wait status."""
        self.find_agent()
        while True:
            self._reap()
            if self.ended is not None:
                return self.ended
            for fd, event in self._poll().poll(self._timeout()):
                self._on(fd, event)
            self.mind_time()

    def _poll(self) -> select.poll:
        poll = select.poll()
        for fd in (self.wake_fd, self.sessions.listener.fileno(), *self.stdio.streams):
            poll.register(fd, select.POLLIN)
        for fd in (self.agent_fd, self.container.channel.fileno() if self.container.channel else -1):
            if fd >= 0:
                poll.register(fd, select.POLLIN)
        full = self.stdio.full
        for fd, session in self.sessions.sessions.items():
            wanted = 0 if full and session.attached else select.POLLIN
            poll.register(fd, wanted | (select.POLLOUT if session.behind else 0))
        if self.stdio.waiting:
            fd = self.stdio.input_fd
            poll.register(fd, select.POLLOUT | (select.POLLIN if fd in self.stdio.streams else 0))
        return poll

    def _on(self, fd: int, event: int) -> None:
        if fd in self.stdio.streams and event & (select.POLLIN | select.POLLHUP | select.POLLERR):
            self.stdio.pass_on(fd)
        if fd == self.stdio.input_fd:
            self.stdio.feed()
        elif fd == self.wake_fd:
            os.read(fd, 512)
        elif fd == self.agent_fd:
            os.close(fd)
            self.agent_fd = -1
        elif fd == self.sessions.listener.fileno():
            self.sessions.accept()
        elif fd in self.sessions.sessions:
            session = self.sessions.sessions[fd]
            if event & select.POLLOUT and not session.flush():
                self.sessions.drop(session)
            elif event & (select.POLLIN | select.POLLHUP | select.POLLERR):
                self.sessions.hear(fd)
        elif self.container.channel and fd == self.container.channel.fileno() and not self.container.hear():
            self.container.channel.close()
            self.container.channel = None

    def _began(self, number: int, message: dict[str, Any]) -> None:
        self.sessions.began(number, message)

    def _ended(self, number: int, status: int) -> None:
        if number:
            self.sessions.ended(number, status)
        elif self.ended is None:
            self.ended = status

    def _reap(self) -> None:
        """Take in what has ended; orphans of the container come here, too."""
        try:
            while True:
                pid, status = os.waitpid(-1, os.WNOHANG)
                if pid == 0:
                    return
                self.container.reaped(pid, status)
        except ChildProcessError:
            pass

    # --- time

    def _timeout(self) -> int | None:
        """Milliseconds to the next thing to do by itself; ``None``: nothing, so sleep until something happens."""
        waits = []
        if self.kill_at is not None:
            waits.append(max(0, int((self.kill_at - time.monotonic()) * 1000)) + 1)
        if self.agent_fd < 0:
            waits.append(_IDLE)
        if self.limits.watching:
            waits.append(int(limits.LOOK * 1000))
        return min(waits) if waits else None

    def mind_time(self) -> None:
        now = time.monotonic()
        if self.kill_at is not None and now >= self.kill_at:
            self.container.signal(system.SIGKILL)
            self.kill_at = now + 1.0
        self.limits.refresh()
        if self.limits.watching and self.limits.look():
            self.container.signal(system.SIGKILL)
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
        if system.start_time(pid) == start:
            self.agent_fd = fd
        else:
            os.close(fd)

    # --- 3. end

    def _stop_signal(self) -> int:
        return int(self.run.get("stopSignal") or _signal.SIGTERM)

    def stop(self, reason: str, message: str) -> None:
        """Ask the container to end; SIGKILL follows after the grace period."""
        if self.kill_at is not None and reason:
            return
        grace = float(self.run["grace"])
        try:
            with open(self.path("grace")) as file:
                grace = float(file.read())
        except (OSError, ValueError):
            pass
        deadline = time.monotonic() + grace
        first = self.kill_at is None
        self.kill_at = deadline if first else min(self.kill_at or deadline, deadline)
        if first:
            self.reason, self.message = reason, message
            if self.pid:
                self.container.signal(self._stop_signal())

    def sweep(self) -> None:
        """Kill everything that descends from the command, wherever it hid."""
        self.container.close()
        for _ in range(100):
            children = system.children(os.getpid())
            if not children:
                return
            for pid in children:
                try:
                    os.kill(pid, system.SIGKILL)
                except OSError:
                    pass
            time.sleep(0.002)
            self._reap()

    def finish(self, status: int) -> None:
        """The command has ended: leave nothing behind and say how it was."""
        code = os.waitstatus_to_exitcode(status)
        number = -code if code < 0 else 0
        if code and self.limits.out_of_memory():
            self.reason, self.message = "OOMKilled", self.message
        self.sweep()
        self.stdio.drain()
        self.sessions.close()
        self.limits.close()
        if self.reason == "PlatformGone":
            self._unmount_volumes()
        self.write_exit(128 + number if number else code, number, self.reason, self.message)

    def give_up(self, error: native.CannotStart) -> None:
        """It could not be started."""
        self.sweep()
        self.sessions.close()
        self.limits.close()
        self.write_exit(error.exit_code, 0, "StartError", f"cannot start the container: {error}")

    def _unmount_volumes(self) -> None:
        """No agent is there to do it: volumes in memory are mounted below the pod's directory."""
        pod = os.path.dirname(os.path.dirname(os.path.abspath(self.dir)))
        for target in system.mounts_below(os.path.join(pod, "volumes")):
            try:
                system.unmount(target)
            except OSError:
                pass

    def write_exit(self, code: int, number: int, reason: str, message: str) -> None:
        value = {
            "code": code,
            "signal": number,
            "reason": reason,
            "message": message,
            "startedAt": self.started,
            "finishedAt": time.time(),
        }
        system.write_json(self.path("exit.json"), value)


def main(run_dir: str) -> int:
    """Supervise the run; the exit status is 75 when another does already."""
    supervisor = Supervisor(run_dir)
    if not supervisor.claim():
        return 75
    system.prctl(system.PR_SET_CHILD_SUBREAPER, 1)
    supervisor.obey()
    try:
        supervisor.start()
    except native.CannotStart as error:
        supervisor.give_up(error)
        return 0
    except Exception as error:  # whatever it is: the run must have an end
        supervisor.give_up(native.CannotStart(128, f"its supervisor failed: {error!r}"))
        return 1
    try:
        status = supervisor.watch()
    except Exception as error:
        supervisor.reason, supervisor.message = "ContainerStatusUnknown", f"its supervisor failed: {error!r}"
        status = system.SIGKILL
    supervisor.finish(status)
    return 0


__all__ = ["MARK", "Supervisor", "main"]
