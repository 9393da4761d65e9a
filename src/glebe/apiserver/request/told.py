"""The end of a streamed answer, heard by whoever counts or records it."""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable


class Told:
    """A stream that says when it is over, however it ends."""

    def __init__(self, stream: AsyncIterator[bytes], over: Callable[[], None]) -> None:
        self._stream = stream
        self._over: Callable[[], None] | None = over
        if hasattr(stream, "push_to"):
            self.push_to = stream.push_to

    def __aiter__(self) -> Told:
        return self

    async def __anext__(self) -> bytes:
        try:
            return await anext(self._stream)
        except BaseException:
            self._tell()
            raise

    async def aclose(self) -> None:
        try:
            closer = getattr(self._stream, "aclose", None)
            if closer is not None:
                await closer()
        finally:
            self._tell()

    def _tell(self) -> None:
        over, self._over = self._over, None
        if over is not None:
            over()
