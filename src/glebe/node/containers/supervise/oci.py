"""Containers with a root of their own, by an OCI runtime (crun, runc): created and started, then children of ours.

``run.json`` has in ``oci``: ``runtime`` (its path), ``options`` (before the verb), ``id``, ``bundle`` (a directory with
``config.json``), and ``overlay``: ``lower``, ``upper``, ``work``, ``merged`` (the container's root, in the supervisor's
own mount namespace, so that it is gone with it). A guard process ends the container when its supervisor is killed.
"""

# ruff: noqa: SIM105 - contextlib is not imported here
from __future__ import annotations

import _socket
import fcntl
import os
import select

from glebe.node.containers.supervise import inside, system
from glebe.node.containers.supervise.native import CannotStart

TYPE_CHECKING = False
if TYPE_CHECKING:
    import signal as _signal
    from collections.abc import Callable
    from typing import Any, NoReturn
else:
    import _signal

_CONSOLE = "console"
_ALL = (_signal.SIGTERM, _signal.SIGINT, _signal.SIGHUP, _signal.SIGPIPE, _signal.SIGCHLD)
_TEXT = 4000


class Oci:
    """:param procs: open ``cgroup.procs`` files that the runtime enters, and its container with it."""

    channel = None

    def __init__(self, run: dict[str, Any], procs: list[int]) -> None:
        self._run = run
        self._oci: dict[str, Any] = run["oci"]
        self._procs = procs
        self._bundle: str = self._oci["bundle"]
        self._pid = 0
        self._machine = -1  # the mount namespace of the machine
        self._guard = (0, -1)
        self._execs: dict[int, int] = {}  # pid of a further process -> its number
        self._ended: Callable[[int, int], None] = lambda number, status: None
        self._began: Callable[[int, dict[str, Any]], None] = lambda number, message: None
        self.console = -1  # our end of the container's terminal

    def listen(self, began: Callable[[int, dict[str, Any]], None], ended: Callable[[int, int], None]) -> None:
        """Who is told that something began, and that it ended."""
        self._began, self._ended = began, ended

    def open(self) -> None:
        """Make the container's root.

        :raises CannotStart: it cannot be made.
        """
        overlay = self._oci["overlay"]
        try:
            self._machine = os.open("/proc/self/ns/mnt", os.O_RDONLY | os.O_CLOEXEC)
            system.unshare(system.CLONE_NEWNS)
            system.mount("", "/", "", system.MS_REC | system.MS_SLAVE)
            _look_plain()
            for name in ("upper", "work", "merged"):
                os.makedirs(overlay[name], exist_ok=True)
            data = "lowerdir={lower},upperdir={upper},workdir={work}".format(**overlay)
            system.mount("overlay", overlay["merged"], "overlay", system.MS_NODEV, data)
        except OSError as error:
            raise CannotStart(128, f"the image's root cannot be mounted: {error.strerror}") from error

    # --- the container

    def start_main(self, fds: list[int]) -> int:
        """Create and start; the container's process on the machine.

        :raises CannotStart: the runtime refuses, or the image has no such command.
        """
        pid_file = os.path.join(self._bundle, "pid")
        words = ["create", "--bundle", self._bundle, "--pid-file", pid_file]
        listener = self._listen_console() if self._run.get("tty") else None
        if listener is not None:
            words += ["--console-socket", os.path.join(".", _CONSOLE)]
        self._call([*words, self._oci["id"]], fds, enter=True)
        if listener is not None:
            self.console = _receive_console(listener)
        with open(pid_file) as file:
            self._pid = int(file.read())
        self._watch_over(self._pid)
        self._call(["start", self._oci["id"]], fds)
        return self._pid

    def _listen_console(self) -> _socket.socket:
        listener = _socket.socket(_socket.AF_UNIX, _socket.SOCK_STREAM | _socket.SOCK_CLOEXEC)
        before = os.open(".", os.O_RDONLY | os.O_DIRECTORY)
        os.chdir(self._bundle)
        try:
            if os.path.lexists(_CONSOLE):
                os.unlink(_CONSOLE)
            listener.bind(_CONSOLE)  # the path may be longer than an address can be
            listener.listen(1)
        except OSError as error:
            raise CannotStart(128, f"terminal: {error.strerror}") from error
        finally:
            os.fchdir(before)
            os.close(before)
        return listener

    def _call(self, words: list[str], fds: list[int], enter: bool = False, argv: list[str] | None = None) -> None:
        """Run the runtime to its end. What it says goes with the exception.

        :raises CannotStart: it fails.
        """
        said_r, said_w = os.pipe()
        pid = os.fork()
        if pid == 0:
            log = ["--log", f"/proc/self/fd/{self._keep(said_w)}"]
            self._become([self._oci["runtime"], *log, *self._oci["options"], *words], fds, enter)
        os.close(said_w)
        said = b""
        # The container itself may hold the writing end, so its end is not waited for.
        status = os.waitpid(pid, 0)[1]
        while select.select([said_r], [], [], 0)[0] and (data := os.read(said_r, 4096)):
            said += data
        os.close(said_r)
        if status != 0:
            raise _refusal(said.decode(errors="replace").strip()[-_TEXT:], argv or self._run["argv"])

    @staticmethod
    def _keep(fd: int) -> int:
        os.set_inheritable(fd, True)
        return fd

    def _become(self, argv: list[str], fds: list[int], enter: bool) -> NoReturn:
        try:
            _signal.set_wakeup_fd(-1)
            for number in _ALL:
                _signal.signal(number, _signal.SIG_DFL)
            os.setsid()
            system.be_ordinary()
            for fd in self._procs if enter else ():
                os.write(fd, b"0")
            high = [fcntl.fcntl(fd, fcntl.F_DUPFD_CLOEXEC, 64) for fd in fds]
            for target, fd in enumerate(high):
                os.dup2(fd, target)
            os.chdir(self._bundle)
            os.execve(argv[0], argv, {"PATH": "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"})
        finally:
            os._exit(127)

    def _watch_over(self, pid: int) -> None:
        """A process that does nothing but to end the container when its supervisor is no more."""
        told_r, told_w = os.pipe()
        fd = os.pidfd_open(pid)
        guard = os.fork()
        if guard:
            os.close(told_r)
            os.close(fd)
            self._guard = guard, told_w
            return
        try:
            _signal.set_wakeup_fd(-1)
            for number in _ALL:
                _signal.signal(number, _signal.SIG_IGN)
            os.setsid()
            low, high = sorted((told_r, fd))
            os.closerange(0, low)
            os.closerange(low + 1, high)
            os.closerange(high + 1, 1024)
            if not os.read(told_r, 1):
                system.check(system.libc.syscall(424, fd, system.SIGKILL, None, 0))  # pidfd_send_signal
        finally:
            os._exit(0)

    # --- further processes

    def execute(self, number: int, argv: list[str], tty: bool, fds: tuple[int, ...]) -> None:
        """Start a further process: the runtime leaves it to us, its first ancestor that stays."""
        with open(os.path.join(self._bundle, "config.json")) as file:
            process = system.loads(file.read())["process"]
        env = process["env"]
        if tty and not any(word.startswith("TERM=") for word in env):
            env = [*env, "TERM=xterm"]
        files = {kind: os.path.join(self._bundle, f"exec{number}.{kind}") for kind in ("json", "pid")}
        system.write_json(files["json"], {**process, "args": argv, "terminal": tty, "env": env})
        words = ["exec", "--detach", "--process", files["json"], "--pid-file", files["pid"]]
        listener = None
        try:
            if tty:
                listener = self._listen_console()
                words += ["--console-socket", os.path.join(".", _CONSOLE)]
            self._call([*words, self._oci["id"]], list(fds), enter=True, argv=argv)
            terminal = _receive_console(listener) if listener is not None else -1
            with open(files["pid"]) as file:
                pid = int(file.read())
            self._execs[pid] = number
            self._began(number, {"pid": pid, "terminal": terminal})
        except CannotStart as error:
            self._began(number, {"failed": number, "error": str(error), "code": error.exit_code})
        finally:
            if listener is not None:
                listener.close()
            for path in files.values():
                try:
                    os.unlink(path)
                except OSError:
                    pass

    def signal(self, number: int, to: int = 0) -> None:
        """Send a signal: to the container's process, or to a further one."""
        if to == 0 and self._pid:
            _kill(self._pid, number)
        for pid, name in list(self._execs.items()):
            if name == to:
                _kill(pid, number)

    def hear(self) -> bool:
        """There is no channel."""
        return False

    def reaped(self, pid: int, status: int) -> None:
        """A child has ended."""
        if pid == self._pid:
            self._ended(0, status)
        elif pid in self._execs:
            self._ended(self._execs.pop(pid), status)

    def close(self) -> None:
        """End everything and let the runtime forget it."""
        if self._pid:
            _kill(self._pid, system.SIGKILL)
        guard, told = self._guard
        if guard:
            os.write(told, b"x")
            os.close(told)
            self._guard = (0, -1)
            try:
                os.waitpid(guard, 0)
            except ChildProcessError:
                pass
        try:
            self._call(["delete", "--force", self._oci["id"]], [])
        except (CannotStart, OSError):
            pass
        self._unmount()

    def _unmount(self) -> None:
        if self._machine < 0:
            return
        try:
            system.unmount(self._oci["overlay"]["merged"])
            system.enter(f"/proc/self/fd/{self._machine}", system.CLONE_NEWNS)
        except OSError:
            pass


def _look_plain() -> None:
    """Hybrid cgroups, which crun refuses even when it is to leave cgroups alone, look like version 1 from here on."""
    try:
        system.unmount("/sys/fs/cgroup/unified")
    except OSError:
        pass  # no such thing


def _kill(pid: int, number: int) -> None:
    try:
        os.kill(pid, number)
    except OSError:
        pass


def _receive_console(listener: _socket.socket) -> int:
    if not select.select([listener], [], [], 5.0)[0]:
        raise CannotStart(128, "the runtime gave no terminal")
    fd, _ = listener._accept()  # type: ignore[attr-defined]
    connection = _socket.socket(fileno=fd)
    _, fds = inside.receive_raw(connection)
    connection.close()
    listener.close()
    if not fds:
        raise CannotStart(128, "the runtime gave no terminal")
    return fds[0]


def _refusal(said: str, argv: list[str]) -> CannotStart:
    """Runtimes say in words why a command cannot be executed."""
    text = said.replace("\n", "; ") or "the runtime failed without a word"
    low = text.lower()
    command = argv[0] if argv else ""
    if "not found in $path" in low or ("no such file or directory" in low and "exec" in low):
        return CannotStart(127, f'command "{command}" not found in the image: {text}')
    if "permission denied" in low and "exec" in low:
        return CannotStart(126, f'command "{command}" cannot be executed: {text}')
    return CannotStart(128, text)
