"""A transport that misbehaves the way networks and API servers do.

Wrapped around one component's transport, so that each component suffers on its own: requests that never arrive,
answers that never come back (the write took effect all the same), conflicts, 429 and 5xx, slow answers; watches that
are cut, delayed, go silent, or cannot be resumed (410).
"""

from __future__ import annotations

import asyncio
import random
from collections.abc import AsyncIterator
from dataclasses import dataclass

import orjson

from glebe.kube.errors import ApiError, gone, internal, too_many_requests
from glebe.kube.transport import ConnectionLost, Request, Response, Transport


@dataclass(frozen=True, slots=True)
class FaultRates:
    """Chances per request (or per watch frame), each 0..1."""

    lost_request: float = 0.01
    lost_answer: float = 0.01
    conflict: float = 0.01
    server_error: float = 0.01
    throttled: float = 0.005
    delay: float = 0.05
    max_delay: float = 2.0
    watch_cut: float = 0.01  # per frame
    watch_delay: float = 0.05  # per frame
    watch_gone: float = 0.02  # per attempt to resume
    watch_silent: float = 0.002  # per frame: the stream stays open and says nothing more

    @classmethod
    def none(cls) -> FaultRates:
        return cls(*(0.0,) * 5, 0.0, 0.0, *(0.0,) * 4)


_WRITES = frozenset({"POST", "PUT", "PATCH", "DELETE"})


class FaultyTransport:
    """``inner`` with faults drawn from ``rng``. ``active`` switches them off, to let the system settle."""

    def __init__(self, inner: Transport, rng: random.Random, rates: FaultRates) -> None:
        self._inner = inner
        self._rng = rng
        self._rates = rates
        self.active = True
        self.injected = 0

    async def send(self, request: Request) -> Response:
        if not self.active:
            return await self._inner.send(request)
        if request.param("watch") in ("1", "true"):
            return await self._watch(request)
        rates = self._rates
        if self._hit(rates.delay):
            await asyncio.sleep(self._rng.uniform(0, rates.max_delay))
        if self._hit(rates.lost_request):
            raise ConnectionLost("fault: the request was lost")
        refusal = self._refusal(request)
        if refusal is not None:
            return _answer(refusal)
        response = await self._inner.send(request)
        if self._hit(rates.lost_answer) and response.stream is None:
            raise ConnectionLost("fault: the answer was lost")
        return response

    async def close(self) -> None:
        await self._inner.close()

    def _hit(self, chance: float) -> bool:
        if chance and self._rng.random() < chance:
            self.injected += 1
            return True
        return False

    def _refusal(self, request: Request) -> ApiError | None:
        rates = self._rates
        if self._hit(rates.server_error):
            return internal("fault: injected")
        if self._hit(rates.throttled):
            return too_many_requests("fault: injected", retry_after=1)
        if request.method in _WRITES and request.method != "POST" and self._hit(rates.conflict):
            return ApiError(409, "Conflict", "fault: the object has been modified")
        return None

    async def _watch(self, request: Request) -> Response:
        rates = self._rates
        if self._hit(rates.lost_request):
            raise ConnectionLost("fault: the request was lost")
        if request.param("resourceVersion") not in ("", "0") and self._hit(rates.watch_gone):
            return _answer(gone("fault: too old resource version"))
        response = await self._inner.send(request)
        if response.stream is not None:
            response.stream = self._disturb(response.stream)
        return response

    async def _disturb(self, source: AsyncIterator[bytes]) -> AsyncIterator[bytes]:
        rates = self._rates
        try:
            async for frame in source:
                if self.active:
                    if self._hit(rates.watch_cut):
                        raise ConnectionLost("fault: the watch was cut")
                    if self._hit(rates.watch_silent):
                        await asyncio.Event().wait()
                    if self._hit(rates.watch_delay):
                        await asyncio.sleep(self._rng.uniform(0, rates.max_delay))
                yield frame
        finally:
            closer = getattr(source, "aclose", None)
            if closer is not None:
                await closer()


def _answer(error: ApiError) -> Response:
    headers = {"content-type": "application/json"}
    if error.retry_after is not None:
        headers["retry-after"] = str(error.retry_after)
    return Response(error.code, headers, orjson.dumps(error.status()))
