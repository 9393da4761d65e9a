"""What is measured: our server as a process, upstream's with its etcd, or whatever a kubeconfig names."""

from __future__ import annotations

import asyncio
import compileall
import os
import shutil
import signal
import socket
import ssl
import subprocess
import sys
import time
from collections.abc import Sequence
from pathlib import Path

from cryptography.hazmat.primitives import serialization

import glebe
from embedded import resident_mb
from glebe.apiserver.auth.pki import Pki
from glebe.kube.kubeconfig import ClientConfig, load_kubeconfig, write_kubeconfig
from rawhttp import Address, Connection

_FLEET = """\
apiVersion: glebe.dev/v1alpha1
kind: Fleet
pools:
- {name: none, count: 1}
"""
_READY_SECONDS = 90.0


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


class Server:
    """One server under measurement. ``start`` returns the seconds from its processes' start to its being ready."""

    name = ""

    def __init__(self, name: str, config: ClientConfig | None = None) -> None:
        self.name = name
        self.config = config
        self._processes: list[subprocess.Popen[bytes]] = []

    async def start(self) -> float | None:
        return None

    @property
    def address(self) -> Address:
        assert self.config is not None
        return Address.of(self.config)

    def resident_mib(self) -> float | None:
        """Resident memory of all its processes and their descendants."""
        if not self._processes:
            return None
        return sum(resident_mb(p.pid) for p in self._processes) * 1e6 / 2**20

    async def idle_mib(self, seconds: float) -> float | None:
        """Resident memory after ``seconds`` of doing nothing, controllers and scheduler included."""
        await asyncio.sleep(seconds)
        return self.resident_mib()

    def stop(self) -> None:
        for process in self._processes:
            process.send_signal(signal.SIGTERM)
        for process in self._processes:
            try:
                process.wait(10)
            except subprocess.TimeoutExpired:
                process.kill()
                process.wait()
        self._processes.clear()

    def _spawn(self, log: Path, command: Sequence[str]) -> subprocess.Popen[bytes]:
        with log.open("ab") as out:
            process = subprocess.Popen(command, stdout=out, stderr=out, cwd=log.parent)
        self._processes.append(process)
        return process


class Ours(Server):
    """``glebe up`` with its one node that gets nothing to do: SQLite, TLS, all controllers and the binder."""

    def __init__(self, directory: Path) -> None:
        super().__init__("glebe")
        self._directory = directory

    async def start(self) -> float:
        shutil.rmtree(self._directory, ignore_errors=True)
        self._directory.mkdir(parents=True)
        fleet = self._directory / "fleet.yaml"
        fleet.write_text(_FLEET, encoding="utf-8")
        compileall.compile_dir(str(Path(glebe.__file__).parent), quiet=2)  # as pip does when it installs
        port = free_port()
        data = self._directory / "data"
        began = time.perf_counter()
        up = ["up", "--quiet", "--data-dir", str(data), "--fleet", str(fleet), "--listen", f"127.0.0.1:{port}"]
        process = self._spawn(self._directory / "up.log", [sys.executable, "-m", "glebe.cli.main", *up])
        taken = await _ready(port, began, process, self._directory / "up.log")
        while not (data / "kubeconfig").exists():  # noqa: ASYNC110 - a file of another process
            await asyncio.sleep(0.01)
        self.config = load_kubeconfig(data / "kubeconfig")
        return taken


class Upstream(Server):
    """kube-apiserver with etcd, fsync on; controller-manager and scheduler run for the idle memory only."""

    def __init__(self, directory: Path, assets: Path) -> None:
        super().__init__("upstream")
        self._directory = directory
        self._assets = assets

    async def start(self) -> float:
        directory = self._directory
        shutil.rmtree(directory, ignore_errors=True)
        directory.mkdir(parents=True)
        pki = Pki(directory / "pki")
        pki.ensure(["127.0.0.1"], time.time())
        public = directory / "service-account.pub"
        info = serialization.PublicFormat.SubjectPublicKeyInfo
        public.write_bytes(pki.signing_key().public_key().public_bytes(serialization.Encoding.PEM, info))
        client, peer, port = free_port(), free_port(), free_port()
        etcd = f"http://127.0.0.1:{client}"
        began = time.perf_counter()
        self._program(
            "etcd",
            f"--data-dir={directory / 'etcd'}",
            f"--listen-client-urls={etcd}",
            f"--advertise-client-urls={etcd}",
            f"--listen-peer-urls=http://127.0.0.1:{peer}",
        )
        process = self._program(
            "kube-apiserver",
            f"--etcd-servers={etcd}",
            f"--secure-port={port}",
            "--bind-address=127.0.0.1",
            f"--tls-cert-file={pki.server_file}",
            f"--tls-private-key-file={pki.server_key_file}",
            f"--client-ca-file={pki.ca_file}",
            f"--service-account-key-file={public}",
            f"--service-account-signing-key-file={pki.signing_key_file}",
            "--service-account-issuer=https://benchmark.test",
            "--service-cluster-ip-range=10.0.0.0/24",
            "--authorization-mode=RBAC",
            "--disable-admission-plugins=ServiceAccount",
        )
        taken = await _ready(port, began, process, directory / "kube-apiserver.log")
        write_kubeconfig(
            directory / "kubeconfig",
            f"https://127.0.0.1:{port}",
            ca=pki.ca_pem,
            certificate=pki.admin_file.read_bytes(),
            key=pki.admin_key_file.read_bytes(),
        )
        self.config = load_kubeconfig(directory / "kubeconfig")
        return taken

    async def idle_mib(self, seconds: float) -> float | None:
        more = [
            self._program(name, f"--kubeconfig={self._directory / 'kubeconfig'}", "--leader-elect=false")
            for name in ("kube-controller-manager", "kube-scheduler")
            if (self._assets / name).exists()
        ]
        try:
            return await super().idle_mib(seconds)
        finally:
            for process in more:
                process.kill()
                process.wait()
                self._processes.remove(process)

    def _program(self, name: str, *arguments: str) -> subprocess.Popen[bytes]:
        return self._spawn(self._directory / f"{name}.log", [str(self._assets / name), *arguments])


async def _ready(port: int, began: float, process: subprocess.Popen[bytes], log: Path) -> float:
    """Seconds from ``began`` until ``/readyz`` says 200."""
    context = ssl.create_default_context()
    context.check_hostname = False
    context.verify_mode = ssl.CERT_NONE
    address = Address("127.0.0.1", port, "", context)
    while time.perf_counter() - began < _READY_SECONDS:
        if process.poll() is not None:
            raise RuntimeError(f"not ready, and ended with {process.returncode}: {_tail(log)}")
        try:
            connection = await Connection.open(address)
            status, _ = await connection.ask(address.request("GET", "/readyz"))
            connection.close()
            if status == 200:
                return time.perf_counter() - began
        except OSError:
            pass
        await asyncio.sleep(0.01)
    raise TimeoutError(f"not ready within {_READY_SECONDS:.0f} s: {_tail(log)}")


def _tail(log: Path) -> str:
    return log.read_text(encoding="utf-8", errors="replace")[-2000:]


def assets() -> Path | None:
    """The folder with upstream's programs (``KUBEBUILDER_ASSETS``), if there is one."""
    folder = Path(os.environ.get("KUBEBUILDER_ASSETS", "."))
    return folder if (folder / "kube-apiserver").exists() and (folder / "etcd").exists() else None
