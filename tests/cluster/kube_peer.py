"""A real kube-apiserver with its etcd, and upstream's programs beside it, for as long as a test needs them.

``KUBEBUILDER_ASSETS`` names the folder with the programs (the envtest convention).
"""

from __future__ import annotations

import asyncio
import os
import socket
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
import yaml
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric import rsa

from glebe.kube.client import Client
from glebe.kube.errors import ApiError
from glebe.kube.http import HttpTransport
from glebe.kube.kubeconfig import ClientConfig
from glebe.kube.resources import NAMESPACES
from glebe.kube.transport import ConnectionLost

TOKEN = "peer-test-token"


def assets() -> Path:
    """The folder with the programs; skips the test where there is none."""
    folder = os.environ.get("KUBEBUILDER_ASSETS", "")
    if not folder or not (Path(folder) / "kube-apiserver").exists():
        pytest.skip("needs a real kube-apiserver: set KUBEBUILDER_ASSETS to the folder with kube-apiserver and etcd")
    return Path(folder)


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


class Peer:
    """The processes and how to reach them (as ``system:masters``)."""

    def __init__(self, folder: Path, data: Path) -> None:
        self._folder = folder
        self._data = data
        self._etcd_port, peer_port, self._port = free_port(), free_port(), free_port()
        key = rsa.generate_private_key(65537, 2048).private_bytes(
            serialization.Encoding.PEM,
            serialization.PrivateFormat.TraditionalOpenSSL,
            serialization.NoEncryption(),
        )
        (data / "sa.key").write_bytes(key)
        (data / "tokens.csv").write_text(f"{TOKEN},admin,admin,system:masters\n")
        etcd = f"http://127.0.0.1:{self._etcd_port}"
        self._etcd = self._spawn(
            "etcd",
            f"--data-dir={data / 'etcd'}",
            f"--listen-client-urls={etcd}",
            f"--advertise-client-urls={etcd}",
            f"--listen-peer-urls=http://127.0.0.1:{peer_port}",
            "--unsafe-no-fsync",
        )
        self._api = self._start_api()
        self.config = ClientConfig(server=f"https://127.0.0.1:{self._port}", token=TOKEN, insecure=True)

    def _spawn(self, program: str, *args: str) -> subprocess.Popen[bytes]:
        with (self._data / f"{program}.log").open("ab") as log:
            return subprocess.Popen([str(self._folder / program), *args], stdout=log, stderr=log, cwd=self._data)

    def _start_api(self) -> subprocess.Popen[bytes]:
        return self._spawn(
            "kube-apiserver",
            f"--etcd-servers=http://127.0.0.1:{self._etcd_port}",
            f"--secure-port={self._port}",
            "--bind-address=127.0.0.1",
            f"--cert-dir={self._data / 'certs'}",
            f"--service-account-key-file={self._data / 'sa.key'}",
            f"--service-account-signing-key-file={self._data / 'sa.key'}",
            "--service-account-issuer=https://peer.test",
            f"--token-auth-file={self._data / 'tokens.csv'}",
            "--service-cluster-ip-range=10.0.0.0/24",
            "--authorization-mode=RBAC",
            "--disable-admission-plugins=ServiceAccount",
        )

    def restart_api(self) -> None:
        """Kill the API server and start another on the same data."""
        self._api.kill()
        self._api.wait()
        self._api = self._start_api()

    def stop(self) -> None:
        for process in (self._api, self._etcd):
            process.kill()
            process.wait()

    async def ready(self, client: Client) -> None:
        """Wait until it serves and has its default namespace."""
        async with asyncio.timeout(90):
            while True:
                try:
                    await client.raw("GET", "/readyz")
                    await client.get(NAMESPACES, "default")
                    return
                except (ApiError, ConnectionLost):
                    await asyncio.sleep(0.2)

    def client(self) -> Client:
        return Client(HttpTransport.from_config(self.config))


@contextmanager
def real_kubernetes(data: Path) -> Iterator[Peer]:
    """Start etcd and kube-apiserver with their files in ``data``; both are gone afterwards."""
    peer = Peer(assets(), data)
    try:
        yield peer
    finally:
        peer.stop()


@contextmanager
def upstream(peer: Peer, data: Path, *programs: tuple[str, ...]) -> Iterator[None]:
    """Run upstream's ``programs``, each a name and its options, against ``peer``; their logs are in ``data``."""
    config = data / "kubeconfig"
    config.write_text(yaml.safe_dump(_kubeconfig(peer.config.server)))
    common = [f"--kubeconfig={config}", "--leader-elect=false", "--secure-port=0"]
    running: list[subprocess.Popen[bytes]] = []
    try:
        for name, *options in programs:
            with (data / f"{name}.log").open("wb") as log:
                running.append(subprocess.Popen([str(assets() / name), *common, *options], stdout=log, stderr=log))
        yield
    finally:
        for process in running:
            process.kill()
            process.wait()


def _kubeconfig(server: str) -> dict[str, object]:
    return {
        "apiVersion": "v1",
        "kind": "Config",
        "clusters": [{"name": "p", "cluster": {"server": server, "insecure-skip-tls-verify": True}}],
        "users": [{"name": "a", "user": {"token": TOKEN}}],
        "contexts": [{"name": "p", "context": {"cluster": "p", "user": "a"}}],
        "current-context": "p",
    }
