"""Leader election with a Lease, and the fence that keeps a deposed leader from writing.

Who holds the ``coordination.k8s.io/v1`` Lease leads. A candidate never compares its clock with another's: it takes
over only after it has itself *seen* the record unchanged for the lease's duration. The leader, for its part, counts
from the moment it *asked* for its last successful renewal; once ``renew_deadline`` has passed without another one it
is no leader any more, whether or not it could learn of a successor, and its :class:`FencedTransport` refuses to write.
Since ``renew_deadline`` is shorter than ``lease_duration``, the fence falls before anyone else can take over; the
difference is what a write that is already on its way may take to arrive.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from typing import Any

from glebe.kube.client import Client
from glebe.kube.clock import Env, format_micro_time
from glebe.kube.errors import ApiError
from glebe.kube.objects import Object
from glebe.kube.resources import LEASES
from glebe.kube.transport import ConnectionLost, Request, Response, Transport

log = logging.getLogger("glebe.kube.lease")


class NotLeading(ConnectionLost):
    """A write was refused because this process does not (any more) hold the lease.

    It is a kind of :class:`ConnectionLost`, so that controllers handle it as a request that could not be carried;
    unlike with others, the request certainly had no effect.
    """


class LeadershipLost(Exception):
    """The lease could not be renewed in time, or somebody else holds it."""


@dataclass(slots=True)
class _Observed:
    spec: dict[str, Any]
    version: str
    at: float  # loop time at which this record was first seen


class LeaderElector:
    """One candidate.

    :param identity: unique among candidates.
    :param lease_duration: seconds that others wait before they take over (a whole number in the Lease).
    :param renew_deadline: seconds after which a leader that cannot renew gives up.
    :param retry_period: seconds between attempts.
    :raises ValueError: not ``lease_duration > renew_deadline > 1.2 * retry_period > 0``.
    """

    def __init__(
        self,
        client: Client,
        env: Env,
        name: str,
        namespace: str,
        identity: str,
        lease_duration: float = 15,
        renew_deadline: float = 10,
        retry_period: float = 2,
    ) -> None:
        if not lease_duration > renew_deadline > 1.2 * retry_period > 0:
            raise ValueError("a lease needs lease_duration > renew_deadline > 1.2 * retry_period > 0")
        self._client = client
        self._env = env
        self._name = name
        self._namespace = namespace
        self.identity = identity
        self._duration = lease_duration
        self._deadline = renew_deadline
        self._retry = retry_period
        self._observed: _Observed | None = None
        self._leads_until: float | None = None
        self._loop: asyncio.AbstractEventLoop | None = None

    def is_leader(self) -> bool:
        """Whether this candidate may act: it held the lease less than ``renew_deadline`` seconds ago."""
        return self._leads_until is not None and self._loop is not None and self._loop.time() < self._leads_until

    def fence(self) -> bool:
        """The check for :class:`FencedTransport`; the same as :meth:`is_leader`."""
        return self.is_leader()

    @property
    def holder(self) -> str:
        """Whom this candidate last saw holding the lease; ``""`` when nobody."""
        return str((self._observed.spec.get("holderIdentity") or "") if self._observed else "")

    async def run(self, on_started: Callable[[], Awaitable[None]]) -> None:
        """Wait for leadership, run ``on_started`` while leading, return when it returns.

        On the way out (also by cancellation) the lease is given back, so that the next candidate need not wait.

        :raises LeadershipLost: it was lost while ``on_started`` ran (which was cancelled); run again or exit.
        """
        self._loop = asyncio.get_running_loop()
        await self._acquire()
        log.info("%s leads (%s/%s)", self.identity, self._namespace, self._name)
        work = asyncio.ensure_future(on_started())
        renewal = asyncio.ensure_future(self._renew())
        try:
            await asyncio.wait({work, renewal}, return_when=asyncio.FIRST_COMPLETED)
            if work.done():
                work.result()
                return
            raise LeadershipLost(
                f"{self.identity} lost the lease {self._namespace}/{self._name}; holder: {self.holder}"
            )
        finally:
            for task in (work, renewal):
                task.cancel()
            await asyncio.gather(work, renewal, return_exceptions=True)
            leading = self.is_leader()  # whatever work did while it was being cancelled, it still did as leader
            self._leads_until = None
            if leading:
                await self._release()

    async def _acquire(self) -> None:
        while True:
            if await self._attempt() and self.is_leader():
                return
            await asyncio.sleep(self._retry * (1.0 + 0.2 * self._env.rng.random()))

    async def _renew(self) -> None:
        """Returns when leadership is lost."""
        loop = asyncio.get_running_loop()
        while self._leads_until is not None:
            await asyncio.sleep(max(0.0, min(self._retry, self._leads_until - loop.time())))
            if loop.time() >= self._leads_until:
                log.error("%s could not renew its lease for %.0f s: it leads no more", self.identity, self._deadline)
                return
            await self._attempt()
            if self._observed is not None and self.holder != self.identity:
                log.error("%s holds the lease of %s: it leads no more", self.holder or "nobody", self.identity)
                self._leads_until = None

    async def _attempt(self) -> bool:
        """Take or renew the lease if that is allowed; whether this candidate holds it now."""
        asked = asyncio.get_running_loop().time()
        try:
            async with asyncio.timeout(self._deadline / 2):  # an answer that hangs must not use up the whole deadline
                return await self._take_or_renew(asked)
        except (ApiError, ConnectionLost, TimeoutError) as error:
            log.debug("%s: the lease could not be taken or renewed: %s", self.identity, error)
            return False

    async def _take_or_renew(self, asked: float) -> bool:
        try:
            lease = await self._client.get(LEASES, self._name, self._namespace)
        except ApiError as error:
            if error.code != 404:
                raise
            lease = await self._client.create(LEASES, self._new_lease(), self._namespace)
            return self._now_holding(lease, asked)
        self._observe(lease)
        spec = lease.get("spec") or {}
        holder = spec.get("holderIdentity") or ""
        if holder not in ("", self.identity) and not self._expired(spec):
            return False
        lease["spec"] = self._next_spec(spec)
        return self._now_holding(await self._client.update(LEASES, lease), asked)

    def _now_holding(self, lease: Object, asked: float) -> bool:
        self._observe(lease)
        self._leads_until = asked + self._deadline
        return True

    def _observe(self, lease: Object) -> None:
        version = lease["metadata"].get("resourceVersion", "")
        if self._observed is None or self._observed.version != version:
            now = asyncio.get_running_loop().time()
            self._observed = _Observed(lease.get("spec") or {}, version, now)

    def _expired(self, spec: dict[str, Any]) -> bool:
        """Whether the record has not changed for the longer of the holder's and our own duration."""
        if self._observed is None:
            return False
        duration = max(float(spec.get("leaseDurationSeconds") or 0), self._duration)
        return asyncio.get_running_loop().time() - self._observed.at >= duration

    def _next_spec(self, spec: dict[str, Any]) -> dict[str, Any]:
        now = format_micro_time(self._env.clock.now())
        mine = spec.get("holderIdentity") == self.identity
        return {
            **spec,
            "holderIdentity": self.identity,
            "leaseDurationSeconds": max(1, round(self._duration)),
            "acquireTime": (spec.get("acquireTime") or now) if mine else now,
            "renewTime": now,
            "leaseTransitions": int(spec.get("leaseTransitions") or 0) + (0 if mine else 1),
        }

    def _new_lease(self) -> Object:
        spec = self._next_spec({"holderIdentity": self.identity})
        return {
            "apiVersion": LEASES.api_version,
            "kind": LEASES.kind,
            "metadata": {"name": self._name, "namespace": self._namespace},
            "spec": spec,
        }

    async def _release(self) -> None:
        """Empty the record, if it is still ours; give up quietly when that does not work at once."""
        try:
            async with asyncio.timeout(self._retry):
                lease = await self._client.get(LEASES, self._name, self._namespace)
                if (lease.get("spec") or {}).get("holderIdentity") != self.identity:
                    return
                now = format_micro_time(self._env.clock.now())
                lease["spec"] = {
                    "holderIdentity": "",
                    "leaseDurationSeconds": 1,
                    "acquireTime": now,
                    "renewTime": now,
                    "leaseTransitions": int(lease["spec"].get("leaseTransitions") or 0),
                }
                await self._client.update(LEASES, lease)
        except (ApiError, ConnectionLost, TimeoutError) as error:
            log.debug("%s: the lease was not given back: %s", self.identity, error)


class FencedTransport:
    """A transport that carries writes only while ``fence()`` is true. Reads always pass.

    The elector itself needs a client without the fence.
    """

    def __init__(self, inner: Transport, fence: Callable[[], bool]) -> None:
        self._inner = inner
        self._fence = fence

    async def send(self, request: Request) -> Response:
        """As the inner transport.

        :raises NotLeading: a write without leadership.
        """
        if request.method not in ("GET", "HEAD", "OPTIONS") and not self._fence():
            raise NotLeading(f"{request.method} {request.path} refused: this process does not lead")
        return await self._inner.send(request)

    async def close(self) -> None:
        await self._inner.close()
