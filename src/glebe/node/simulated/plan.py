"""What a simulated pod's annotations ask for."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Final

from glebe.node.simulated import runtimes

RUN_TIME: Final = "sim.glebe.dev/run-time"
EXIT_CODE: Final = "sim.glebe.dev/exit-code"
FAIL_AFTER: Final = "sim.glebe.dev/fail-after"
INIT_TIME: Final = "sim.glebe.dev/init-time"
INIT_EXIT_CODE: Final = "sim.glebe.dev/init-exit-code"
STOP_TIME: Final = "sim.glebe.dev/stop-time"


@dataclass(frozen=True, slots=True)
class Plan:
    """How long runs last, and how they end. An empty ``run_time`` is a run without an end."""

    run_time: str
    exit_code: int = 0
    fail_after: str = ""
    init_time: str = "0"
    init_exit_code: int = 0
    stop_time: float = 0.0

    @classmethod
    def of(cls, annotations: Mapping[str, str], default_run_time: str) -> Plan:
        """Read the annotations.

        :raises ValueError: naming the annotation and what it may be.
        """

        def checked(name: str, default: str, check: Callable[[str], object]) -> str:
            text = annotations.get(name, default)
            try:
                check(text or "0")
            except ValueError as error:
                raise ValueError(f"annotation {name}: {error}") from None
            return text

        def code(name: str) -> int:
            text = annotations.get(name, "0")
            if not (text.isdecimal() and int(text) <= 255):
                raise ValueError(f'annotation {name}: "{text}" is not an exit code: write a number from 0 to 255')
            return int(text)

        return cls(
            checked(RUN_TIME, default_run_time, runtimes.check),
            code(EXIT_CODE),
            checked(FAIL_AFTER, "", runtimes.check),
            checked(INIT_TIME, "0", runtimes.check),
            code(INIT_EXIT_CODE),
            runtimes.seconds(checked(STOP_TIME, "0", runtimes.seconds)),
        )

    def run(self, seed: str) -> tuple[float | None, int]:
        """(seconds or ``None`` for no end, exit code) of the run with this seed."""
        length = runtimes.sample(self.run_time, seed) if self.run_time else None
        if self.fail_after:
            early = runtimes.sample(self.fail_after, seed)
            if length is None or early <= length:
                return early, self.exit_code or 1
        return length, self.exit_code

    def init(self, seed: str) -> float:
        """Seconds that an init container takes."""
        return runtimes.sample(self.init_time, seed)
