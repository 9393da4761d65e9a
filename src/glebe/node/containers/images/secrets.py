"""What ``imagePullSecrets`` say: Secrets of the types dockerconfigjson and dockercfg."""

from __future__ import annotations

import base64
import binascii
from collections.abc import Iterable, Mapping
from typing import Any

import orjson

from glebe.node.containers.images.reference import Reference
from glebe.node.containers.images.registry import Credentials

_HUB = ("docker.io", "index.docker.io", "registry-1.docker.io")


def credentials(secrets: Iterable[Mapping[str, Any]], name: Reference) -> list[Credentials]:
    """Those that fit the image's registry, the most particular first. Secrets that cannot be read say nothing."""
    found: list[tuple[int, Credentials]] = []
    for secret in secrets:
        for server, entry in _entries(secret):
            fit = _fits(server, name)
            made = _credentials(entry)
            if fit is not None and made is not None:
                found.append((fit, made))
    found.sort(key=lambda item: -item[0])
    return list(dict.fromkeys(made for _, made in found))


def _entries(secret: Mapping[str, Any]) -> Iterable[tuple[str, Any]]:
    data = secret.get("data") or {}
    for key, inner in ((".dockerconfigjson", "auths"), (".dockercfg", "")):
        try:
            document = orjson.loads(base64.b64decode(data.get(key) or ""))
            table = document[inner] if inner else document
            yield from table.items()
        except (ValueError, KeyError, TypeError, AttributeError, binascii.Error):
            continue


def _credentials(entry: Any) -> Credentials | None:
    if not isinstance(entry, Mapping):
        return None
    if entry.get("identitytoken"):
        return Credentials("", str(entry["identitytoken"]))
    user, password = entry.get("username"), entry.get("password")
    if not user and entry.get("auth"):
        try:
            user, _, password = base64.b64decode(entry["auth"]).decode().partition(":")
        except (ValueError, TypeError):
            return None
    return Credentials(str(user), str(password or "").rstrip("\0")) if user else None


def _fits(server: str, name: Reference) -> int | None:
    """How closely an entry (``https://HOST[:PORT][/PATH]``, ``*`` for one part of a host name) fits; None: not."""
    bare = server.removeprefix("https://").removeprefix("http://").rstrip("/")
    host, _, path = bare.partition("/")
    path = path if path not in ("v1", "v2") else ""
    own = _HUB if name.domain == "docker.io" else (name.domain,)
    if not any(_matches(host, domain) for domain in own):
        return None
    if path and not f"{name.path}/".startswith(f"{path}/"):
        return None
    return len(path) + (0 if "*" in host else 1)


def _matches(pattern: str, host: str) -> bool:
    (wanted, wanted_port), (have, have_port) = _port(pattern), _port(host)
    parts, others = wanted.split("."), have.split(".")
    same = len(parts) == len(others) and all(_glob(p, o) for p, o in zip(parts, others, strict=True))
    return same and wanted_port == have_port


def _port(host: str) -> tuple[str, str]:
    name, colon, port = host.rpartition(":")
    return (name, port) if colon and port.isdigit() else (host, "")


def _glob(pattern: str, text: str) -> bool:
    head, star, tail = pattern.partition("*")
    return text == pattern if not star else text.startswith(head) and text.endswith(tail)
