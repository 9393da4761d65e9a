"""What a simulated pod's annotations ask for. A scenario says the same of many pods, in the same words."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Final

from glebe.node.simulated import runtimes

PREFIX: Final = "sim.glebe.dev/"
RUN_TIME: Final = "sim.glebe.dev/run-time"
EXIT_CODE: Final = "sim.glebe.dev/exit-code"
EXIT_REASON: Final = "sim.glebe.dev/exit-reason"
FAIL_AFTER: Final = "sim.glebe.dev/fail-after"
FAIL_TIMES: Final = "sim.glebe.dev/fail-times"
INIT_TIME: Final = "sim.glebe.dev/init-time"
INIT_EXIT_CODE: Final = "sim.glebe.dev/init-exit-code"
STOP_TIME: Final = "sim.glebe.dev/stop-time"
START_DELAY: Final = "sim.glebe.dev/start-delay"
IMAGE_PULL: Final = "sim.glebe.dev/image-pull"
IMAGE_PULL_ERROR: Final = "sim.glebe.dev/image-pull-error"
READY_AFTER: Final = "sim.glebe.dev/ready-after"

FOREVER: Final = "forever"
OOM_KILLED: Final = "OOMKilled"


@dataclass(frozen=True, slots=True)
class Plan:
    """How long runs last, and how they end. An empty ``run_time`` is a run without an end.

    ``fail_times``: how many runs of a container fail; ``None``: all. ``image_pull_error``: for how long images cannot
    be pulled, ``""``: they can. An empty ``start_delay`` is the node's, an empty ``ready_after`` what probes say.
    """

    run_time: str
    exit_code: int = 0
    exit_reason: str = ""
    fail_after: str = ""
    fail_times: int | None = None
    init_time: str = "0"
    init_exit_code: int = 0
    stop_time: float = 0.0
    start_delay: str = ""
    image_pull: str = "0"
    image_pull_error: str = ""
    ready_after: str = ""

    @classmethod
    def of(cls, annotations: Mapping[str, str], default_run_time: str) -> Plan:
        """Read the annotations.

        :raises ValueError: naming the annotation and what it may be.
        """

        def checked(name: str, default: str, check: Callable[[str], object] = runtimes.check) -> str:
            text = annotations.get(name, default)
            try:
                check(text or "0")
            except ValueError as error:
                raise ValueError(f"annotation {name}: {error}") from None
            return text

        def number(name: str, default: str, most: int, what: str) -> int:
            text = annotations.get(name, default)
            if not (text.isdecimal() and int(text) <= most):
                raise ValueError(f'annotation {name}: "{text}" is not {what}: write a number from 0 to {most}')
            return int(text)

        reason = annotations.get(EXIT_REASON, "")
        code = number(EXIT_CODE, "137" if reason == OOM_KILLED else "0", 255, "an exit code")
        error = annotations.get(IMAGE_PULL_ERROR, "")
        return cls(
            run_time=checked(RUN_TIME, default_run_time),
            exit_code=code,
            exit_reason=reason,
            fail_after=checked(FAIL_AFTER, ""),
            fail_times=number(FAIL_TIMES, "", 10**6, "a number of runs") if FAIL_TIMES in annotations else None,
            init_time=checked(INIT_TIME, "0"),
            init_exit_code=number(INIT_EXIT_CODE, "0", 255, "an exit code"),
            stop_time=runtimes.seconds(checked(STOP_TIME, "0", runtimes.seconds)),
            start_delay=checked(START_DELAY, ""),
            image_pull=checked(IMAGE_PULL, "0"),
            image_pull_error=error if error == FOREVER else checked(IMAGE_PULL_ERROR, ""),
            ready_after=checked(READY_AFTER, ""),
        )

    def run(self, seed: str, restarts: int = 0) -> tuple[float | None, int, str]:
        """(seconds or ``None`` for no end, exit code, reason) of the run with this seed."""
        length = runtimes.sample(self.run_time, seed) if self.run_time else None
        if self.fail_times is not None and restarts >= self.fail_times:
            return length, 0, ""
        if self.fail_after:
            early = runtimes.sample(self.fail_after, seed)
            if length is None or early <= length:
                return early, self.exit_code or 1, self.exit_reason
        return length, self.exit_code, self.exit_reason

    def init(self, seed: str) -> float:
        """Seconds that an init container takes."""
        return runtimes.sample(self.init_time, seed)

    def delay(self, default: str, seed: str) -> float:
        """Seconds from the binding to the start, where nothing is in the way."""
        return runtimes.sample(self.start_delay or default, seed)

    def pull(self, seed: str) -> float:
        """Seconds that pulling the images takes."""
        return runtimes.sample(self.image_pull, seed) if self.image_pull else 0.0

    def unpullable(self, seed: str) -> float:
        """Seconds for which the images cannot be pulled."""
        if self.image_pull_error == FOREVER:
            return float("inf")
        return runtimes.sample(self.image_pull_error, seed) if self.image_pull_error else 0.0
