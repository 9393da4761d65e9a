"""Who asks: the front proxy's word, a client certificate, a bearer token, or nobody in particular."""

from __future__ import annotations

import csv
import hmac
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Protocol

from cryptography import x509

from glebe.apiserver.auth.bootstraptokens import BootstrapTokens
from glebe.apiserver.auth.certificates import AUTHENTICATED, Certificates
from glebe.apiserver.auth.requestheader import RequestHeaders
from glebe.apiserver.auth.scope import UidOf, root_identity_holds
from glebe.apiserver.auth.tokens import ServiceAccountTokens
from glebe.kube.clock import Clock
from glebe.kube.transport import Request, User

UNAUTHENTICATED = "system:unauthenticated"
ANONYMOUS = User("system:anonymous", (UNAUTHENTICATED,))


class TokenUsers(Protocol):
    """Knows the users of an identity provider by their tokens."""

    async def check(self, token: str, cluster: str) -> User | None: ...


def read_static_tokens(path: Path) -> dict[str, User]:
    """Tokens from a file of lines ``token,user,uid[,"group1,group2"]`` (as kube-apiserver's ``--token-auth-file``).

    :raises ValueError: a line has fewer than three fields; names the line.
    """
    out: dict[str, User] = {}
    with path.open(newline="", encoding="utf-8") as file:
        for number, row in enumerate(csv.reader(file), 1):
            if not row or row[0].startswith("#"):
                continue
            if len(row) < 3 or not row[0].strip():
                raise ValueError(f"{path}, line {number}: expected token,user,uid[,groups]")
            token, name, uid = (field.strip() for field in row[:3])
            groups = [g.strip() for g in row[3].split(",") if g.strip()] if len(row) > 3 else []
            out[token] = User(name, (*groups, AUTHENTICATED), uid)
    return out


class Authenticator:
    """Tries them in upstream's order; wrong credentials are refused, none at all make ``system:anonymous``.

    :param cas: who signs client certificates; none: certificates are not accepted.
    :param tokens: service account tokens; ``None``: not accepted.
    :param static_tokens: good in the root cluster (and everywhere for its ``system:masters``).
    :param users: an identity provider's users, good in every cluster.
    :param anonymous: whether requests without credentials are served at all.
    :param anonymous_paths: when given, only these paths are served without credentials.
    """

    def __init__(
        self,
        clock: Clock,
        *,
        cas: Sequence[x509.Certificate] = (),
        tokens: ServiceAccountTokens | None = None,
        bootstrap: BootstrapTokens | None = None,
        static_tokens: Mapping[str, User] | None = None,
        proxy: RequestHeaders | None = None,
        users: TokenUsers | None = None,
        uid_of: UidOf = lambda name: "",
        anonymous: bool = True,
        anonymous_paths: Sequence[str] | None = None,
    ) -> None:
        self._certificates = Certificates(clock, cas, uid_of) if cas else None
        self._tokens = tokens
        self._bootstrap = bootstrap
        self._static = [(token.encode(), user) for token, user in (static_tokens or {}).items()]
        self._proxy = proxy
        self._users = users
        self._anonymous = anonymous
        self._anonymous_paths = None if anonymous_paths is None else frozenset(anonymous_paths)

    async def authenticate(self, request: Request, cluster: str) -> User | None:
        """The user, or ``None`` when the credentials are not good (401)."""
        shown = False
        if self._proxy is not None and (user := self._proxy.check(request, cluster)) is not None:
            return user
        if request.peer_certificate is not None and self._certificates is not None:
            user = self._certificates.check(request.peer_certificate, cluster)
            if user is not None:
                return user
            shown = True
        header = request.headers.get("authorization", "")
        if header:
            scheme, _, token = header.partition(" ")
            if scheme.lower() == "bearer" and (token := token.strip()):
                found = await self.check_token(token, cluster)
                return found[0] if found else None
        if shown or not self._anonymous:
            return None
        if self._anonymous_paths is not None and _bare(request.path) not in self._anonymous_paths:
            return None
        return ANONYMOUS

    async def check_token(
        self, token: str, cluster: str, audiences: tuple[str, ...] = ()
    ) -> tuple[User, list[str]] | None:
        """Whose bearer token it is, and for which of ``audiences`` (default: this API) it is good."""
        if not token:
            return None
        if self._tokens is not None and (bound := self._tokens.check(token, cluster, audiences)) is not None:
            return bound
        own = self._tokens.issuer_of(cluster) if self._tokens is not None else ""
        if audiences and own not in audiences:
            return None  # the other kinds of tokens say nothing of audiences: they are meant for this API
        user = self._static_user(token, cluster)
        if user is None and self._bootstrap is not None:
            user = self._bootstrap.check(token, cluster)
        if user is None and self._users is not None:
            user = await self._users.check(token, cluster)
        return None if user is None else (user, [own] if audiences else [])

    def _static_user(self, token: str, cluster: str) -> User | None:
        asked = token.encode(errors="surrogateescape")  # a header may hold any bytes
        for known, user in self._static:
            if hmac.compare_digest(known, asked):
                return user if root_identity_holds(user, cluster) else None
        return None


def _bare(path: str) -> str:
    """The path without a cluster's prefix."""
    if not path.startswith("/clusters/"):
        return path
    return "/" + path[len("/clusters/") :].partition("/")[2]
