"""The probes of one run of a container, each a loop of its own while the container runs."""

from __future__ import annotations

import asyncio
from collections.abc import Callable

from glebe.node.process import actions
from glebe.node.process.actions import ActionError, Target
from glebe.node.process.context import WARNING, PodContext
from glebe.node.process.probing import Kind, Probe, Series, early, first_at, probes_of
from glebe.node.status import Container

_TRIES = 3  # of a probe that could not be made at all

#: Told when a container must be killed: the probe that failed for good.
OnFailure = Callable[[Probe], None]


class Probes:
    """What the probes of one run say, written into its :class:`Container`."""

    def __init__(self, pod: PodContext, container: Container, target: Target, on_failure: OnFailure) -> None:
        self._pod = pod
        self._container = container
        self._target = target
        self._on_failure = on_failure
        self.started = asyncio.Event()

    def begin(self) -> None:
        """Before the run shows as running: what has a probe is not ready until the probe has said so."""
        known = probes_of(self._target.body)
        self._container.started = None if Kind.STARTUP not in known else bool(self._container.started)
        self._container.ready = None if Kind.READINESS not in known else bool(self._container.ready)
        if self._container.is_started:
            self.started.set()

    async def run(self) -> None:
        """Probe until cancelled."""
        known = probes_of(self._target.body)
        async with asyncio.TaskGroup() as group:
            for probe in known.values():
                if probe.kind is not Kind.STARTUP or not self.started.is_set():
                    group.create_task(self._watch(probe), name=f"{probe.kind} probe of {self._container.name}")

    async def _watch(self, probe: Probe) -> None:
        if probe.kind is not Kind.STARTUP:
            await self.started.wait()
        loop = asyncio.get_running_loop()
        now = self._pod.now()
        began, offset = self._container.started_at or now, loop.time() - now
        for at in early(probe, began, now):
            await asyncio.sleep(max(0.0, at + offset - loop.time()))
            if await self._early(probe):
                return
        due = offset + first_at(probe, began, now)
        series = Series(probe)
        while True:
            await asyncio.sleep(max(0.0, due - loop.time()))
            if self._pod.ending.is_set() and probe.kind is not Kind.READINESS:
                return  # a pod that ends is not killed for being unwell
            ok = await self._once(probe)
            verdict = series.note(ok) if ok is not None else None
            if verdict is not None and not self._goes_on(probe, verdict):
                return
            # At fixed times, as far as probes are not slower than their period.
            due = max(due + probe.period, loop.time())

    async def _early(self, probe: Probe) -> bool:
        """An attempt before its time: its failure is nobody's business."""
        try:
            outcome = await actions.probe(self._target, probe.action, probe.timeout)
        except ActionError:
            return False
        return outcome.ok and not self._goes_on(probe, True)

    async def _once(self, probe: Probe) -> bool | None:
        """One result; ``None``: it says nothing."""
        name = self._container.name
        for left in reversed(range(_TRIES)):
            try:
                outcome = await actions.probe(self._target, probe.action, probe.timeout)
            except ActionError as error:
                if not left:
                    text = f"{probe.kind} probe errored and resulted in unknown state: {error}"
                    self._say("Unhealthy", text)
                continue
            if not outcome.ok:
                self._say("Unhealthy", f"{probe.kind} probe failed: {outcome.text}")
            elif outcome.warning:
                self._pod.say(WARNING, "ProbeWarning", f"{probe.kind} probe warning: {outcome.text}", name)
            return outcome.ok
        return None

    def _say(self, reason: str, text: str) -> None:
        # The container may have ended under the probe: then its failure means nothing.
        if self._target.run.exit is None:
            self._pod.say(WARNING, reason, text, self._container.name)

    def _goes_on(self, probe: Probe, verdict: bool) -> bool:
        """Act on a threshold that was reached; ``False``: this probe has done its work for this run."""
        if probe.kind is Kind.READINESS:
            if self._container.ready is not verdict:
                self._container.ready = verdict
                self._pod.touch()
            return True
        if probe.kind is Kind.STARTUP and verdict:
            self._container.started = True
            self.started.set()
            self._pod.touch()
            return False
        if not verdict:
            self._on_failure(probe)
        return verdict
