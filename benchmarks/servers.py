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
from dataclasses import replace
from pathlib import Path

from cryptography.hazmat.primitives import serialization

import glebe
from embedded import resident_mb
from glebe.apiserver.auth.pki import Pki
from glebe.kube.kubeconfig import ClientConfig, load_kubeconfig, write_kubeconfig
from rawhttp import Address, Connection

_READY_SECONDS = 90.0


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


class Server:
    """One server under measurement. ``start`` returns the seconds from its processes' start to its being ready."""

    promised = True
    """The bars are for it."""

    def __init__(self, name: str, config: ClientConfig | None = None) -> None:
        self.name = name
        self.config = config
        self._ports: tuple[int, ...] = ()
        self._processes: list[subprocess.Popen[bytes]] = []

    async def start(self) -> float | None:
        return None

    @property
    def address(self) -> Address:
        assert self.config is not None
        address = Address.of(self.config)
        return replace(address, ports=self._ports) if self._ports else address

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
        self._ports = ()

    def spawn(self, log: Path, command: Sequence[str]) -> subprocess.Popen[bytes]:
        with log.open("ab") as out:
            process = subprocess.Popen(command, stdout=out, stderr=out, cwd=log.parent)
        self._processes.append(process)
        return process


class Ours(Server):
    """``glebe apiserver``: SQLite, TLS, all controllers and the binder in one process."""

    def __init__(self, directory: Path) -> None:
        super().__init__("glebe")
        self._directory = directory

    async def start(self) -> float:
        shutil.rmtree(self._directory, ignore_errors=True)
        self._directory.mkdir(parents=True)
        compileall.compile_dir(str(Path(glebe.__file__).parent), quiet=2)  # as pip does when it installs
        began = time.perf_counter()
        return await self._serve("data", began)

    async def _serve(self, name: str, began: float, *more: str) -> float:
        """Start one server process with its files in the folder ``name``."""
        return await self._begin("apiserver", name, began, *more)

    async def _begin(self, verb: str, name: str, began: float, *more: str) -> float:
        port, data, log = free_port(), self._directory / name, self._directory / f"{name}.log"
        command = [sys.executable, "-m", "glebe.cli.main", verb, "--quiet", "--data-dir", str(data)]
        process = self.spawn(log, [*command, "--listen", f"127.0.0.1:{port}", *more])
        taken = await _ready(port, began, process, log)
        while not (data / "kubeconfig").exists():  # noqa: ASYNC110 - a file of another process
            await asyncio.sleep(0.01)
        self.config = load_kubeconfig(data / "kubeconfig")
        self._ports = (*self._ports, port)
        return taken


class OursOnEtcd(Ours):
    """Two replicas of ``glebe apiserver`` on one etcd, fsync on; clients are spread over both."""

    def __init__(self, directory: Path, assets: Path) -> None:
        super().__init__(directory)
        self.name, self.promised = "glebe, etcd", False
        self._assets = assets

    async def start(self) -> float:
        shutil.rmtree(self._directory, ignore_errors=True)
        self._directory.mkdir(parents=True)
        began = time.perf_counter()
        url = start_etcd(self, self._directory, self._assets)
        more = ("--etcd-servers", url, "--pki-dir", str(self._directory / "pki"))
        return max([await self._serve(name, began, *more) for name in ("first", "second")])


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
        port = free_port()
        began = time.perf_counter()
        etcd = start_etcd(self, directory, self._assets)
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
        return self.spawn(self._directory / f"{name}.log", [str(self._assets / name), *arguments])


def start_etcd(server: Server, directory: Path, assets: Path) -> str:
    """The URL of an etcd with its data in ``directory``."""
    client, peer = free_port(), free_port()
    url = f"http://127.0.0.1:{client}"
    listen = [f"--listen-client-urls={url}", f"--advertise-client-urls={url}"]
    more = [f"--data-dir={directory / 'etcd'}", f"--listen-peer-urls=http://127.0.0.1:{peer}"]
    server.spawn(directory / "etcd.log", [str(assets / "etcd"), *listen, *more])
    return url


async def _ready(port: int, began: float, process: subprocess.Popen[bytes], log: Path) -> float:
    """Seconds from ``began`` until ``/readyz`` says 200."""
    context = ssl.create_default_context()
    context.check_hostname = False
    context.verify_mode = ssl.CERT_NONE
    address = Address("127.0.0.1", (port,), "", context)
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
