"""Who asks: client certificate, bearer token (static or service account), or nobody in particular."""

from __future__ import annotations

import csv
import hmac
from collections import OrderedDict
from collections.abc import Mapping
from datetime import UTC, datetime
from pathlib import Path

from cryptography import x509
from cryptography.exceptions import InvalidSignature
from cryptography.x509.oid import ExtendedKeyUsageOID, NameOID

from glebe.apiserver.auth.tokens import ServiceAccountTokens
from glebe.kube.clock import Clock
from glebe.kube.transport import Request, User

AUTHENTICATED = "system:authenticated"
UNAUTHENTICATED = "system:unauthenticated"
ANONYMOUS = User("system:anonymous", (UNAUTHENTICATED,))
_REMEMBERED = 256


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
    """Tries certificate, then token. Wrong credentials are refused; none at all make ``system:anonymous``.

    :param ca: who signs client certificates; ``None``: certificates are not accepted.
    :param tokens: service account tokens; ``None``: not accepted.
    """

    def __init__(
        self,
        clock: Clock,
        *,
        ca: x509.Certificate | None = None,
        tokens: ServiceAccountTokens | None = None,
        static_tokens: Mapping[str, User] | None = None,
        anonymous: bool = True,
    ) -> None:
        self._clock = clock
        self._ca = ca
        self._tokens = tokens
        self._static = dict(static_tokens or {})
        self._anonymous = anonymous
        self._certificates: OrderedDict[bytes, tuple[User, float, float]] = OrderedDict()

    async def authenticate(self, request: Request, cluster: str) -> User | None:
        """The user, or ``None`` when the credentials are not good (401)."""
        if request.peer_certificate is not None and self._ca is not None:
            return self._by_certificate(request.peer_certificate)
        header = request.headers.get("authorization", "")
        scheme, _, token = header.partition(" ")
        if scheme.lower() == "bearer":
            found = self.check_token(token.strip(), cluster)
            return found[0] if found else None
        return ANONYMOUS if self._anonymous else None

    def check_token(self, token: str, cluster: str, audiences: tuple[str, ...] = ()) -> tuple[User, list[str]] | None:
        """Whose bearer token it is, and for which audiences it is good."""
        if not token:
            return None
        asked = token.encode(errors="surrogateescape")  # a header may hold any bytes
        for known, user in self._static.items():
            if hmac.compare_digest(known.encode(), asked):
                return user, list(audiences)
        return self._tokens.check(token, cluster, audiences) if self._tokens else None

    def _by_certificate(self, der: bytes) -> User | None:
        known = self._certificates.get(der)
        if known is None:
            known = self._read_certificate(der)
            if known is None:
                return None
            self._certificates[der] = known
            if len(self._certificates) > _REMEMBERED:
                self._certificates.popitem(last=False)
        user, first, last = known
        return user if first <= self._clock.now() <= last else None

    def _read_certificate(self, der: bytes) -> tuple[User, float, float] | None:
        """The user and the validity; TLS has checked the chain, but this is cheap and needs no trust in the front."""
        try:
            certificate = x509.load_der_x509_certificate(der)
            if self._ca is None:
                return None
            certificate.verify_directly_issued_by(self._ca)
            usage = certificate.extensions.get_extension_for_class(x509.ExtendedKeyUsage).value
        except (ValueError, TypeError, InvalidSignature, x509.ExtensionNotFound):
            return None
        names = [str(a.value) for a in certificate.subject.get_attributes_for_oid(NameOID.COMMON_NAME)]
        if ExtendedKeyUsageOID.CLIENT_AUTH not in usage or not names:
            return None
        groups = [str(a.value) for a in certificate.subject.get_attributes_for_oid(NameOID.ORGANIZATION_NAME)]
        user = User(names[0], (*groups, AUTHENTICATED))
        return user, _stamp(certificate.not_valid_before_utc), _stamp(certificate.not_valid_after_utc)


def _stamp(when: datetime) -> float:
    return when.astimezone(UTC).timestamp()
