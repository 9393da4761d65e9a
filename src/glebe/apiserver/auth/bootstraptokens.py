"""Bootstrap tokens: secrets in ``kube-system`` with which a new node introduces itself."""

from __future__ import annotations

import binascii
import hmac
import re
from base64 import b64decode

from glebe.apiserver.auth import Lookup
from glebe.kube.clock import Clock, parse_time
from glebe.kube.objects import Object, is_deleting
from glebe.kube.transport import User

TYPE = "bootstrap.kubernetes.io/token"
NAMESPACE = "kube-system"
NAME_PREFIX = "bootstrap-token-"
_TOKEN = re.compile(r"([a-z0-9]{6})\.([a-z0-9]{16})")
_GROUP = re.compile(r"system:bootstrappers:[a-z0-9:-]{0,255}[a-z0-9]")
_DEFAULT_GROUP = "system:bootstrappers"


class BootstrapTokens:
    """Checks tokens of the form ``abcdef.0123456789abcdef`` against the cluster's secrets."""

    def __init__(self, clock: Clock, lookup: Lookup) -> None:
        self._clock = clock
        self._lookup = lookup

    def check(self, token: str, cluster: str) -> User | None:
        """Whose token it is: ``system:bootstrap:ID``."""
        found = _TOKEN.fullmatch(token)
        if found is None:
            return None
        identity, secret = found.groups()
        stored = self._lookup.read(cluster, "secrets", NAMESPACE, NAME_PREFIX + identity)
        if stored is None or is_deleting(stored) or stored.get("type") != TYPE:
            return None
        data = _decoded(stored)
        known = data.get("token-secret", "")
        if not known or not hmac.compare_digest(known, secret) or data.get("token-id") != identity:
            return None
        if data.get("usage-bootstrap-authentication") != "true" or is_expired(data, self._clock.now()):
            return None
        groups = [g for g in data.get("auth-extra-groups", "").split(",") if g]
        if not all(_GROUP.fullmatch(g) for g in groups):
            return None
        named = tuple(sorted({_DEFAULT_GROUP, *groups}))
        return User(f"system:bootstrap:{identity}", (*named, "system:authenticated"))


def is_expired(data: dict[str, str], now: float) -> bool:
    """Whether the secret's time is over; an end that cannot be read is over."""
    end = data.get("expiration", "")
    if not end:
        return False
    try:
        return parse_time(end) <= now
    except ValueError:
        return True


def _decoded(secret: Object) -> dict[str, str]:
    out = {}
    for key, value in (secret.get("data") or {}).items():
        try:
            out[key] = b64decode(value or "").decode()
        except (binascii.Error, UnicodeDecodeError):
            out[key] = ""
    return out
