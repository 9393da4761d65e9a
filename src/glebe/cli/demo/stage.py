"""What the demo is told with: a real platform in a process of its own, the real command line, and a deadline."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import TypeVar

T = TypeVar("T")


class DemoFailed(Exception):
    """Something that the demo promises did not happen."""


class Stage:
    """Runs ``glebe`` commands against a platform that it starts and stops.

    :param deadline: seconds after which every wait fails.
    """

    def __init__(self, data_dir: Path, deadline: float) -> None:
        self.data_dir = data_dir
        self.kubeconfig = data_dir / "kubeconfig"
        self._ends = time.monotonic() + deadline
        self._platform: subprocess.Popen[str] | None = None
        self._said: list[str] = []
        self._env = {**os.environ, "KUBECONFIG": str(self.kubeconfig), "COLUMNS": "110"}

    def title(self, text: str) -> None:
        print(f"\n== {text}", flush=True)

    def say(self, text: str) -> None:
        print(text, flush=True)

    def start_platform(self, fleet: Path) -> str:
        """Start ``glebe up``; returns the line with which it said that it is ready."""
        command = [*_glebe(), "up", "--data-dir", str(self.data_dir), "--fleet", str(fleet)]
        self._platform = subprocess.Popen(
            command, stdout=subprocess.PIPE, stderr=None, text=True, start_new_session=True, env=self._env
        )
        assert self._platform.stdout is not None
        threading.Thread(target=self._listen, args=(self._platform.stdout,), daemon=True).start()
        return self.wait("the platform is up", lambda: next((x for x in self._said if "is up at" in x), None))

    def stop_platform(self) -> None:
        """Ctrl-C, and wait; a platform that does not end cleanly fails the demo."""
        platform, self._platform = self._platform, None
        if platform is None:
            return
        platform.send_signal(signal.SIGINT)
        try:
            code = platform.wait(timeout=30)
        except subprocess.TimeoutExpired:
            platform.kill()
            platform.wait()
            raise DemoFailed("the platform did not stop within 30 s of Ctrl-C") from None
        if code != 0:
            raise DemoFailed(f"the platform ended with exit code {code}")

    def abort(self) -> None:
        """End the platform after a failure."""
        if self._platform is not None:
            self._platform.terminate()
            try:
                self._platform.wait(timeout=10)
            except subprocess.TimeoutExpired:
                self._platform.kill()
                self._platform.wait()
            self._platform = None

    def glebe(self, *arguments: str, expect: int = 0, show: bool = True, shown_as: str = "") -> str:
        """Run a glebe command as a user would; returns what it printed.

        :raises DemoFailed: when its exit code is not ``expect``.
        """
        if show:
            self.say(f"\n$ glebe {shown_as or ' '.join(arguments)}")
        left = max(1.0, self._ends - time.monotonic())
        try:
            done = subprocess.run(
                [*_glebe(), *arguments], capture_output=True, text=True, env=self._env, timeout=left, check=False
            )
        except subprocess.TimeoutExpired:
            raise DemoFailed(f"glebe {' '.join(arguments)} did not end in time") from None
        if show:
            self.say(done.stdout.rstrip("\n"))
        if done.returncode != expect:
            raise DemoFailed(f"glebe {' '.join(arguments)} ended with {done.returncode}: {done.stderr.strip()}")
        return done.stdout

    def wait(self, what: str, look: Callable[[], T | None]) -> T:
        """Look until there is an answer.

        :raises DemoFailed: at the deadline, or when the platform died.
        """
        while True:
            found = look()
            if found is not None:
                return found
            if self._platform is not None and self._platform.poll() is not None:
                raise DemoFailed(f"the platform ended with {self._platform.returncode} while waiting until {what}")
            if time.monotonic() > self._ends:
                raise DemoFailed(f"the deadline passed while waiting until {what}")
            time.sleep(0.2)

    def check(self, holds: bool, promise: str) -> None:
        """:raises DemoFailed: when a promise of the demo does not hold."""
        if not holds:
            raise DemoFailed(promise)

    def _listen(self, stream: object) -> None:
        for line in stream:  # type: ignore[attr-defined]
            self._said.append(line.rstrip("\n"))


def _glebe() -> list[str]:
    return [sys.executable, "-m", "glebe.cli.main"]
