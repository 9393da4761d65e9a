"""The keys of an identity provider, fetched over HTTPS and kept; never asked more often than it needs to be."""

from __future__ import annotations

import asyncio
import logging
import ssl
from collections.abc import Awaitable, Callable
from typing import Any, TypeAlias
from urllib.parse import urlsplit

import orjson

from glebe.apiserver.auth import jwt
from glebe.apiserver.auth.jwt import PublicKey
from glebe.kube.clock import Clock

log = logging.getLogger("glebe.apiserver.oidc")

#: Keys are looked at anew after so many seconds, and for an unknown key id at most this often.
KEPT = 3600.0
PAUSE = 10.0
TIMEOUT = 10.0
MAX_BODY = 1 << 20

Fetch: TypeAlias = Callable[[str, str], Awaitable[bytes]]
"""``(url, CA as PEM or "")`` -> the body. :raises OSError, ValueError: not to be had."""


class ProviderKeys:
    """One provider's keys. Several requests that wait for them share one fetch."""

    def __init__(
        self, clock: Clock, url: str, discovery_url: str = "", ca: str = "", fetch: Fetch | None = None
    ) -> None:
        self._clock = clock
        self._url = url
        self._discovery = discovery_url or url.rstrip("/") + "/.well-known/openid-configuration"
        self._ca = ca
        self._fetch = fetch or fetch_https
        self._keys: list[tuple[str, PublicKey]] = []
        self._tried = float("-inf")
        self._fetched = float("-inf")
        self._under_way: asyncio.Task[None] | None = None

    async def candidates(self, kid: str) -> list[PublicKey]:
        """The keys that may have signed a token with this key id (without one: all)."""
        found = self._matching(kid)
        now = self._clock.now()
        if found and now - self._fetched < KEPT:
            return found
        if now - self._tried >= PAUSE or self._under_way is not None:
            refresh = self._refresh()
            if not found:
                await asyncio.shield(refresh)
        return self._matching(kid)

    def _matching(self, kid: str) -> list[PublicKey]:
        return [key for known, key in self._keys if not kid or not known or known == kid]

    def _refresh(self) -> asyncio.Task[None]:
        if self._under_way is None:
            self._tried = self._clock.now()
            self._under_way = asyncio.create_task(self._load(), name=f"keys of {self._url}")
        return self._under_way

    async def _load(self) -> None:
        try:
            async with asyncio.timeout(TIMEOUT):
                document = _json(await self._fetch(self._discovery, self._ca))
                if document.get("issuer") != self._url:
                    raise ValueError(f"it says that its issuer is {document.get('issuer')!r}")
                where = str(document.get("jwks_uri"))
                if urlsplit(where).scheme != "https":
                    raise ValueError("its jwks_uri is no https URL")
                self._keys = jwt.read_jwks(_json(await self._fetch(where, self._ca)))
            self._fetched = self._clock.now()
        except (OSError, ValueError, TimeoutError) as error:
            log.warning("identity provider %s: its keys cannot be had: %s", self._url, error or "timeout")
        finally:
            self._under_way = None


def _json(body: bytes) -> dict[str, Any]:
    document = orjson.loads(body)
    if not isinstance(document, dict):
        raise ValueError("it answered with no JSON object")
    return document


async def fetch_https(url: str, ca: str) -> bytes:
    """GET over TLS, no redirects to elsewhere.

    :raises OSError, ValueError: no answer, or not a good one.
    """
    import aiohttp  # late: only servers with identity providers ask anybody

    context = ssl.create_default_context(cadata=ca or None)
    timeout = aiohttp.ClientTimeout(total=TIMEOUT)
    try:
        async with (
            aiohttp.ClientSession(timeout=timeout, trust_env=True) as session,
            session.get(url, ssl=context, allow_redirects=False) as response,
        ):
            if response.status != 200:
                raise ValueError(f"{url} answered {response.status}")
            body = await response.content.read(MAX_BODY + 1)
    except aiohttp.ClientError as error:
        raise OSError(str(error) or type(error).__name__) from error
    if len(body) > MAX_BODY:
        raise ValueError(f"{url} answered with more than {MAX_BODY} bytes")
    return body
