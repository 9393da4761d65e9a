"""A real `glebe up` in a process of its own, for tests that come as clients."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any, TypeVar

T = TypeVar("T")

GLEBE = [sys.executable, "-m", "glebe.cli.main"]
EXAMPLES = Path(__file__).resolve().parents[2] / "examples"


def until(what: str, look: Callable[[], T | None], seconds: float = 60.0) -> T:
    """Look again and again until there is an answer that is true."""
    deadline = time.monotonic() + seconds
    while True:
        found = look()
        if found:
            return found
        assert time.monotonic() < deadline, f"not after {seconds:.0f} s: {what}"
        time.sleep(0.1)


class Up:
    """One start of `glebe up` on a data directory."""

    verb = "up"

    def __init__(self, data: Path, *arguments: str) -> None:
        self.data = data
        self.kubeconfig = data / "kubeconfig"
        self.lines: list[str] = []
        command = [*GLEBE, self.verb, "--data-dir", str(data), *arguments]
        self.process = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
        assert self.process.stdout is not None
        assert self.process.stderr is not None
        self.errors: list[str] = []
        for stream, lines in ((self.process.stdout, self.lines), (self.process.stderr, self.errors)):
            threading.Thread(target=lambda s=stream, into=lines: into.extend(s), daemon=True).start()
        try:
            until("the platform is up", lambda: self.process.poll() is not None or self._ready(), 30)
            assert self.process.poll() is None, "".join(self.errors)
        except BaseException:
            self.kill()
            raise

    def _ready(self) -> bool:
        return any("is up at" in line for line in self.lines)

    def run(self, *command: str, expect: int = 0, stdin: str | None = None) -> str:
        """Run any program with this platform's kubeconfig; returns its output, or its errors when it has to fail."""
        done = subprocess.run(
            command, capture_output=True, text=True, env=self.environment, timeout=90, check=False, input=stdin
        )
        assert done.returncode == expect, f"{command} ended with {done.returncode}:\n{done.stdout}{done.stderr}"
        return done.stdout if expect == 0 else done.stdout + done.stderr

    def glebe(self, *arguments: str, expect: int = 0) -> str:
        return self.run(*GLEBE, *arguments, expect=expect)

    @property
    def environment(self) -> dict[str, str]:
        return {**os.environ, "KUBECONFIG": str(self.kubeconfig), "HOME": str(self.data)}

    def stop(self) -> None:
        """Ctrl-C; the platform must end cleanly."""
        self.process.send_signal(signal.SIGINT)
        assert self.process.wait(timeout=30) == 0, "".join(self.errors)

    def kill(self) -> None:
        """kill -9."""
        self.process.kill()
        self.process.wait()


class Server(Up):
    """One start of `glebe apiserver`."""

    verb = "apiserver"

    @property
    def tenant(self) -> Path:
        """The kubeconfig of the logical cluster ``tenant``."""
        return self.data / "tenant.kubeconfig"


class Lab:
    """A namespace in one logical cluster of a server."""

    def __init__(self, server: Server, namespace: str, kubeconfig: Path) -> None:
        self.server, self.namespace, self.kubeconfig = server, namespace, kubeconfig

    def kubectl(self, *arguments: str, expect: int = 0, stdin: str | None = None, editor: str = "") -> str:
        """Output of `kubectl`, or its errors when it has to fail. ``editor``: a shell script that gets the file."""
        command = ("kubectl", f"--kubeconfig={self.kubeconfig}", f"--namespace={self.namespace}", *arguments)
        more = ("env", f"KUBE_EDITOR={editor}") if editor else ()
        return self.server.run(*more, *command, expect=expect, stdin=stdin)

    def get(self, *what: str) -> dict[str, Any]:
        return dict(json.loads(self.kubectl("get", *what, "-o", "json")))
