"""``status`` of quotas: what is used, written soon after every change, and by a full look from time to time.

Upstream's admission and its quota controller share this task; here the server's own ledger knows the sums, so that all
clusters have it without a controller and without a second copy of their objects.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging

from glebe.apiserver.admission.quota.amounts import Amounts, amounts, text
from glebe.apiserver.admission.quota.ledger import QUOTAS, Address, Ledger, Quota
from glebe.apiserver.store import Key, Store, StoreUnavailable
from glebe.kube.client import Client
from glebe.kube.clock import Clock
from glebe.kube.errors import ApiError
from glebe.kube.inprocess import InProcessTransport
from glebe.kube.objects import Object
from glebe.kube.resources import Resource

log = logging.getLogger("glebe.apiserver.quota")

RESOURCE = Resource("", "v1", "resourcequotas", "ResourceQuota")
PAUSE = 0.05
"""Seconds between two writes of the same statuses: a storm of creations costs few writes."""
SETTLE = 2.0
"""With several servers on one store: seconds for which a status that others may have raised for a write on its way is
not lowered."""
_RETRY = 1.0


class StatusWriter:
    """Writes the statuses of quotas whose sums changed."""

    def __init__(self, store: Store, clock: Clock, transport: InProcessTransport) -> None:
        self._store = store
        self._clock = clock
        self._transport = transport
        self.ledger = Ledger(store, clock, self.note)
        self._dirty: dict[Address, None] = {}
        self._task: asyncio.Task[None] | None = None
        self._timer: asyncio.TimerHandle | None = None
        self._too_high_since: dict[Address, tuple[int, float]] = {}

    def note(self, address: Address) -> None:
        """The quota's status may have to be written."""
        self._dirty[address] = None
        if self._task is None or self._task.done():
            with contextlib.suppress(RuntimeError):  # no loop: the store is being looked at from outside
                self._task = asyncio.get_running_loop().create_task(self._work(), name="quota status")

    def close(self) -> None:
        """Write nothing any more."""
        if self._task is not None:
            self._task.cancel()
        if self._timer is not None:
            self._timer.cancel()

    def taken(self, quota: Quota) -> Amounts:
        """What is used and promised; with several servers also what the others have promised."""
        out = quota.taken()
        if self._store.lags:
            stored = self._stored(quota.address)
            known = amounts(((stored or {}).get("status") or {}).get("used"))
            out = {name: max(amount, known.get(name, 0)) for name, amount in out.items()}
        return out

    async def claim(self, addresses: list[Address]) -> bool:
        """Write the present promises into the statuses, under the revisions that the check has seen.

        :returns: False when somebody else was faster: check again.
        """
        for address in addresses:
            quota, stored = self.ledger.find(address), self._stored(address)
            if quota is None or stored is None:
                continue
            known = amounts((stored.get("status") or {}).get("used"))
            used = {name: max(amount, known.get(name, 0)) for name, amount in quota.taken().items()}
            if not await self._put(address, stored, quota, used):
                await self._store.fresh()
                return False
        return True

    def _stored(self, address: Address) -> Object | None:
        entry = self._store.get(Key(QUOTAS, *address))
        return None if entry is None else entry.view()

    async def _work(self) -> None:
        while self._dirty:
            batch, self._dirty = list(self._dirty), {}
            for address in batch:
                try:
                    done = await self._write(address)
                except (ApiError, StoreUnavailable) as error:
                    log.warning("quota %s: status not written: %s", "/".join(address), error)
                    await asyncio.sleep(_RETRY)
                    done = False
                if not done:
                    self._dirty[address] = None
            await asyncio.sleep(PAUSE)
        self._wait_for_overdue()

    async def _write(self, address: Address) -> bool:
        """True when the status is right."""
        quota, stored = self.ledger.find(address), self._stored(address)
        if quota is None or stored is None:
            self._too_high_since.pop(address, None)
            return True
        used = dict(self.ledger.current(quota).used)
        if self._store.lags and not self._may_lower(address, stored, used):
            return False
        return await self._put(address, stored, quota, used)

    async def _put(self, address: Address, stored: Object, quota: Quota, used: Amounts) -> bool:
        wanted = {
            "hard": quota.hard,
            "used": {name: text(amount, quota.hard.get(name)) for name, amount in sorted(used.items())},
        }
        present = stored.get("status") or {}
        if present.get("hard") == quota.hard and amounts(present.get("used")) == used:
            return True
        client = Client(self._transport, cluster=address.cluster, field_manager="glebe-quota")
        try:
            await client.update_status(RESOURCE, {**stored, "status": wanted})
        except ApiError as error:
            if error.code == 409:
                return False
            if error.code == 404:
                return True
            raise
        return True

    def _may_lower(self, address: Address, stored: Object, used: Amounts) -> bool:
        """Whether what others may have promised has had its time to be stored."""
        known = amounts((stored.get("status") or {}).get("used"))
        if all(used.get(name, 0) >= amount for name, amount in known.items()):
            self._too_high_since.pop(address, None)
            return True
        revision, now = int(stored["metadata"]["resourceVersion"]), self._clock.now()
        seen, since = self._too_high_since.get(address, (0, now))
        if seen != revision:
            self._too_high_since[address] = (revision, now)
            return False
        return now - since >= SETTLE

    def _wait_for_overdue(self) -> None:
        """Pods that are deleted and do not go cease to count some time: look then."""
        soon = [q for a in self.ledger.addresses() if (q := self.ledger.find(a)) is not None]
        at = min((q.recount_at for q in soon), default=float("inf"))
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
        if at < float("inf"):
            delay = max(0.0, at - self._clock.now()) + 0.001
            self._timer = asyncio.get_running_loop().call_later(delay, self._overdue)

    def _overdue(self) -> None:
        now = self._clock.now()
        for address in self.ledger.addresses():
            quota = self.ledger.find(address)
            if quota is not None and quota.recount_at <= now:
                self.note(address)
