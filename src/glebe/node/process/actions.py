"""What probes and life-cycle hooks do to a container: run a command in it, ask it by HTTP, TCP or gRPC."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any
from urllib.parse import urlsplit

from glebe.node.containers.containers import CannotExecute, Containers, NotRunning
from glebe.node.containers.rundir import Run
from glebe.node.process import grpchealth, webget
from glebe.node.values.environment import expand
from glebe.node.volumes.rewrite import places, replace_paths

_OUTPUT_LIMIT = 10 * 1024
_VERSION = "1.36"


class ActionError(Exception):
    """The action could not be done at all, so that it says nothing about the container."""


@dataclass(frozen=True, slots=True)
class Target:
    """One running container, as actions see it."""

    containers: Containers
    run: Run
    body: Mapping[str, Any]  # of the container, in the pod's spec
    address: str


@dataclass(frozen=True, slots=True)
class Outcome:
    """Whether it went well, what came out; ``warning``: well, but worth an event."""

    ok: bool
    text: str = ""
    warning: bool = False


async def probe(target: Target, action: Mapping[str, Any], timeout: float) -> Outcome:
    """One probe.

    :raises ActionError: e.g. the command does not exist, or the port has no such name.
    """
    if "exec" in action:
        return await _probe_exec(target, action["exec"].get("command") or [], timeout)
    if "httpGet" in action:
        return await _probe_http(target, action["httpGet"], timeout)
    if "tcpSocket" in action:
        tcp = action["tcpSocket"]
        return await _probe_tcp(tcp.get("host") or target.address, port_of(tcp.get("port"), target.body), timeout)
    if "grpc" in action:
        grpc = action["grpc"]
        return Outcome(*await grpchealth.check(target.address, int(grpc["port"]), grpc.get("service") or "", timeout))
    raise ActionError(f"missing probe handler for {target.body['name']}")


async def execute(target: Target, command: Sequence[str]) -> tuple[int, str]:
    """Run a command in the container; its exit code and output (standard output before standard error).

    :raises ActionError: it cannot be started.
    """
    values = {item["name"]: item.get("value") or "" for item in target.body.get("env") or ()}
    argv = [expand(word, values) for word in command]
    if not target.containers.mounts:
        where = places(target.body, target.run.spec.get("env") or {})
        argv = [replace_paths(word, where) for word in argv]
    try:
        streams = await target.containers.execute(target.run, argv)
    except NotRunning:
        raise ActionError("container not running") from None
    except CannotExecute as error:
        raise ActionError(f'failed to start exec: exec: "{argv[0] if argv else ""}": {error}') from None
    out: dict[int, bytes] = {1: b"", 2: b""}
    try:
        async for stream, data in streams.output():
            out[stream] = (out[stream] + data)[:_OUTPUT_LIMIT]
        code = await streams.wait()
    finally:
        # Also when time is up: whatever was begun in the container must not stay.
        await asyncio.shield(streams.close())
    return code, (out[1] + out[2])[:_OUTPUT_LIMIT].decode("utf-8", "replace")


async def _probe_exec(target: Target, command: Sequence[str], timeout: float) -> Outcome:
    try:
        async with asyncio.timeout(timeout):
            code, text = await execute(target, command)
    except TimeoutError:
        return Outcome(False, f'command timed out: "{" ".join(command)}" timed out after {timeout:g}s')
    return Outcome(code == 0, text)


async def _probe_http(target: Target, action: Mapping[str, Any], timeout: float) -> Outcome:
    url, headers = request_of(action, target, "probe")
    try:
        answer = await webget.get(url, headers, timeout)
    except webget.GetError as error:
        return Outcome(False, str(error))
    if 200 <= answer.status < 300:
        return Outcome(True, answer.body)
    if 300 <= answer.status < 400:
        return Outcome(True, f"Probe terminated redirects, Response body: {answer.body}", warning=True)
    return Outcome(False, f"HTTP probe failed with statuscode: {answer.status}")


async def _probe_tcp(host: str, port: int, timeout: float) -> Outcome:
    try:
        async with asyncio.timeout(timeout):
            _, writer = await asyncio.open_connection(host, port)
    except OSError as error:
        return Outcome(False, webget.dial_error(f"{host}:{port}", error))
    writer.close()
    with contextlib.suppress(OSError):
        await writer.wait_closed()
    return Outcome(True)


def request_of(action: Mapping[str, Any], target: Target, purpose: str) -> tuple[str, list[tuple[str, str]]]:
    """URL and headers of an ``httpGet``. ``purpose``: probe or lifecycle.

    :raises ActionError: the port cannot be found.
    """
    scheme = str(action.get("scheme") or "HTTP").lower()
    host = action.get("host") or target.address
    port = port_of(action.get("port"), target.body)
    path = action.get("path") or ""
    headers = [(item["name"], item.get("value") or "") for item in action.get("httpHeaders") or ()]
    given = {name.lower() for name, _ in headers}
    usual = (("User-Agent", f"kube-{purpose}/{_VERSION}"), ("Accept", "*/*"))
    headers += [(name, value) for name, value in usual if name.lower() not in given]
    where = f"[{host}]:{port}" if ":" in host else f"{host}:{port}"
    tail = urlsplit(path)
    query = f"?{tail.query}" if tail.query else ""
    return f"{scheme}://{where}/{tail.path.removeprefix('/')}{query}", headers


def port_of(port: Any, container: Mapping[str, Any]) -> int:
    """A port by number, or by the name that the container gives to it.

    :raises ActionError: there is none.
    """
    if isinstance(port, str):
        named = [p["containerPort"] for p in container.get("ports") or () if p.get("name") == port]
        if not named and not port.isdigit():
            raise ActionError(f'strconv.Atoi: parsing "{port}": invalid syntax')
        port = int(named[0] if named else port)
    if not isinstance(port, int) or not 0 < port < 65536:
        raise ActionError(f"invalid port number: {port}")
    return port
