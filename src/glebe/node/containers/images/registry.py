"""Registries, over the OCI distribution API 1.1 (Docker's v2): manifests, blobs, tokens.

Nothing that comes is believed before its digest was checked; everything is bounded in size. Credentials go only to the
host that they are for and to the token service that this host names.
"""

from __future__ import annotations

import asyncio
import base64
import contextlib
import ipaddress
import os
import re
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import aiohttp

from glebe.node.containers.images import documents
from glebe.node.containers.images.documents import Descriptor
from glebe.node.containers.images.errors import BrokenImage, PullError
from glebe.node.containers.images.reference import Reference
from glebe.node.containers.images.store import Store

_TIMEOUT = aiohttp.ClientTimeout(total=None, connect=15.0, sock_read=60.0)
_RETRIES = 4
_PAUSE = 0.5  # seconds before the first retry; doubled each time
_CHUNK = 1 << 18
_HUB = "registry-1.docker.io"
_CHALLENGE = re.compile(r'(\w+)="([^"]*)"')
_TOKEN_LIMIT = 1 << 20


@dataclass(frozen=True, slots=True)
class Credentials:
    """User and password, or an identity token (``password`` with an empty ``user``)."""

    user: str = ""
    password: str = ""

    @property
    def basic(self) -> str:
        return "Basic " + base64.b64encode(f"{self.user}:{self.password}".encode()).decode()


@dataclass(slots=True)
class _Access:
    """How we are known to a repository: tried in this order of ``credentials``, then without."""

    credentials: list[Credentials] = field(default_factory=list)
    header: str = ""


class _Refused(Exception):
    """401 or 403, with the challenge."""

    def __init__(self, status: int, challenge: str) -> None:
        super().__init__(status)
        self.status = status
        self.challenge = challenge


def is_local(domain: str) -> bool:
    """Whether a registry is on this machine: there, plain HTTP will do."""
    host = domain.rsplit(":", 1)[0] if not domain.endswith("]") else domain
    host = host.strip("[]")
    if host == "localhost" or host.endswith(".localhost"):
        return True
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return False


class Registry:
    """One repository of one registry, for one pull.

    :param credentials: tried one after the other. :param size_bound: bytes that one image may have to be pulled.
    """

    def __init__(
        self,
        session: aiohttp.ClientSession,
        name: Reference,
        store: Store,
        credentials: list[Credentials] | None = None,
        size_bound: int = 64 << 30,
    ) -> None:
        self._session = session
        self._name = name
        self._store = store
        self._access = _Access(list(credentials or []))
        self._bound = size_bound
        host = _HUB if name.domain == "docker.io" else name.domain
        self._base = f"{'http' if is_local(name.domain) else 'https'}://{host}/v2/{name.path}"

    # --- documents

    async def manifest(self, selector: str) -> tuple[str, dict[str, Any]]:
        """A manifest or index by tag or digest: its digest and content; kept in the store.

        :raises PullError: it cannot be had.
        """
        async with self._get(f"/manifests/{selector}", {"Accept": documents.ACCEPT}) as answer:
            data = await _bounded(answer, documents.MAX_DOCUMENT)
        if ":" in selector:
            digest = selector
        else:
            made = documents.new_hash("sha256:" + "0" * 64)
            made.update(data)
            digest = f"sha256:{made.hexdigest()}"
        documents.check(data, digest)
        await asyncio.to_thread(self._store.put, digest, data)
        return digest, documents.load(data)

    # --- blobs

    async def blob(self, wanted: Descriptor) -> None:
        """Bring a blob into the store; goes on where an earlier attempt ended.

        :raises PullError: it cannot be had, or is something else.
        """
        async with self._store.coming(wanted.digest):  # images share layers
            await self._blob(wanted)

    async def _blob(self, wanted: Descriptor) -> None:
        if self._store.has(wanted):
            return
        if wanted.size > self._bound:
            raise PullError(f"{wanted.digest} has {wanted.size} bytes, more than this node takes")
        partial = self._store.blob(wanted.digest)
        partial = partial.with_name(partial.name + ".part")
        partial.parent.mkdir(parents=True, exist_ok=True)
        for attempt in range(_RETRIES):
            try:
                await self._fetch(wanted, partial)
                await asyncio.to_thread(self._store.finish, wanted.digest, partial)
                return
            except (aiohttp.ClientError, TimeoutError, ConnectionError) as error:
                if attempt == _RETRIES - 1:
                    raise PullError(f"{self._name}: {wanted.digest}: {_text(error)}") from error
                await asyncio.sleep(_PAUSE * 2**attempt)

    async def _fetch(self, wanted: Descriptor, partial: Path) -> None:
        have = _size_of(partial)
        if have > wanted.size:
            os.unlink(partial)
            have = 0
        if have == wanted.size and have:
            return
        headers = {"Range": f"bytes={have}-"} if have else {}
        async with self._get(f"/blobs/{wanted.digest}", headers) as answer:
            resumed = answer.status == 206 and (answer.headers.get("Content-Range") or "").startswith(f"bytes {have}-")
            with partial.open("ab" if resumed else "wb") as file:
                size = have if resumed else 0
                async for chunk in answer.content.iter_chunked(_CHUNK):
                    size += len(chunk)
                    if size > wanted.size:
                        raise BrokenImage(f"{wanted.digest} is longer than its manifest says")
                    file.write(chunk)
        if size < wanted.size:
            raise ConnectionError("it ended early")

    # --- requests

    @contextlib.asynccontextmanager
    async def _get(self, path: str, headers: dict[str, str]) -> Any:
        """A response that is good.

        :raises PullError: it is not, for good. :raises aiohttp.ClientError: it may be better another time.
        """
        tried: list[Credentials | None] = [*self._access.credentials, None]
        while True:
            try:
                async with self._ask(path, headers) as answer:
                    yield answer
                    return
            except _Refused as refused:
                if not tried:
                    raise PullError(
                        f'failed to authorize: pull access denied for "{self._name}", repository does not exist or may '
                        f"require authorization: server answered {refused.status}"
                    ) from None
                self._access.header = await self._authorize(refused, tried.pop(0))
            except aiohttp.ClientConnectorError as error:
                raise PullError(f'failed to pull "{self._name}": {_text(error)}') from error

    @contextlib.asynccontextmanager
    async def _ask(self, path: str, headers: dict[str, str]) -> Any:
        own = {"Authorization": self._access.header} if self._access.header else {}
        async with self._session.get(self._base + path, headers={**headers, **own}, timeout=_TIMEOUT) as answer:
            if answer.status in (401, 403):
                raise _Refused(answer.status, answer.headers.get("WWW-Authenticate") or "")
            if answer.status == 404:
                raise PullError(f'failed to resolve reference "{self._name}": {self._name}: not found')
            if answer.status in (429,) or answer.status >= 500:
                raise aiohttp.ClientResponseError(
                    answer.request_info, answer.history, status=answer.status, message=str(answer.reason)
                )
            if answer.status not in (200, 206):
                raise PullError(f'"{self._name}": the registry answered {answer.status} {answer.reason}')
            yield answer

    async def _authorize(self, refused: _Refused, credentials: Credentials | None) -> str:
        """The header to try next."""
        scheme, _, rest = refused.challenge.partition(" ")
        if scheme.lower() == "basic":
            return credentials.basic if credentials else ""
        if scheme.lower() != "bearer":
            return credentials.basic if credentials else ""
        terms = dict(_CHALLENGE.findall(rest))
        realm = terms.get("realm", "")
        if not realm.startswith(("https://", "http://")):
            raise PullError(f'"{self._name}": the registry names no token service')
        if realm.startswith("http://") and credentials and not is_local(realm[7:].split("/")[0]):
            raise PullError(f'"{self._name}": its token service does not use TLS')
        query = {"scope": terms.get("scope") or f"repository:{self._name.path}:pull"}
        if terms.get("service"):
            query["service"] = terms["service"]
        return await self._token(realm, query, credentials)

    async def _token(self, realm: str, query: dict[str, str], credentials: Credentials | None) -> str:
        headers = {"Authorization": credentials.basic} if credentials and credentials.user else {}
        try:
            if credentials and not credentials.user:
                form = {**query, "grant_type": "refresh_token", "refresh_token": credentials.password}
                request = self._session.post(realm, data={**form, "client_id": "glebe"}, timeout=_TIMEOUT)
            else:
                request = self._session.get(realm, params=query, headers=headers, timeout=_TIMEOUT)
            async with request as answer:
                if answer.status != 200:
                    return ""
                document = documents.load(await _bounded(answer, _TOKEN_LIMIT))
        except (aiohttp.ClientError, TimeoutError) as error:
            raise PullError(
                f'failed to authorize: failed to fetch a token for "{self._name}": {_text(error)}'
            ) from error
        token = document.get("token") or document.get("access_token")
        return f"Bearer {token}" if isinstance(token, str) and token.isprintable() else ""


def _size_of(path: Path) -> int:
    try:
        return os.path.getsize(path)
    except OSError:
        return 0


async def _bounded(answer: aiohttp.ClientResponse, limit: int) -> bytes:
    data = bytearray()
    async for chunk in answer.content.iter_chunked(_CHUNK):
        data += chunk
        if len(data) > limit:
            raise BrokenImage("the registry's answer is too long")
    return bytes(data)


def _text(error: BaseException) -> str:
    return str(error) or type(error).__name__
