"""Stands outermost around every request that is known, and writes down what the policy wants of it."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Protocol

import orjson

from glebe.apiserver.audit import events
from glebe.apiserver.audit.policy import METADATA, Policy, Verdict
from glebe.apiserver.flight import Flight, Onward
from glebe.apiserver.request.routing import Route
from glebe.apiserver.request.told import Told
from glebe.kube.clock import Env, format_micro_time
from glebe.kube.errors import ApiError
from glebe.kube.transport import Request, Response, User

if TYPE_CHECKING:
    from glebe.apiserver.assembly import Assembly

_NOBODY = User("")


class Sink(Protocol):
    """Takes finished events; must not wait."""

    def take(self, line: bytes) -> None: ...


class Audit:
    """The filter, and what hears of requests that never get so far."""

    def __init__(self, policy: Policy, sink: Sink, env: Env) -> None:
        self._policy = policy
        self._sink = sink
        self._env = env

    async def __call__(self, flight: Flight, onward: Onward) -> Response:
        user = flight.impersonator or flight.user
        verdict = self._policy.verdict(user, flight.route)
        if verdict is None:
            return await onward(flight)
        event = events.begin(flight.request, flight.route, user, verdict, self._env.clock.now(), self._env.new_uid())
        self._write(event, "RequestReceived", verdict)
        events.add_request(event, flight, verdict)
        try:
            response = await onward(flight)
        except ApiError as error:
            events.add_decision(event, flight, error.code)
            events.add_error(event, error, verdict)
            self._write(event, "ResponseComplete", verdict)
            raise
        except Exception:
            events.add_decision(event, flight, 500)
            event["responseStatus"] = {"metadata": {}, "status": "Failure", "code": 500}
            self._write(event, "Panic", verdict)
            raise
        events.add_decision(event, flight, response.status)
        events.add_response(event, response, verdict)
        response.headers.setdefault("audit-id", event["auditID"])
        if response.stream is None:
            self._write(event, "ResponseComplete", verdict)
        else:
            self._write(event, "ResponseStarted", verdict)
            response.stream = Told(response.stream, lambda: self._write(event, "ResponseComplete", verdict))
        return response

    def refused(self, request: Request, route: Route, user: User | None, error: ApiError) -> None:
        """Nobody believed who asks (401), or that he may ask on somebody's behalf (403)."""
        verdict = self._policy.verdict(user or _NOBODY, route)
        if verdict is None:
            return
        verdict = Verdict(METADATA, verdict.omit_stages)  # nothing of what strangers send is kept
        event = events.begin(request, route, user, verdict, self._env.clock.now(), self._env.new_uid())
        events.add_error(event, error, verdict)
        if user is None:
            event["responseStatus"]["message"] = f"Authentication failed, attempted: {_attempted(request)}"
        self._write(event, "ResponseStarted" if user is None else "ResponseComplete", verdict)

    def _write(self, event: dict[str, Any], stage: str, verdict: Verdict) -> None:
        if stage in verdict.omit_stages:
            return
        event["stage"] = stage
        event["stageTimestamp"] = format_micro_time(self._env.clock.now())
        self._sink.take(orjson.dumps(event) + b"\n")


def _attempted(request: Request) -> str:
    if scheme := request.headers.get("authorization", "").partition(" ")[0].lower():
        return scheme[:32] if scheme in ("bearer", "basic") else "unknown"
    return "x509" if request.peer_certificate is not None else "no credentials"


def contribute(assembly: Assembly) -> None:
    """Put the audit in, when the options ask for one."""
    options = assembly.options.audit
    if options is None:
        return
    from glebe.apiserver.audit.log import AuditLog, RotatingFile  # late: off by default

    server = assembly.server
    sink = AuditLog(RotatingFile(options.path, options.rotation, server.env.clock))
    audit = Audit(options.policy, sink, server.env)
    assembly.filter("audit", audit)
    server.audit_log = sink
    server.refused = audit.refused
    server.on_close = (*server.on_close, sink.close)
