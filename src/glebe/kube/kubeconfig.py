"""Kubeconfig files: reading the way kubectl reads them, writing the one that ``glebe up`` hands out."""

from __future__ import annotations

import asyncio
import base64
import binascii
import os
import tempfile
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import orjson
import yaml

_IN_CLUSTER = Path("/var/run/secrets/kubernetes.io/serviceaccount")


class KubeconfigError(ValueError):
    """A kubeconfig that is missing, broken or incomplete; the message names the file and the field."""


@dataclass(frozen=True, slots=True)
class ExecPlugin:
    """A command that prints credentials (``client.authentication.k8s.io`` ExecCredential)."""

    command: str
    args: tuple[str, ...] = ()
    env: Mapping[str, str] = field(default_factory=dict)
    api_version: str = "client.authentication.k8s.io/v1"
    install_hint: str = ""

    async def credentials(self) -> tuple[str, bytes, bytes, str]:
        """Runs the command: (token, client certificate PEM, client key PEM, expiry as RFC 3339 or "").

        :raises KubeconfigError: it is not there, fails, or prints something else.
        """
        request = {"kind": "ExecCredential", "apiVersion": self.api_version, "spec": {"interactive": False}}
        environment = {**os.environ, **self.env, "KUBERNETES_EXEC_INFO": orjson.dumps(request).decode()}
        try:
            process = await asyncio.create_subprocess_exec(
                self.command,
                *self.args,
                stdin=asyncio.subprocess.DEVNULL,
                stdout=asyncio.subprocess.PIPE,
                stderr=asyncio.subprocess.PIPE,
                env=environment,
            )
        except OSError as error:
            hint = f" ({self.install_hint})" if self.install_hint else ""
            raise KubeconfigError(f"exec plugin {self.command!r} cannot be run: {error}{hint}") from error
        try:
            async with asyncio.timeout(60):
                out, err = await process.communicate()
        except BaseException:
            if process.returncode is None:
                process.kill()
                await process.wait()
            raise
        if process.returncode:
            text = err.decode("utf-8", "replace").strip()
            raise KubeconfigError(f"exec plugin {self.command!r} failed with status {process.returncode}: {text}")
        try:
            status = orjson.loads(out)["status"]
        except (orjson.JSONDecodeError, KeyError, TypeError) as error:
            raise KubeconfigError(f"exec plugin {self.command!r} did not print an ExecCredential") from error
        return (
            str(status.get("token") or ""),
            str(status.get("clientCertificateData") or "").encode(),
            str(status.get("clientKeyData") or "").encode(),
            str(status.get("expirationTimestamp") or ""),
        )


@dataclass(frozen=True, slots=True)
class ClientConfig:
    """How to reach one cluster as one user. Certificates and keys are PEM; ``b""`` means none."""

    server: str
    ca: bytes = b""
    certificate: bytes = b""
    key: bytes = b""
    token: str = ""
    token_file: str = ""  # read again now and then, because mounted tokens rotate
    username: str = ""
    password: str = ""
    exec: ExecPlugin | None = None
    insecure: bool = False
    tls_server_name: str = ""
    namespace: str = "default"
    context: str = ""
    proxy_url: str = ""


def default_paths() -> list[Path]:
    """Where kubectl looks: the files in ``KUBECONFIG``, else ``~/.kube/config``."""
    value = os.environ.get("KUBECONFIG", "")
    listed = [Path(part) for part in value.split(os.pathsep) if part]
    return listed or [Path.home() / ".kube" / "config"]


def load_kubeconfig(path: str | os.PathLike[str] | None = None, context: str | None = None) -> ClientConfig:
    """The configuration of ``context`` (default: the current one) from ``path`` or from :func:`default_paths`.

    Several files are merged as kubectl does: the first to name something wins.

    :raises KubeconfigError: with the file and the field at fault.
    """
    paths = [Path(path)] if path is not None else default_paths()
    merged: dict[str, dict[str, tuple[dict[str, Any], Path]]] = {"clusters": {}, "users": {}, "contexts": {}}
    current = ""
    found = False
    for candidate in paths:
        if not candidate.exists() and path is None:
            continue
        document = _read(candidate)
        found = True
        current = current or str(document.get("current-context") or "")
        for section, entries in merged.items():
            for name, body in _entries(document, section, candidate):
                entries.setdefault(name, (body, candidate.parent))
    shown = ", ".join(str(p) for p in paths)
    if not found:
        raise KubeconfigError(f"no kubeconfig found at {shown}: set KUBECONFIG or give --kubeconfig")
    wanted = context or current
    if not wanted:
        raise KubeconfigError(f"{shown}: current-context is not set: name one with --context")
    chosen = _pick(merged["contexts"], "context", wanted, shown)[0]
    cluster, cluster_dir = _pick(merged["clusters"], "cluster", str(chosen.get("cluster") or ""), shown)
    user_name = str(chosen.get("user") or "")
    user, user_dir = _pick(merged["users"], "user", user_name, shown) if user_name else ({}, Path())
    return _config(cluster, cluster_dir, user, user_dir, str(chosen.get("namespace") or "default"), wanted)


def _read(path: Path) -> dict[str, Any]:
    try:
        document = yaml.safe_load(path.read_text())
    except OSError as error:
        raise KubeconfigError(f"kubeconfig {path} cannot be read: {error.strerror}") from error
    except (yaml.YAMLError, UnicodeDecodeError) as error:
        raise KubeconfigError(f"kubeconfig {path} is not YAML: {error}") from error
    if document is None:
        return {}
    if not isinstance(document, dict):
        raise KubeconfigError(f"kubeconfig {path} is not a mapping")
    return document


def _entries(document: dict[str, Any], section: str, path: Path) -> list[tuple[str, dict[str, Any]]]:
    entries = document.get(section) or []
    if not isinstance(entries, list):
        raise KubeconfigError(f"kubeconfig {path}: {section} must be a list")
    out = []
    for number, entry in enumerate(entries):
        body = entry.get(section[:-1]) if isinstance(entry, dict) else None
        if not isinstance(entry, dict) or "name" not in entry or not isinstance(body, dict | None):
            raise KubeconfigError(f"kubeconfig {path}: {section}[{number}] must have name and {section[:-1]}")
        out.append((str(entry["name"]), body or {}))
    return out


def _pick(
    entries: dict[str, tuple[dict[str, Any], Path]], what: str, name: str, shown: str
) -> tuple[dict[str, Any], Path]:
    if name not in entries:
        known = ", ".join(sorted(entries)) or "none"
        raise KubeconfigError(f"{shown}: there is no {what} {name!r} (known: {known})")
    return entries[name]


def _config(
    cluster: dict[str, Any], cluster_dir: Path, user: dict[str, Any], user_dir: Path, namespace: str, context: str
) -> ClientConfig:
    server = str(cluster.get("server") or "")
    if not server:
        raise KubeconfigError(f"context {context!r}: its cluster has no server")
    token_file = str(user.get("tokenFile") or "")
    return ClientConfig(
        server=server if "://" in server else f"https://{server}",
        ca=_material(cluster, "certificate-authority", cluster_dir),
        certificate=_material(user, "client-certificate", user_dir),
        key=_material(user, "client-key", user_dir),
        token=str(user.get("token") or ""),
        token_file=str(user_dir / token_file) if token_file else "",
        username=str(user.get("username") or ""),
        password=str(user.get("password") or ""),
        exec=_exec_plugin(user.get("exec"), user_dir),
        insecure=bool(cluster.get("insecure-skip-tls-verify")),
        tls_server_name=str(cluster.get("tls-server-name") or ""),
        namespace=namespace,
        context=context,
        proxy_url=str(cluster.get("proxy-url") or ""),
    )


def _material(body: dict[str, Any], name: str, directory: Path) -> bytes:
    """PEM bytes given inline (``NAME-data``, base64) or as a file relative to the kubeconfig."""
    inline = body.get(f"{name}-data")
    if inline:
        try:
            return base64.b64decode(str(inline), validate=True)
        except binascii.Error as error:
            raise KubeconfigError(f"{name}-data is not base64: {error}") from error
    file = body.get(name)
    if not file:
        return b""
    try:
        return (directory / str(file)).read_bytes()
    except OSError as error:
        raise KubeconfigError(f"{name}: {directory / str(file)} cannot be read: {error.strerror}") from error


def _exec_plugin(body: dict[str, Any] | None, directory: Path) -> ExecPlugin | None:
    if not body:
        return None
    command = str(body.get("command") or "")
    if not command:
        raise KubeconfigError("users[].user.exec has no command")
    if "/" in command and not command.startswith("/"):
        command = str(directory / command)
    return ExecPlugin(
        command=command,
        args=tuple(str(arg) for arg in body.get("args") or ()),
        env={str(pair["name"]): str(pair["value"]) for pair in body.get("env") or ()},
        api_version=str(body.get("apiVersion") or "client.authentication.k8s.io/v1"),
        install_hint=str(body.get("installHint") or "").strip(),
    )


def in_cluster_config() -> ClientConfig:
    """The configuration of a pod with a service account.

    :raises KubeconfigError: this is no such pod.
    """
    host, port = os.environ.get("KUBERNETES_SERVICE_HOST"), os.environ.get("KUBERNETES_SERVICE_PORT")
    if not host or not port or not (_IN_CLUSTER / "token").exists():
        raise KubeconfigError("not in a cluster: no service account token or KUBERNETES_SERVICE_HOST")
    namespace = _IN_CLUSTER / "namespace"
    return ClientConfig(
        server=f"https://{f'[{host}]' if ':' in host else host}:{port}",
        ca=(_IN_CLUSTER / "ca.crt").read_bytes(),
        token_file=str(_IN_CLUSTER / "token"),
        namespace=namespace.read_text().strip() if namespace.exists() else "default",
        context="in-cluster",
    )


def write_kubeconfig(
    path: str | os.PathLike[str],
    server: str,
    *,
    ca: bytes = b"",
    certificate: bytes = b"",
    key: bytes = b"",
    token: str = "",
    name: str = "glebe",
    namespace: str = "default",
    clusters: Mapping[str, str] | None = None,
) -> None:
    """Write a kubeconfig for one user: context ``name`` for ``server``, plus one per entry of ``clusters``.

    The file appears whole and readable by its owner only. Material is PEM and written inline.

    :param clusters: further contexts, name -> server URL, with the same user and authority.
    """
    authority = {"certificate-authority-data": _b64(ca)} if ca else {}
    user: dict[str, Any] = {}
    if certificate:
        user["client-certificate-data"] = _b64(certificate)
    if key:
        user["client-key-data"] = _b64(key)
    if token:
        user["token"] = token
    servers = {name: server, **(clusters or {})}
    document = {
        "apiVersion": "v1",
        "kind": "Config",
        "preferences": {},
        "current-context": name,
        "clusters": [{"name": n, "cluster": {"server": url, **authority}} for n, url in servers.items()],
        "users": [{"name": name, "user": user}],
        "contexts": [{"name": n, "context": {"cluster": n, "user": name, "namespace": namespace}} for n in servers],
    }
    _write_private(Path(path), yaml.safe_dump(document, sort_keys=False).encode())


def _b64(data: bytes) -> str:
    return base64.b64encode(data).decode()


def _write_private(path: Path, data: bytes) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    handle, temporary = tempfile.mkstemp(dir=path.parent, prefix=f".{path.name}.")  # mode 0600
    try:
        with os.fdopen(handle, "wb") as file:
            file.write(data)
        os.replace(temporary, path)
    except BaseException:
        os.unlink(temporary)
        raise
