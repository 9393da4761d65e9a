"""Users whom a front proxy has authenticated: ``X-Remote-User`` and its kin, believed with the proxy's certificate."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from urllib.parse import unquote

from cryptography import x509

from glebe.apiserver.auth.certificates import AUTHENTICATED, Certificates
from glebe.apiserver.auth.scope import root_identity_holds
from glebe.kube.clock import Clock
from glebe.kube.transport import Request, User


@dataclass(frozen=True, slots=True)
class FrontProxy:
    """Who the proxy is and how it says who asks (header names in any case)."""

    cas: Sequence[x509.Certificate]
    allowed_names: tuple[str, ...] = ()
    """Common names of its certificate; none named: any certificate of the CAs."""
    username_headers: tuple[str, ...] = ("X-Remote-User",)
    uid_headers: tuple[str, ...] = ("X-Remote-Uid",)
    group_headers: tuple[str, ...] = ("X-Remote-Group",)
    extra_prefixes: tuple[str, ...] = ("X-Remote-Extra-",)


class RequestHeaders:
    """Reads the headers of requests that come with the proxy's certificate."""

    def __init__(self, clock: Clock, proxy: FrontProxy) -> None:
        # The proxy's CAs issue nothing for clusters: a certificate that names one is not the proxy's.
        self._certificates = Certificates(clock, proxy.cas, lambda name: "")
        self._proxy = proxy

    def check(self, request: Request, cluster: str) -> User | None:
        """The user whom the proxy names; ``None`` when it names none, or is not the proxy."""
        name = _first(request, self._proxy.username_headers)
        if not name or request.peer_certificate is None:
            return None
        bearer = self._certificates.check(request.peer_certificate, "root")
        allowed = self._proxy.allowed_names
        if bearer is None or (allowed and bearer.name not in allowed):
            return None
        groups = [g for h in self._proxy.group_headers for g in _values(request.headers.get(h.lower(), ""))]
        user = User(
            name,
            tuple(dict.fromkeys((*groups, AUTHENTICATED))),
            _first(request, self._proxy.uid_headers),
            self._extra(request),
        )
        return user if root_identity_holds(user, cluster) else None

    def _extra(self, request: Request) -> dict[str, tuple[str, ...]]:
        out = {}
        for header, value in request.headers.items():
            for prefix in self._proxy.extra_prefixes:
                if header.startswith(prefix.lower()):
                    out[unquote(header[len(prefix) :]).lower()] = _values(value)
        return out


def _first(request: Request, headers: Sequence[str]) -> str:
    return next((v for h in headers if (v := request.headers.get(h.lower(), "").strip())), "")


def _values(text: str) -> tuple[str, ...]:
    return tuple(part.strip() for part in text.split(",") if part.strip())
