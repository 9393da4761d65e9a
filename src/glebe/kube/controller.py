"""A controller: watched objects in, keys out, one reconcile function that makes the world so.

The reconcile function is called with a key and reads what it needs from stores; it must bear being called at any
time, for objects that are gone, and again after any failure.
"""

from __future__ import annotations

import asyncio
import itertools
import logging
from collections.abc import Awaitable, Callable, Iterable
from dataclasses import dataclass
from weakref import WeakSet

from glebe.kube.clock import Env
from glebe.kube.errors import ApiError, is_conflict
from glebe.kube.informer import Handler, Informer
from glebe.kube.objects import Object, ObjectKey, key_of
from glebe.kube.transport import ConnectionLost
from glebe.kube.workqueue import QueueShutDown, WorkQueue

_TURNS = 16  # keys that a worker takes before it lets others run


@dataclass(frozen=True)
class Result:
    """What a reconciliation wants: to be called again after ``requeue_after`` seconds."""

    requeue_after: float | None = None


_RUNNING: WeakSet[Controller] = WeakSet()


def running() -> list[Controller]:
    """All controllers of this process that run, for its metrics."""
    return sorted(_RUNNING, key=lambda each: each.name)


class Controller:
    """Feeds keys of changed objects to ``reconcile``, one at a time per key.

    :param name: for logs; one word per controller.
    :param workers: how many keys are worked on at once.
    :param resync: also enqueue every known object each ``resync`` seconds.
    """

    def __init__(
        self,
        name: str,
        reconcile: Callable[[ObjectKey], Awaitable[Result | None]],
        env: Env,
        *,
        workers: int = 1,
        resync: float | None = None,
    ) -> None:
        self.name = name
        self.queue: WorkQueue[ObjectKey] = WorkQueue(env)
        self._reconcile = reconcile
        self._workers = workers
        self._resync = resync
        self.only: Callable[[ObjectKey], bool] | None = None
        """Keys for which it is false are left alone; see :meth:`look_again`."""
        self._watched: list[tuple[Informer, Handler, Callable[[Object], Iterable[ObjectKey]]]] = []
        self._problems: dict[ObjectKey, str] = {}
        self._log = logging.getLogger(f"glebe.controller.{name}")
        self.reconciled = 0
        self.failed = 0

    def watch(
        self,
        informer: Informer,
        to_keys: Callable[[Object], Iterable[ObjectKey]] | None = None,
        *,
        when: Callable[[Object | None, Object | None], bool] | None = None,
    ) -> None:
        """Enqueue ``to_keys`` of the old and the new object at each change; by default the object's own key.

        :param when: only for changes ``(old, new)`` for which it is true.
        """

        def own(obj: Object) -> Iterable[ObjectKey]:
            return (key_of(obj, informer.cluster),)

        keys_of = to_keys or own

        def handle(old: Object | None, new: Object | None) -> None:
            if when is not None and not when(old, new):
                return
            for obj in (old, new):
                if obj is not None:
                    for key in keys_of(obj):
                        self.queue.add(key)

        self._watched.append((informer, handle, keys_of))
        informer.add_handler(handle)

    async def run(self) -> None:
        """Wait until the watched informers have synced, then work until cancelled. Once per controller."""
        try:
            _RUNNING.add(self)
            for informer, _, _ in self._watched:
                await informer.wait_synced()
            async with asyncio.TaskGroup() as group:
                for number in range(self._workers):
                    group.create_task(self._work(), name=f"{self.name}/{number}")
                if self._resync is not None:
                    group.create_task(self._resync_loop(self._resync), name=f"{self.name}/resync")
        finally:
            _RUNNING.discard(self)
            self.queue.shutdown()
            for informer, handler, _ in self._watched:
                informer.remove_handler(handler)

    async def _work(self) -> None:
        for turn in itertools.count(1):
            try:
                key = await self.queue.get()
            except QueueShutDown:
                return
            try:
                await self._process(key)
            finally:
                self.queue.done(key)
            if turn % _TURNS == 0:  # neither a full queue nor a reconciliation without I/O gives way by itself
                await asyncio.sleep(0)

    async def _process(self, key: ObjectKey) -> None:
        if self.only is not None and not self.only(key):
            self.queue.forget(key)
            return
        try:
            result = await self._reconcile(key)
        except asyncio.CancelledError as error:
            task = asyncio.current_task()
            if task is None or task.cancelling():
                raise
            # Something that the reconciliation awaited was cancelled, not the worker: that must not end the worker.
            self._failure(key, RuntimeError(f"what the reconciliation waited for was cancelled: {error!r}"))
            return
        except Exception as error:
            self._failure(key, error)
            return
        self.reconciled += 1
        self.queue.forget(key)
        self._problems.pop(key, None)
        if result is not None and result.requeue_after is not None:
            self.queue.add_after(key, result.requeue_after)

    def _failure(self, key: ObjectKey, error: Exception) -> None:
        self.failed += 1
        self._report(key, error)
        self.queue.add_rate_limited(key)

    def _report(self, key: ObjectKey, error: Exception) -> None:
        """Say it once per key and kind of failure, not once per attempt."""
        text = f"{type(error).__name__}: {error}"
        if self._problems.get(key) == text:
            return
        self._problems[key] = text
        if is_conflict(error):
            self._log.debug("%s: %s", key, error)
        elif isinstance(error, ApiError | ConnectionLost):
            self._log.warning("%s: %s; will try again", key, error)
        else:
            self._log.error("%s: unexpected failure; will try again", key, exc_info=error)

    async def _resync_loop(self, period: float) -> None:
        while True:
            await asyncio.sleep(period)
            self.look_again()

    def look_again(self) -> None:
        """Enqueue everything that is known."""
        for informer, _, keys_of in self._watched:
            for obj in informer.store.values():
                for key in keys_of(obj):
                    self.queue.add(key)
