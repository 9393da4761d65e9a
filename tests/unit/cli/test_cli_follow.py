"""Following a job: what is told of a platform that goes away."""

from __future__ import annotations

import logging
from collections.abc import AsyncIterator
from typing import Any

import pytest

from glebe.cli.follow import _Lost, print_log
from glebe.kube.transport import ConnectionLost


def test_a_lost_platform_is_told_once(capsys: pytest.CaptureFixture[str]) -> None:
    lost = _Lost()
    for at in (1000.0, 1000.2, 1030.0, 1100.0):
        record = logging.LogRecord("glebe.kube.reflector", logging.WARNING, "", 0, "pods: the stream broke", None, None)
        record.created = at
        lost.handle(record)
    assert capsys.readouterr().err.count("the platform does not answer") == 2


class Logs:
    """A client whose server goes away twice."""

    def __init__(self) -> None:
        self.answers = [b"one\n", b"", b"one\ntwo\n", b"one\ntwo\nthree\n"]

    async def logs(self, name: str, namespace: str, **options: Any) -> AsyncIterator[bytes]:
        text = self.answers.pop(0)
        for start in range(0, len(text), 3):
            yield text[start : start + 3]
        if self.answers:
            raise ConnectionLost("gone")


async def test_a_log_goes_on_where_it_broke_off(capfdbinary: pytest.CaptureFixture[bytes]) -> None:
    await print_log(Logs(), {"metadata": {"name": "p", "namespace": "n"}})  # type: ignore[arg-type]
    assert capfdbinary.readouterr().out == b"one\ntwo\nthree\n"
