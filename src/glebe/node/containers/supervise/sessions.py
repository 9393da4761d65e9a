"""Who talks to a container: a socket in the run directory, packets of JSON, one connection for one conversation.

``{"do": "exec", "argv": [...], "tty": bool}`` with three descriptors: a further process; the answers are ``{"pid"}``
(with a descriptor, when the terminal is another than the one that was sent) or ``{"error", "code"}``, then
``{"exit": CODE}``. When the client leaves, the process is killed.

``{"do": "attach", "stdin": bool}``: answer ``{"tty": bool}``; from then on a packet's first byte says what it is.
From the supervisor 1 and 2, output, from now on and not before; from the client 0, input, 4, its end, and 5, the
terminal's size (two unsigned shorts: columns, rows). The container's end closes the connection.
"""

# ruff: noqa: SIM105 - contextlib is not imported here
from __future__ import annotations

import _socket
import os

from glebe.node.containers.supervise import inside, system
from glebe.node.containers.supervise.native import cannot_start

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

    from glebe.node.containers.supervise.stdio import Stdio

NAME = "socket"
_BEHIND = 4 * 1024 * 1024  # bytes that wait for an attached client; one that is slower is dropped, not waited for
_PACKET = 1 << 20


class Session:
    def __init__(self, number: int, connection: _socket.socket) -> None:
        self.number = number
        self.connection = connection
        self.fd = connection.fileno()
        self.attached = False
        self.gives_input = False
        self.running = False
        self._waiting: list[bytes] = []
        self._behind = 0

    def send(self, data: bytes) -> bool:
        """Send now or later; ``False``: the client is gone or too slow."""
        if not self._waiting:
            try:
                self.connection.send(data)
                return True
            except BlockingIOError:
                pass
            except OSError:
                return False
        self._waiting.append(data)
        self._behind += len(data)
        return self._behind <= _BEHIND

    def flush(self) -> bool:
        """Send what waits, as far as it goes; ``False``: the client is gone."""
        try:
            while self._waiting:
                self.connection.send(self._waiting[0])
                self._behind -= len(self._waiting.pop(0))
        except BlockingIOError:
            pass
        except OSError:
            return False
        return True

    @property
    def behind(self) -> bool:
        return bool(self._waiting)


class Sessions:
    """:param container: starts further processes. :param stdio: the container's own streams."""

    def __init__(self, container: Any, stdio: Stdio, tty: bool) -> None:
        self._container = container
        self._stdio = stdio
        self._tty = tty
        self._last = 0
        self.sessions: dict[int, Session] = {}  # by descriptor
        self._leaving: list[Session] = []
        self.listener = _socket.socket(_socket.AF_UNIX, _socket.SOCK_SEQPACKET | _socket.SOCK_CLOEXEC)
        self.listener.setblocking(False)

    def open(self, directory: str) -> None:
        """Listen in a directory whose path may be longer than an address can be."""
        before = os.open(".", os.O_RDONLY | os.O_DIRECTORY)
        os.chdir(directory)
        try:
            os.unlink(NAME)
        except FileNotFoundError:
            pass
        self.listener.bind(NAME)
        os.chmod(NAME, 0o600)
        self.listener.listen(64)
        os.fchdir(before)
        os.close(before)

    def accept(self) -> None:
        """Take in a client."""
        try:
            fd, _ = self.listener._accept()  # type: ignore[attr-defined]
        except OSError:
            return
        connection = _socket.socket(fileno=fd)
        connection.setblocking(False)
        self._last += 1
        self.sessions[fd] = Session(self._last, connection)

    def hear(self, fd: int) -> None:
        """A client has said something."""
        session = self.sessions[fd]
        if session.attached:
            self._hear_attached(session)
            return
        fds: list[int] = []
        try:
            said, fds = inside.receive(session.connection)
            if session.running:
                self._leave(session)
            elif said is None:
                self.drop(session)
            elif said["do"] == "exec":
                session.running = True
                self._container.execute(session.number, said["argv"], bool(said.get("tty")), tuple(fds))
            else:
                session.attached = True
                session.gives_input = bool(said.get("stdin"))
                session.send(system.dumps({"tty": self._tty}).encode())
        except BlockingIOError:
            pass
        except (OSError, ValueError, KeyError, TypeError, StopIteration):
            self._leave(session) if session.running else self.drop(session)
        finally:
            for number in fds:
                os.close(number)

    def _hear_attached(self, session: Session) -> None:
        try:
            data = session.connection.recv(_PACKET)
        except BlockingIOError:
            return
        except OSError:
            data = b""
        if not data:
            self.drop(session)
        elif data[0] == 0 and session.gives_input:
            self._stdio.give(data[1:])
        elif data[0] == 4 and session.gives_input:
            self._stdio.last_input()
        elif data[0] == 5 and len(data) == 5:
            self._stdio.resize(int.from_bytes(data[1:3], "big"), int.from_bytes(data[3:5], "big"))

    def tell(self, stream: int, data: bytes) -> None:
        """Output for all who are attached."""
        for session in list(self.sessions.values()):
            if session.attached and not session.send(bytes((stream,)) + data):
                self.drop(session)

    def began(self, number: int, message: dict[str, Any]) -> None:
        """A further process has begun or could not."""
        for session in list(self.sessions.values()):
            if session.number != number:
                continue
            if "failed" in message:
                error = cannot_start(message)
                session.send(system.dumps({"error": str(error), "code": error.exit_code}).encode())
                session.running = False
                self.drop(session)
            else:
                terminal = message.get("terminal", -1)
                try:
                    inside.send(session.connection, {"pid": message["pid"]}, (terminal,) if terminal >= 0 else ())
                except OSError:
                    pass  # the client has left: its process will be ended when that is read
                if terminal >= 0:
                    os.close(terminal)

    def ended(self, number: int, status: int) -> None:
        """A further process has ended."""
        for session in [*self.sessions.values(), *self._leaving]:
            if session.number == number:
                code = os.waitstatus_to_exitcode(status)
                session.running = False
                session.send(system.dumps({"exit": 128 - code if code < 0 else code}).encode())
                self.drop(session)

    def _leave(self, session: Session) -> None:
        """The client of a process is gone: the process goes, too, and then the connection."""
        del self.sessions[session.fd]
        self._leaving.append(session)
        self._container.signal(system.SIGKILL, session.number)

    def drop(self, session: Session) -> None:
        """Part with a client."""
        if session in self._leaving:
            self._leaving.remove(session)
        elif self.sessions.pop(session.fd, None) is None:
            return
        if session.attached and session.gives_input:
            self._stdio.last_input()
        session.connection.close()

    def close(self) -> None:
        """The container has ended."""
        for session in [*self.sessions.values(), *self._leaving]:
            if session.running:
                session.send(system.dumps({"exit": 137}).encode())
                session.running = False
            session.connection.setblocking(True)
            session.connection.settimeout(0.5)
            session.flush()
            self.drop(session)
        self.listener.close()
