"""The process that stands inside a container: it sets the namespaces up and starts what is to run there.

The supervisor forks it (no second start of Python) and asks it over a socket of packets, JSON with descriptors beside:
``{"start": ID, "argv", "tty"}`` with three descriptors, ``{"signal": N, "to": ID}``. It says
``{"ready": 1}``, ``{"started": ID, "pid"}``, ``{"failed": ID, "errno", "stage", "what"}``, ``{"ended": ID, "status"}``
(``pid`` as it sees it). ID 0 is the container's own process. In a PID namespace it is process 1: it takes in orphans,
passes SIGTERM on to the container's process, and everything ends with it.
"""

# ruff: noqa: SIM105 - contextlib is not imported here
from __future__ import annotations

import _socket
import errno
import fcntl
import os
import resource
import select
import struct
import termios

from glebe.node.containers.supervise import system

TYPE_CHECKING = False
if TYPE_CHECKING:
    import signal as _signal
    from typing import Any, NoReturn
else:
    import _signal

_PACKET = 1 << 20
_HANDLED = (_signal.SIGTERM, _signal.SIGINT, _signal.SIGHUP, _signal.SIGPIPE, _signal.SIGCHLD, _signal.SIGQUIT)
_LAST_CAPABILITY = 40
_PATH = "/usr/local/bin:/usr/bin:/bin"
_MASKED = ("/proc/kcore", "/proc/keys", "/proc/timer_list", "/proc/sched_debug", "/proc/latency_stats")
_READ_ONLY = ("/proc/sys", "/proc/sysrq-trigger", "/proc/irq", "/proc/bus", "/proc/fs")


class SetupError(Exception):
    """A step of the set-up failed."""

    def __init__(self, number: int, stage: str, what: str) -> None:
        super().__init__(number, stage, what)
        self.number, self.stage, self.what = number, stage, what


def send(channel: _socket.socket, message: dict[str, Any], fds: tuple[int, ...] = ()) -> None:
    """One packet."""
    rights = struct.pack(f"{len(fds)}i", *fds)  # the module array would bring half of collections along
    ancillary = [(_socket.SOL_SOCKET, _socket.SCM_RIGHTS, rights)] if fds else []
    channel.sendmsg([system.dumps(message).encode()], ancillary)


def receive(channel: _socket.socket) -> tuple[dict[str, Any] | None, list[int]]:
    """One packet and its descriptors; ``None``: the other end is gone."""
    data, fds = receive_raw(channel)
    return (system.loads(data.decode()) if data else None), fds


def receive_raw(channel: _socket.socket) -> tuple[bytes, list[int]]:
    """Bytes and the descriptors beside them."""
    data, ancillary, _, _ = channel.recvmsg(_PACKET, _socket.CMSG_SPACE(4 * 16), 0x40000000)  # MSG_CMSG_CLOEXEC
    fds: list[int] = []
    for _, kind, content in ancillary:
        if kind == _socket.SCM_RIGHTS:
            fds += struct.unpack(f"{len(content) // 4}i", content[: len(content) // 4 * 4])
    return data, fds


class Inside:
    """:param procs: open ``cgroup.procs`` files that what is started here enters."""

    def __init__(self, run: dict[str, Any], channel: _socket.socket, mark: dict[str, str], procs: list[int]) -> None:
        self._run = run
        self._channel = channel
        self._mark = mark
        self._procs = procs
        self._pids: dict[int, int] = {}  # of what runs here: pid -> ID

    def main(self, supervisor: int, seen: int) -> NoReturn:
        """Set up, then serve until the supervisor is gone. ``seen``: its pid as this process sees it at the start."""
        try:
            system.prctl(system.PR_SET_PDEATHSIG, system.SIGKILL)
            if os.getppid() != seen and os.getppid() != supervisor:
                os._exit(137)
            os.setsid()
            wake = self._obey()
            try:
                self._set_up()
            except SetupError as error:
                self._fail(0, error)
                os._exit(127)
            send(self._channel, {"ready": 1})
            self._serve(wake)
        finally:
            os._exit(126)

    def _obey(self) -> int:
        wake_r, wake_w = os.pipe()
        os.set_blocking(wake_w, False)
        os.set_blocking(wake_r, False)
        _signal.set_wakeup_fd(wake_w)
        _signal.signal(_signal.SIGCHLD, lambda *_: None)
        _signal.signal(_signal.SIGTERM, lambda *_: self._signal(0, _signal.SIGTERM))
        for number in (_signal.SIGINT, _signal.SIGHUP, _signal.SIGPIPE):
            _signal.signal(number, _signal.SIG_IGN)
        return wake_r

    # --- namespaces

    def _set_up(self) -> None:
        spaces = self._run.get("namespaces") or {}
        if spaces.get("network"):
            _step("network", spaces["network"], system.enter, spaces["network"], system.CLONE_NEWNET)
        if spaces.get("hostname"):
            _step("hostname", "", system.unshare, system.CLONE_NEWUTS)
            _step("hostname", spaces["hostname"], system.set_hostname, spaces["hostname"][:64])
        if spaces.get("mount"):
            _step("mount", "", system.unshare, system.CLONE_NEWNS)
            _step("mount", "/", system.mount, "", "/", "", system.MS_REC | system.MS_SLAVE)
            for operation in self._run.get("mounts") or ():
                _step("mount", operation[1], _MOUNTS[operation[0]], *operation[1:])
            if spaces.get("pid") and not (self._run.get("identity") or {}).get("privileged"):
                _mask()

    # --- service

    def _serve(self, wake: int) -> NoReturn:
        poll = select.poll()
        poll.register(wake, select.POLLIN)
        poll.register(self._channel.fileno(), select.POLLIN)
        while True:
            for fd, _ in poll.poll():
                if fd == wake:
                    _drain(wake)
                    continue
                message, fds = receive(self._channel)
                if message is None:
                    os._exit(0)
                if "start" in message:
                    self._start(message, fds)
                elif "signal" in message:
                    self._signal(message["to"], message["signal"])
            self._reap()

    def _reap(self) -> None:
        try:
            while True:
                pid, status = os.waitpid(-1, os.WNOHANG)
                if pid == 0:
                    return
                number = self._pids.pop(pid, None)
                if number is not None:
                    send(self._channel, {"ended": number, "status": status})
        except ChildProcessError:
            pass

    def _signal(self, to: int, number: int) -> None:
        for pid, name in list(self._pids.items()):
            if name == to:
                # Whoever asks the container to end asks its first process, as runtimes do.
                _kill(os.kill if to == 0 and number != system.SIGKILL else os.killpg, pid, number)
                if number == system.SIGKILL and to:  # job control gives each job a group of its own
                    for other in system.descendants(os.getpid()):
                        if _session(other) == pid:
                            _kill(os.kill, other, number)

    def _start(self, message: dict[str, Any], fds: list[int]) -> None:
        number = message["start"]
        fail_r, fail_w = os.pipe()
        pid = os.fork()
        if pid == 0:
            self._become(message, fds, fail_w)
        for fd in {fail_w, *fds}:
            os.close(fd)
        failure = os.read(fail_r, 4096).decode()  # closed by a successful exec
        os.close(fail_r)
        if failure:
            os.waitpid(pid, 0)
            error, stage, what = failure.split(" ", 2)
            self._fail(number, SetupError(int(error), stage, what))
        else:
            self._pids[pid] = number
            send(self._channel, {"started": number, "pid": pid})

    def _fail(self, number: int, error: SetupError) -> None:
        send(self._channel, {"failed": number, "errno": error.number, "stage": error.stage, "what": error.what[:2000]})

    def _become(self, message: dict[str, Any], fds: list[int], fail: int) -> NoReturn:
        stage, what = "session", ""
        try:
            _signal.set_wakeup_fd(-1)
            system.prctl(system.PR_SET_PDEATHSIG, system.SIGKILL)
            for number in _HANDLED:
                _signal.signal(number, _signal.SIG_DFL)
            os.setsid()
            stage = "cgroup"
            system.be_ordinary()
            for fd in self._procs:
                os.write(fd, b"0")
            stage = "session"
            high = [fcntl.fcntl(fd, fcntl.F_DUPFD_CLOEXEC, 10) for fd in fds]
            for target, fd in enumerate(high):
                os.dup2(fd, target)
            if message.get("tty"):
                fcntl.ioctl(0, termios.TIOCSCTTY, 0)
            os.umask(0o022)
            resource.setrlimit(resource.RLIMIT_CORE, (0, resource.getrlimit(resource.RLIMIT_CORE)[1]))
            stage = "identity"
            self._take_identity()
            stage, what = "chdir", self._run["cwd"]
            os.chdir(what)
            argv = message["argv"] or self._run["argv"]
            stage, what = "exec", argv[0]
            terminal = {"TERM": "xterm"} if message.get("tty") else {}
            _execute(argv, {**terminal, **self._run["env"], **self._mark})
        except OSError as error:
            os.write(fail, f"{error.errno} {stage} {what}".encode())
        except BaseException as error:
            os.write(fail, f"{errno.EINVAL} {stage} {what} {error!r}".encode())
        finally:
            os._exit(127)

    def _take_identity(self) -> None:
        """Give up what the container is not to have; in this order each step may still take the next one."""
        identity = self._run.get("identity") or {}
        kept = identity.get("capabilities")
        if kept is not None:
            for number in range(_LAST_CAPABILITY + 1):
                if number not in kept:
                    _drop(number)
        user, group = identity.get("user"), identity.get("group")
        if identity.get("groups") is not None and os.geteuid() == 0:
            os.setgroups(identity["groups"])
        if group is not None and (group, group) != (os.getegid(), os.getgid()):
            os.setgid(group)
        if user is not None and (user, user) != (os.geteuid(), os.getuid()):
            os.setuid(user)
        system.prctl(system.PR_SET_PDEATHSIG, system.SIGKILL)  # a change of user cleared it
        if identity.get("noNewPrivileges"):
            system.prctl(system.PR_SET_NO_NEW_PRIVS, 1)


def _execute(argv: list[str], env: dict[str, str]) -> NoReturn:
    """As execvpe, which imports modules, and those cannot be read any more as another user."""
    if "/" in argv[0]:
        os.execve(argv[0], argv, env)
    refused = FileNotFoundError(errno.ENOENT, os.strerror(errno.ENOENT), argv[0])
    for directory in env.get("PATH", _PATH).split(":"):
        try:
            os.execve(f"{directory or '.'}/{argv[0]}", argv, env)
        except (FileNotFoundError, NotADirectoryError):
            pass
        except OSError as error:
            refused = error  # type: ignore[assignment]
    raise refused


def _step(stage: str, what: str, work: Any, *arguments: Any) -> None:
    try:
        work(*arguments)
    except OSError as error:
        raise SetupError(error.errno or 0, stage, what) from error


def _drop(capability: int) -> None:
    try:
        system.prctl(system.PR_CAPBSET_DROP, capability)
    except OSError:
        pass  # a number this kernel does not know, or nothing to drop without privileges


def _drain(fd: int) -> None:
    try:
        while os.read(fd, 512):
            pass
    except BlockingIOError:
        pass


def _kill(how: Any, pid: int, number: int) -> None:
    try:
        how(pid, number)
    except OSError:
        pass


def _session(pid: int) -> int:
    try:
        return os.getsid(pid)
    except OSError:
        return 0


# --- mounts, as the agent planned them (glebe.node.containers.mountplan)


def _bind(source: str, target: str, recursive: bool, read_only: bool) -> None:
    system.mount(source, target, "", system.MS_BIND | (system.MS_REC if recursive else 0))
    if read_only:
        system.set_read_only(target, recursive)


def _proc(target: str) -> None:
    flags = system.MS_NOSUID | system.MS_NODEV | system.MS_NOEXEC
    system.mount("proc", target, "proc", flags)


def _cover(target: str) -> None:
    """Nothing is to be seen there."""
    system.mount("tmpfs", target, "tmpfs", system.MS_NOSUID | system.MS_NODEV | system.MS_RDONLY, "size=0,mode=755")


def _lock(target: str) -> None:
    system.set_read_only(target, True)


def _unlock(target: str) -> None:
    system.set_read_only(target, False, on=False)


def _mask() -> None:
    """A pod must not turn the machine's knobs (its own /proc has them all)."""
    for path in _READ_ONLY:
        try:
            _bind(path, path, True, True)
        except OSError:
            pass
    for path in _MASKED:
        try:
            system.mount("/dev/null", path, "", system.MS_BIND)
        except OSError:
            pass


_MOUNTS = {"bind": _bind, "proc": _proc, "cover": _cover, "pivot": system.pivot, "lock": _lock, "unlock": _unlock}
