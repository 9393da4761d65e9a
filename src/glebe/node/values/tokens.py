"""Service account tokens of pods: asked for, kept, and renewed when 80 % of their life is over (or after a day)."""

from __future__ import annotations

import logging
from dataclasses import dataclass
from typing import Any, Final

from glebe.kube.client import Client
from glebe.kube.clock import Env, parse_time
from glebe.kube.errors import ApiError
from glebe.kube.objects import Object
from glebe.kube.resources import SERVICE_ACCOUNTS
from glebe.kube.transport import ConnectionLost

log = logging.getLogger("glebe.node")

DEFAULT_LIFE: Final = 3600
LONGEST: Final = 24 * 3600.0
"""Seconds after which a token is renewed, however long it lives."""
USED: Final = 0.8
JITTER: Final = 10.0


@dataclass(frozen=True, slots=True)
class Token:
    """``text`` is ``""`` on a server that issues none. Times are seconds since the epoch."""

    text: str
    renew_at: float
    expires_at: float


class Tokens:
    """The tokens of one node's pods."""

    def __init__(self, client: Client, env: Env) -> None:
        self._client = client
        self._env = env
        self._kept: dict[tuple[str, str, int], Token] = {}

    async def get(self, pod: Object, part: dict[str, Any]) -> Token:
        """A token for ``part`` (a ``serviceAccountToken`` source): the one that is there, or a newer one.

        :raises ApiError: there is none and none is given, e.g. because the account does not exist.
        """
        life = int(part.get("expirationSeconds") or DEFAULT_LIFE)
        key = (pod["metadata"]["uid"], part.get("audience") or "", life)
        old = self._kept.get(key)
        now = self._env.clock.now()
        if old is not None and now < old.renew_at:
            return old
        try:
            new = await self._request(pod, key[1], life)
        except (ApiError, ConnectionLost) as error:
            if old is None or now >= old.expires_at:
                raise
            log.warning("pod %s: its token was not renewed: %s", pod["metadata"]["name"], error)
            return old
        self._kept[key] = new
        return new

    def release(self, uid: str) -> None:
        """The pod is gone."""
        for key in [key for key in self._kept if key[0] == uid]:
            del self._kept[key]

    async def _request(self, pod: Object, audience: str, life: int) -> Token:
        meta = pod["metadata"]
        spec: dict[str, Any] = {
            "boundObjectRef": {"apiVersion": "v1", "kind": "Pod", "name": meta["name"], "uid": meta["uid"]},
            "expirationSeconds": life,
        }
        if audience:
            spec["audiences"] = [audience]
        body = {"apiVersion": "authentication.k8s.io/v1", "kind": "TokenRequest", "metadata": {}, "spec": spec}
        account = pod["spec"].get("serviceAccountName") or "default"
        asked = self._env.clock.now()
        try:
            made = await self._client.create(
                SERVICE_ACCOUNTS, body, meta["namespace"], name=account, subresource="token"
            )
        except ApiError as error:
            if error.code == 405:
                return Token("", float("inf"), float("inf"))
            raise
        expires = parse_time(made["status"]["expirationTimestamp"])
        # The server may give another life than the one asked for.
        renew = asked + min((expires - asked) * USED, LONGEST) - self._env.rng.uniform(0, JITTER)
        return Token(str(made["status"]["token"]), max(renew, asked), expires)
