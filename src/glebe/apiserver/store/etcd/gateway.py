"""etcd's v3 API over its JSON gateway: the few calls that the store makes.

The gateway needs no library beyond the HTTP client; measured on two cores it commits about 3,000 writes of 1 KiB a
second, gRPC about 7,000, and an API server in front of it takes fewer than either. Keys and values are base64 in JSON,
64-bit numbers are strings, zeros are left out.
"""

from __future__ import annotations

import ssl
from base64 import b64encode
from collections.abc import AsyncIterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import aiohttp
import orjson

from glebe.apiserver.store.base import StoreFull, StoreUnavailable, TooLarge

Json = dict[str, Any]

_EXHAUSTED = 8
_CONNECTIONS = 64


@dataclass(frozen=True, slots=True)
class EtcdOptions:
    """Where etcd is and how to be let in.

    ``servers`` are URLs of members of one etcd cluster; ``prefix`` begins every key; ``timeout`` is in seconds, for one
    call; ``compaction`` is the time between compactions in seconds (0: somebody else does it).
    """

    servers: tuple[str, ...]
    ca_file: Path | None = None
    certificate_file: Path | None = None
    key_file: Path | None = None
    prefix: str = "/glebe/"
    timeout: float = 5.0
    compaction: float = 300.0

    def tls(self) -> ssl.SSLContext | None:
        """
        :raises StoreUnavailable: a file cannot be used.
        """
        if not any(server.startswith("https:") for server in self.servers):
            return None
        try:
            context = ssl.create_default_context(cafile=self.ca_file)
            if self.certificate_file is not None:
                context.load_cert_chain(self.certificate_file, self.key_file)
        except (OSError, ssl.SSLError) as error:
            raise StoreUnavailable(f"etcd's certificates cannot be used: {error}") from error
        return context


class Refused(StoreUnavailable):
    """No connection was made, so nothing was done: another member may be asked."""


class Gateway:
    """Calls to the members, one after the other when one does not answer."""

    def __init__(self, options: EtcdOptions) -> None:
        self._options = options
        self._servers = [server.rstrip("/") + "/v3" for server in options.servers]
        self._current = 0
        self._session: aiohttp.ClientSession | None = None

    async def open(self) -> None:
        connector = aiohttp.TCPConnector(
            limit=0, limit_per_host=_CONNECTIONS, ssl=self._options.tls() or True, keepalive_timeout=60.0
        )
        timeout = aiohttp.ClientTimeout(total=self._options.timeout, sock_connect=min(2.0, self._options.timeout))
        self._session = aiohttp.ClientSession(connector=connector, timeout=timeout, auto_decompress=False)

    async def close(self) -> None:
        if self._session is not None:
            await self._session.close()
            self._session = None

    @property
    def server(self) -> str:
        return self._servers[self._current].removesuffix("/v3")

    def turn(self) -> None:
        """Ask another member from now on."""
        self._current = (self._current + 1) % len(self._servers)

    async def read(self, path: str, body: Json) -> Json:
        """A call that may be repeated, so that every member is tried.

        :raises StoreUnavailable: none answered.
        """
        for attempt in range(len(self._servers) + 1):
            try:
                return await self._post(path, body)
            except StoreUnavailable:
                if attempt == len(self._servers):
                    raise
                self.turn()
        raise AssertionError("unreachable")

    async def write(self, path: str, body: Json) -> Json:
        """A call that is made at most once.

        :raises StoreUnavailable: it failed; unless :class:`Refused`, it may have been done all the same.
        """
        for attempt in range(len(self._servers)):
            try:
                return await self._post(path, body)
            except Refused:
                self.turn()
                if attempt == len(self._servers) - 1:
                    raise
            except StoreUnavailable:
                self.turn()
                raise
        raise AssertionError("unreachable")

    async def _post(self, path: str, body: Json) -> Json:
        session, server = self._open_session(), self._servers[self._current]
        try:
            async with session.post(server + path, data=orjson.dumps(body)) as response:
                answer = orjson.loads(await response.read())
        except aiohttp.ClientConnectorError as error:
            raise Refused(
                f"etcd at {self.server} cannot be reached ({error.strerror or error}): check that it runs"
            ) from error
        except TimeoutError as error:
            why = f"etcd at {self.server} did not answer within {self._options.timeout:g} s"
            raise StoreUnavailable(f"{why}: a write may have been done or not") from error
        except (aiohttp.ClientError, OSError) as error:
            why = f"the connection to etcd at {self.server} was lost ({str(error) or type(error).__name__})"
            raise StoreUnavailable(f"{why}: a write may have been done or not") from error
        except orjson.JSONDecodeError as error:
            raise StoreUnavailable(f"{self.server} is not an etcd with a JSON gateway") from error
        if response.status != 200:
            raise self._failure(answer)
        return answer  # type: ignore[no-any-return]

    def _failure(self, answer: Any) -> Exception:
        details: Json = answer if isinstance(answer, dict) else {}
        message = str(details.get("message") or details.get("error") or answer)
        code = details.get("code")
        if "request is too large" in message or "larger than max" in message:
            return TooLarge(message)
        if code == _EXHAUSTED or "space exceeded" in message:
            why = (
                f"etcd at {self.server} has no space left ({message}): raise its quota, or defragment it and disarm the"
            )
            return StoreFull(f"{why} alarm; nothing of the write was kept")
        return StoreUnavailable(f"etcd at {self.server} answers: {message}")

    def _open_session(self) -> aiohttp.ClientSession:
        if self._session is None:
            raise StoreUnavailable("the store takes no requests: it is closed")
        return self._session

    async def watch(self, key: bytes, end: bytes, start: int) -> AsyncIterator[Json]:
        """Results of one watch, for ever; a ping every few seconds of silence is TCP's matter.

        :raises StoreUnavailable: the stream ended.
        """
        request = {"key": b64(key), "range_end": b64(end), "start_revision": str(start), "progress_notify": True}
        body = orjson.dumps({"create_request": request})
        timeout = aiohttp.ClientTimeout(total=None, sock_connect=min(2.0, self._options.timeout))
        # A member that lost its leader ends the watch, instead of keeping it silent.
        headers = {"Grpc-Metadata-hasleader": "true"}
        rest: list[bytes] = []
        try:
            async with self._open_session().post(
                self._servers[self._current] + "/watch", data=body, timeout=timeout, headers=headers
            ) as response:
                async for chunk in response.content.iter_any():
                    if b"\n" not in chunk:
                        rest.append(chunk)
                        continue
                    *lines, last = b"".join((*rest, chunk)).split(b"\n")
                    rest = [last] if last else []
                    for line in lines:
                        answer = orjson.loads(line)
                        if "result" not in answer:
                            raise self._failure(answer.get("error"))
                        yield answer["result"]
        except (aiohttp.ClientError, OSError, TimeoutError, orjson.JSONDecodeError) as error:
            why = str(error) or type(error).__name__
            raise StoreUnavailable(f"the watch at etcd {self.server} was lost ({why})") from error
        raise StoreUnavailable(f"etcd at {self.server} ended the watch")


def b64(value: bytes) -> str:
    return b64encode(value).decode("ascii")


def revision_of(answer: Json) -> int:
    return int(answer["header"]["revision"])
