"""Whose request starts next: a little work in each turn of the loop, in fair order when there is more."""

from __future__ import annotations

import asyncio
from collections import deque

from glebe.apiserver.fairness.options import FairnessOptions
from glebe.apiserver.fairness.queues import REFUSED, STARTED, WAITING, Fair, Waiter
from glebe.apiserver.fairness.recent import Recent
from glebe.apiserver.fairness.tenants import Lane, LevelUse, Tenant
from glebe.apiserver.sharing.courtesy import Courtesy

_ALONE = 4
"""So many times the quantum starts in one turn while only one cluster asks."""
_FRESH = 3
"""So many times the quantum may have started when somebody comes whose turn it is anyhow."""
_LIGHT = 0.3
"""Who asks for less than this part of all work is not kept waiting by what others have waiting."""
_TICK = 0.001


class Refused(Exception):
    """A request may not wait; ``reason`` is upstream's: queue-full, concurrency-limit, time-out."""

    def __init__(self, reason: str) -> None:
        super().__init__(reason)
        self.reason = reason


class Turns:
    """The seats of all clusters, and who waits for one or for his turn."""

    def __init__(self, options: FairnessOptions) -> None:
        self._options = options
        self.manners = Courtesy()
        """Those of the loop, once there is one."""
        self._order = Fair()
        self._recent = Recent()
        """Work of all clusters."""
        self.used = 0
        """Seats."""
        self.waiting = 0
        self._spent = 0.0
        self._then = 0.0
        """When it was forgotten what earlier turns began."""
        self._small = options.quantum / 2
        self._turning = self._resting = False
        self._stalled = False
        """Somebody waits for a seat of those that all clusters share."""
        self._last: Tenant | None = None
        self._arrivals: deque[tuple[float, Waiter, Lane, Fair]] = deque()
        self._timer: asyncio.TimerHandle | None = None
        self._crowd: dict[Tenant, None] = {}
        """Clusters of which somebody waits."""

    def enter(self, lane: Lane, cost: float, seats: int, now: float) -> bool:
        """Start now (the loop's time), if nobody has to wait for it; else :meth:`wait`."""
        tenant = lane.tenant
        if tenant is not self._last:
            if self._last is not None:
                self.manners.shared_at = now
            self._last = tenant
        if self._turning:
            # This turn's work is begun: only who would be the next anyhow may go on, and not too many of them.
            late = self._spent >= self._quantum() * (_FRESH if self.waiting else 1)
            if self._resting and not self.manners.holds(tenant.name):
                late = False
            if tenant.waiting or late or (self.waiting and tenant.order.tag > self._order.now):
                return False
        elif self.waiting:
            return False
        elif now - self._then >= _TICK:
            self._spent, self._then = 0.0, now
        use = lane.level
        if not self._fits(tenant, use, seats):
            return False
        self._order.spend(tenant.order, cost)
        self._recent.add(cost, now)
        tenant.recent.add(cost, now)
        if self.manners.busy and tenant.recent.rate < self._recent.rate * _LIGHT:
            self.manners.begin(tenant.name, now)
        use.used += seats
        tenant.used += seats
        self.used += seats
        self._spent += cost
        # Nobody counts turns while there is little to do: what was begun in several counts as begun in one.
        if self._spent >= self._small and not self._turning and self._spent >= self._quantum() / 2:
            self._arm()
        return True

    def leave(self, lane: Lane, seats: int) -> None:
        """A request that started has ended."""
        tenant, use = lane.tenant, lane.level
        use.used -= seats
        tenant.used -= seats
        self.used -= seats
        if self.manners.guests:
            self.manners.end(tenant.name)
        if self.waiting:
            self._offer(tuple(self._crowd) if self._stalled else (tenant,))

    async def wait(self, lane: Lane, cost: float, seats: int) -> None:
        """Return when the request has started.

        :raises Refused: it may not wait, or not any longer.
        """
        flow = self._place(lane, seats)
        loop = asyncio.get_running_loop()
        waiter = Waiter(loop.create_future(), cost, seats)
        tenant, use = lane.tenant, lane.level
        flow.queue.append(waiter)
        flow.live += 1
        use.order.live += 1
        tenant.waiting += 1
        if not self.waiting:
            self.manners.busy += 1
        self.waiting += 1
        self._crowd[tenant] = None
        use.order.add(flow)
        tenant.order.add(use.order)
        self._order.add(tenant.order)
        self._time(waiter, lane, flow, loop)
        if not self._turning:
            self._arm()
        elif self._resting and not self.manners.holds(tenant.name):
            self._go_on()
        try:
            await waiter.future
        except asyncio.CancelledError:
            if waiter.state == STARTED:
                self.leave(lane, seats)
            else:
                self._drop(waiter, lane, flow)
            raise

    # -- who may wait ----------------------------------------------------------------------------------------------

    def _place(self, lane: Lane, seats: int) -> Fair:
        """The flow's queue.

        :raises Refused: it is full.
        """
        tenant, use, options = lane.tenant, lane.level, self._options
        level = use.level
        if level.rejects and not self._fits(tenant, use, seats):
            raise Refused("concurrency-limit")
        flow = use.flows.get(lane.flow)
        if tenant.waiting >= options.cluster_waiting or use.order.live >= level.level_waiting:
            raise Refused("queue-full")
        if flow is not None and flow.live >= level.flow_waiting:
            raise Refused("queue-full")
        if self.waiting >= options.waiting and not self._make_room(tenant):
            raise Refused("queue-full")
        if flow is None:
            flow = use.flows[lane.flow] = Fair(lane.flow, leaf=True)
        return flow

    def _make_room(self, tenant: Tenant) -> bool:
        """Refuse the newest of the cluster that has most waiting; False when that is ``tenant`` itself."""
        most = max(self._crowd, key=lambda each: each.waiting)
        if most is tenant or most.waiting <= tenant.waiting + 1:
            return False
        for _, waiter, lane, flow in reversed(self._arrivals):
            if lane.tenant is most and waiter.state == WAITING:
                self._refuse(waiter, lane, flow, "queue-full")
                return True
        return False

    def _refuse(self, waiter: Waiter, lane: Lane, flow: Fair, reason: str) -> None:
        self._drop(waiter, lane, flow)
        if not waiter.future.done():
            waiter.future.set_exception(Refused(reason))

    def _drop(self, waiter: Waiter, lane: Lane, flow: Fair) -> None:
        """Nobody waits there any more; its place in the queue is found empty later."""
        if waiter.state == WAITING:
            waiter.state = REFUSED
            self._less(lane.tenant, lane.level, flow)

    def _less(self, tenant: Tenant, use: LevelUse, flow: Fair) -> None:
        flow.live -= 1
        use.order.live -= 1
        self.waiting -= 1
        if not self.waiting:
            self.manners.busy -= 1
        tenant.waiting -= 1
        if not tenant.waiting:
            self._crowd.pop(tenant, None)

    def _time(self, waiter: Waiter, lane: Lane, flow: Fair, loop: asyncio.AbstractEventLoop) -> None:
        """Bound the wait: all wait equally long, so one timer is enough for the oldest."""
        arrivals = self._arrivals
        while arrivals and arrivals[0][1].state != WAITING:
            arrivals.popleft()
        arrivals.append((loop.time() + self._options.wait_seconds, waiter, lane, flow))
        if self._timer is None:
            self._timer = loop.call_later(self._options.wait_seconds, self._late, loop)

    def _late(self, loop: asyncio.AbstractEventLoop) -> None:
        self._timer = None
        arrivals, now = self._arrivals, loop.time()
        while arrivals:
            deadline, waiter, lane, flow = arrivals[0]
            if waiter.state == WAITING:
                if deadline > now + 0.001:
                    self._timer = loop.call_at(deadline, self._late, loop)
                    return
                self._refuse(waiter, lane, flow, "time-out")
            arrivals.popleft()

    # -- turns -----------------------------------------------------------------------------------------------------

    def _quantum(self) -> float:
        return self._options.quantum if self.manners.company else self._options.quantum * _ALONE

    def _fits(self, tenant: Tenant, use: LevelUse, seats: int) -> bool:
        options = self._options
        if (self.used + seats > options.total_seats and self.used) or (
            tenant.used + seats > options.seats and tenant.used
        ):
            return False
        return use.level.exempt or use.used + seats <= use.level.most or not use.used

    def _start(self, tenant: Tenant, use: LevelUse, cost: float, seats: int) -> None:
        self._spent += cost
        now = asyncio.get_running_loop().time()
        self._recent.add(cost, now)
        tenant.recent.add(cost, now)
        use.used += seats
        tenant.used += seats
        self.used += seats

    def _arm(self) -> None:
        self._turning = True
        asyncio.get_running_loop().call_soon(self._turn)

    def _turn(self) -> None:
        """A new turn of the loop: some of those who wait start, unless they wait for a guest."""
        self._spent = 0.0
        manners = self.manners
        if manners.guests and self.waiting and all(manners.holds(each.name) for each in self._crowd):
            self._resting = True
            manners.afterwards(self._go_on)
        elif self.waiting and self._serve():
            asyncio.get_running_loop().call_soon(self._turn)
        else:
            self._turning = False

    def _go_on(self) -> None:
        if self._resting:
            self._resting = False
            asyncio.get_running_loop().call_soon(self._turn)

    def _offer(self, tenants: tuple[Tenant, ...]) -> None:
        """A seat became free: levels that wait for one stand in line again."""
        self._stalled = False
        for each in tenants:
            for use in each.levels.values():
                if use.order.head() is not None:
                    each.order.add(use.order)
            if each.order.head() is not None:
                self._order.add(each.order)
        if not self._turning:
            self._arm()

    def _serve(self) -> bool:
        """Start what fits into this turn; is there more for the next?"""
        quantum, order = self._quantum(), self._order
        while (top := order.head()) is not None:
            if self._spent >= quantum:
                return True
            tenant: Tenant = top.key  # type: ignore[assignment]
            middle = top.head()
            if middle is None:
                order.leave()
                continue
            use: LevelUse = middle.key  # type: ignore[assignment]
            flow = middle.head()
            if flow is None:
                top.leave()
                continue
            queue = flow.queue
            while queue and (queue[0].state != WAITING or queue[0].future.done()):
                queue.popleft()  # gave up
            if not queue:
                middle.leave()
                use.flows.pop(str(flow.key), None)
            elif not self._fits(tenant, use, queue[0].seats):
                self._stalled = self._stalled or self.used + queue[0].seats > self._options.total_seats
                top.leave()  # until somebody leaves
            else:
                waiter = queue.popleft()
                waiter.state = STARTED
                self._less(tenant, use, flow)
                self._start(tenant, use, waiter.cost, waiter.seats)
                waiter.future.set_result(None)
                middle.charge(waiter.cost, bool(queue))
                if not queue:
                    use.flows.pop(str(flow.key), None)
                top.charge(waiter.cost, middle.head() is not None)
                order.charge(waiter.cost, top.head() is not None)
        return False
