"""The server of one node: paths, as a kubelet has them, to what answers them (upstream's ``pkg/kubelet/server``)."""

from __future__ import annotations

import asyncio
import contextlib
import ssl
from collections.abc import Awaitable, Callable
from typing import Protocol

import orjson

from glebe.kube.clock import Clock, parse_time
from glebe.kube.errors import ApiError
from glebe.kube.objects import Object
from glebe.kube.transport import Request, Response
from glebe.node.kubelet import sessions
from glebe.node.kubelet.access import Access, Denied
from glebe.node.kubelet.http import Listener, Takeover
from glebe.node.kubelet.pods import LogOptions, Pods, containers_of
from glebe.node.kubelet.sessions import Reach

Answer = Response | Takeover
_TEXT = {"content-type": "text/plain; charset=utf-8"}
_JSON = {"content-type": "application/json"}
_STREAMS = {"": "", "All": "", "Stdout": "stdout", "Stderr": "stderr"}


class Statistics(Protocol):
    """What the node says of its own use."""

    async def summary(self) -> Object:
        """``/stats/summary``."""

    async def resource_metrics(self) -> bytes:
        """``/metrics/resource``, for Prometheus."""


class KubeletServer:
    """
    :param reach: connects to a port of a pod. :param access: who may ask what; None: everybody (tests).
    """

    def __init__(
        self,
        pods: Pods,
        clock: Clock,
        *,
        reach: Reach,
        statistics: Statistics,
        access: Access | None,
        tls: ssl.SSLContext | None,
    ) -> None:
        self._pods = pods
        self._clock = clock
        self._reach = reach
        self._statistics = statistics
        self._access = access
        self.listener = Listener(self.handle, tls)
        self._routes: dict[str, Callable[[Request, list[str]], Awaitable[Answer]]] = {
            "healthz": self._healthz,
            "pods": self._list_pods,
            "runningpods": self._running_pods,
            "containerLogs": self._logs,
            "exec": self._exec,
            "attach": self._attach,
            "portForward": self._port_forward,
            "run": self._run,
            "stats": self._stats,
            "metrics": self._metrics,
        }

    async def handle(self, request: Request) -> Answer:
        """Answer one request."""
        parts = [part for part in request.path.split("/") if part]
        try:
            if self._access is not None:
                await self._access.check(request)
            route = self._routes.get(parts[0]) if parts else None
            if route is None:
                return _text(404, "404 page not found\n")
            return await route(request, parts[1:])
        except Denied as denied:
            return _text(denied.status, denied.message)
        except ApiError as error:
            return _text(error.code, str(error))

    # --- what there is

    async def _healthz(self, request: Request, rest: list[str]) -> Answer:
        return _text(200, "ok")

    async def _list_pods(self, request: Request, rest: list[str]) -> Answer:
        return _pod_list(self._pods.bound())

    async def _running_pods(self, request: Request, rest: list[str]) -> Answer:
        """What really runs, with just enough to know it by."""
        running = []
        for pod in self._pods.bound():
            meta = pod["metadata"]
            names = [name for name in containers_of(pod) if self._pods.running(pod, name) is not None]
            if names:
                known = {c["name"]: c.get("image", "") for c in pod["spec"]["containers"]}
                spec = {"containers": [{"name": n, "image": known.get(n, ""), "resources": {}} for n in names]}
                kept = {key: meta[key] for key in ("name", "namespace", "uid")}
                running.append({"metadata": kept, "spec": spec, "status": {}})
        return _pod_list(running)

    async def _stats(self, request: Request, rest: list[str]) -> Answer:
        if rest not in (["summary"], []):
            return _text(404, "404 page not found\n")
        return Response(200, dict(_JSON), orjson.dumps(await self._statistics.summary()))

    async def _metrics(self, request: Request, rest: list[str]) -> Answer:
        if rest not in (["resource"], ["cadvisor"], []):
            return _text(404, "404 page not found\n")
        headers = {"content-type": "text/plain; version=0.0.4; charset=utf-8"}
        return Response(200, headers, await self._statistics.resource_metrics())

    # --- containers

    def _pod(self, rest: list[str], names: int) -> tuple[Object, str]:
        """The pod of NAMESPACE/NAME[/UID][/CONTAINER], and the container.

        :raises ApiError: 404.
        """
        if len(rest) not in (names, names + 1):
            raise ApiError(404, "NotFound", "404 page not found")
        pod = self._pods.find(rest[0], rest[1])
        if pod is None:
            raise ApiError(404, "NotFound", "pod does not exist")
        if len(rest) > names and rest[2] != pod["metadata"]["uid"]:
            raise ApiError(404, "NotFound", "pod not found")
        return pod, rest[-1] if names == 3 else ""

    async def _logs(self, request: Request, rest: list[str]) -> Answer:
        if len(rest) != 3:
            return _text(404, "404 page not found\n")
        pod = self._pods.find(rest[0], rest[1])
        if pod is None:
            return _text(404, f'pod "{rest[1]}" does not exist')
        if rest[2] not in containers_of(pod):
            return _text(404, f'container "{rest[2]}" not found in pod "{rest[1]}"')
        options = log_options(request, self._clock.now())
        stream = self._pods.logs(pod, rest[2], options)
        first = asyncio.ensure_future(anext(stream, b""))
        done, _ = await asyncio.wait({first}, timeout=0.5)  # an error is said before anything is sent
        if done:
            first.result()
        return Response(200, {"content-type": "text/plain"}, stream=_continued(first, stream))

    async def _exec(self, request: Request, rest: list[str]) -> Answer:
        pod, container = self._pod(rest, 3)
        return await sessions.execute(self._pods, pod, container, request)

    async def _attach(self, request: Request, rest: list[str]) -> Answer:
        pod, container = self._pod(rest, 3)
        return await sessions.attach(self._pods, pod, container, request)

    async def _port_forward(self, request: Request, rest: list[str]) -> Answer:
        pod, _ = self._pod(rest, 2)
        return await sessions.port_forward(self._reach, pod, request)

    async def _run(self, request: Request, rest: list[str]) -> Answer:
        """``POST /run/NS/POD/CONTAINER?cmd=``: a command's whole output."""
        if request.method != "POST":
            return _text(405, "405: Method Not Allowed")
        pod, container = self._pod(rest, 3)
        return await sessions.run(self._pods, pod, container, request.param("cmd").split(" "))


async def _continued(first: asyncio.Future[bytes], stream):  # type: ignore[no-untyped-def]
    try:
        yield await first
        async for chunk in stream:
            yield chunk
    finally:
        first.cancel()
        with contextlib.suppress(BaseException):
            await first
        await stream.aclose()


def log_options(request: Request, now: float) -> LogOptions:
    """``PodLogOptions`` of a query.

    :raises ApiError: 400, 422.
    """
    numbers: dict[str, int | None] = {}
    for name in ("tailLines", "sinceSeconds", "limitBytes"):
        text = request.param(name)
        if text and not (text.isascii() and text.isdigit()):
            raise ApiError(422, "Invalid", '{"message": "Invalid request."}')
        numbers[name] = int(text) if text else None
    since = None if numbers["sinceSeconds"] is None else now - numbers["sinceSeconds"]
    if request.param("sinceTime"):
        try:
            since = parse_time(request.param("sinceTime"))
        except ValueError:
            raise ApiError(400, "BadRequest", '{"message": "Unable to decode query."}') from None
    stream = _STREAMS.get(request.param("stream"))
    if stream is None:
        raise ApiError(422, "Invalid", '{"message": "Invalid request."}')
    flags = {name: request.param(name) in ("true", "1") for name in ("follow", "previous", "timestamps")}
    return LogOptions(
        **flags, tail_lines=numbers["tailLines"], since=since, limit_bytes=numbers["limitBytes"], stream=stream
    )


def _text(status: int, text: str) -> Response:
    return Response(status, dict(_TEXT), text.encode())


def _pod_list(pods: list[Object]) -> Response:
    body = {"kind": "PodList", "apiVersion": "v1", "metadata": {}, "items": pods}
    return Response(200, dict(_JSON), orjson.dumps(body))
