"""Watches pods and nodes, and publishes the day's UsageReport whenever rates change."""

from __future__ import annotations

import logging
from pathlib import Path
from typing import Any

from glebe.kube.client import Client
from glebe.kube.clock import Env
from glebe.kube.controller import Controller, Result
from glebe.kube.errors import ApiError, is_already_exists, is_conflict, is_not_found
from glebe.kube.informer import Informers, LastKnown
from glebe.kube.objects import Object, ObjectKey, controller_of
from glebe.kube.resources import JOBS, NODES, PODS, USAGE_REPORTS
from glebe.metering import report
from glebe.metering.book import Carry
from glebe.metering.intervals import DAY, day_of
from glebe.metering.ledger import Ledger
from glebe.metering.recorder import Recorder

log = logging.getLogger("glebe.metering")

COALESCE = 1.0  # seconds that changes are gathered before they are published
_TRIES = 5


class Metering:
    """The recorder and the publisher behind one controller."""

    def __init__(self, client: Client, informers: Informers, env: Env, ledger_path: Path | str | None) -> None:
        self._client = client
        self._env = env
        self._pods = informers.get(PODS)
        self._nodes = informers.get(NODES)
        self._jobs = informers.get(JOBS)
        self._ledger = Ledger(ledger_path) if ledger_path is not None else None
        self.recorder: Recorder | None = None
        self._published: dict[int, dict[str, Any]] = {}
        self.controller = _Controller(self, env)
        # ``when`` sees every change and says that there is no key to enqueue: keys are days, not objects. Watching
        # this way also makes the controller wait until all three have synced, and ends with it.
        self.controller.watch(self._nodes, when=self._on_node)
        self.controller.watch(self._pods, when=self._on_pod)
        self.controller.watch(self._jobs, when=lambda _old, _new: False)
        self._wake(self._now(), 0.0)

    def close(self) -> None:
        """Release the ledger file. What was not committed is learnt again by the next start."""
        if self._ledger is not None:
            self._ledger.close()

    def _now(self) -> int:
        return int(self._env.clock.now())

    def _wake(self, now: int, after: float = COALESCE) -> None:
        self.controller.queue.add_after(ObjectKey(self._client.cluster, "", report.name_of(day_of(now))), after)

    # --- watching: nothing is recorded before the first lists are whole, so that pods find their jobs

    def _on_node(self, old: Object | None, new: Object | None) -> bool:
        if self.recorder is None:
            return False
        now = self._now()
        if new is not None:
            news = self.recorder.node(new, now)
        else:
            news = old is not None and self.recorder.node_gone(old["metadata"]["name"], now)
        if news:
            self._wake(now)
        return False

    def _on_pod(self, old: Object | None, new: Object | None) -> bool:
        if self.recorder is None:
            return False
        now = self._now()
        if new is not None:
            news = self.recorder.pod(new, self._job_of(new), now)
        else:
            news = old is not None and self.recorder.pod_gone(old, now, estimated=isinstance(old, LastKnown))
        if news:
            self._wake(now)
        return False

    def _job_of(self, pod: Object) -> Object | None:
        owner = controller_of(pod)
        if owner is None or owner["kind"] != "Job":
            return None
        job = self._jobs.store.get(ObjectKey(self._client.cluster, pod["metadata"]["namespace"], owner["name"]))
        return job if job is not None and job["metadata"]["uid"] == owner["uid"] else None

    # --- publishing

    async def reconcile(self, key: ObjectKey) -> Result | None:
        if self.recorder is None:
            await self._settle()
        assert self.recorder is not None
        if self._ledger is not None:
            self._ledger.commit()
        now, day = self._now(), report.day_of_name(key.name)
        totals = self.recorder.book.totals(day, now)
        status = report.status_of(totals)
        if not self._follows(day, status, now):
            await self._publish(day, status)
            self._published[day] = status
        if now >= day + DAY:
            self.recorder.forget_old(now)
            self._published.pop(day, None)
            self._wake(now, 0.0)
            return None
        return Result(day + DAY - self._env.clock.now())

    async def _settle(self) -> None:
        """Learn what happened while nobody was watching, from the ledger or, without one, from the last report."""
        now = self._now()
        recorder = Recorder(self._ledger, now)
        today = day_of(now)
        if recorder.loaded:
            if await self._existing(today - DAY) is not None:  # it may have been left open at midnight
                self._wake(today - DAY, 0.0)
        elif (carry := await self._carry(today)) is not None:
            recorder.carry(carry)
        present = {pod["metadata"]["uid"] for pod in self._pods.store.values()}
        for node in self._nodes.store.values():
            recorder.node(node, now)
        for pod in self._pods.store.values():
            recorder.pod(pod, self._job_of(pod), now)
        for uid in recorder.book.open_allocations():
            if uid not in present:
                recorder.end(uid, now, estimated=True)
        names = {node["metadata"]["name"] for node in self._nodes.store.values()}
        for name in recorder.book.nodes():
            if name not in names:
                recorder.node_gone(name, now)
        self.recorder = recorder

    async def _carry(self, today: int) -> Carry | None:
        last = await self._existing(today)
        if last is not None:
            return report.carry_of(last)
        before = await self._existing(today - DAY)  # then today goes on with what was there at midnight
        return Carry(today, {}, {}) if before is not None else None

    def _follows(self, day: int, status: dict[str, Any], now: int) -> bool:
        """Whether a reader can know ``status`` from what was published last."""
        last = self._published.get(day)
        if last is None or now >= day + DAY:
            return False
        before = report.at([{**report.object_of(day), "status": last}], now)
        return before == report.at([{**report.object_of(day), "status": status}], now)

    async def _existing(self, day: int) -> Object | None:
        try:
            return await self._client.get(USAGE_REPORTS, report.name_of(day))
        except ApiError as error:
            if is_not_found(error):
                return None
            raise

    async def _publish(self, day: int, status: dict[str, Any]) -> None:
        for _ in range(_TRIES):
            known = await self._existing(day)
            try:
                if known is None:
                    known = await self._client.create(USAGE_REPORTS, report.object_of(day))
                await self._client.update_status(USAGE_REPORTS, {**known, "status": status})
                return
            except ApiError as error:
                if not (is_conflict(error) or is_already_exists(error) or is_not_found(error)):
                    raise
        raise ApiError(409, "Conflict", f"usage report {report.name_of(day)} keeps changing under the ledger")


class _Controller(Controller):
    """Closes the ledger file when it ends."""

    def __init__(self, metering: Metering, env: Env) -> None:
        super().__init__("metering", metering.reconcile, env)
        self._metering = metering

    async def run(self) -> None:
        try:
            await super().run()
        finally:
            self._metering.close()


def controllers(
    client: Client, informers: Informers, env: Env, ledger_path: Path | str | None = None
) -> list[Controller]:
    """The ledger's controllers for one cluster. ``ledger_path`` ``None``: no file (simulation).

    :raises LedgerError: the file cannot be used.
    """
    return [Metering(client, informers, env, ledger_path).controller]
