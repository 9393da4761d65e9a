"""Who a client certificate says its bearer is."""

from __future__ import annotations

import hashlib
from collections import OrderedDict
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import UTC, datetime

from cryptography import x509
from cryptography.exceptions import InvalidSignature
from cryptography.x509.oid import ExtendedKeyUsageOID, NameOID

from glebe.apiserver.auth.scope import PREFIX, Scope, UidOf, parse_urn, root_identity_holds
from glebe.kube.clock import Clock
from glebe.kube.transport import User

AUTHENTICATED = "system:authenticated"
_REMEMBERED = 1024


@dataclass(frozen=True, slots=True)
class Bearer:
    """What a good certificate says, and from when to when (Unix seconds)."""

    user: User
    scope: Scope | None
    first: float
    last: float


class Certificates:
    """Checks client certificates against the CAs; TLS has done so too, but this needs no trust in the front."""

    def __init__(self, clock: Clock, cas: Sequence[x509.Certificate], uid_of: UidOf) -> None:
        self._clock = clock
        self._cas = tuple(cas)
        self._uid_of = uid_of
        self._known: OrderedDict[bytes, Bearer | None] = OrderedDict()

    def check(self, der: bytes, cluster: str) -> User | None:
        """The user, when the certificate is good now and in this cluster.

        Times and clusters are looked at for each request: a connection may outlive both.
        """
        try:
            bearer = self._known[der]
        except KeyError:
            bearer = self._known[der] = read_bearer(der, self._cas)
            if len(self._known) > _REMEMBERED:
                self._known.popitem(last=False)
        if bearer is None or not bearer.first <= self._clock.now() <= bearer.last:
            return None
        if bearer.scope is None:
            return bearer.user if root_identity_holds(bearer.user, cluster) else None
        return bearer.user if bearer.scope.holds_in(cluster, self._uid_of) else None


def read_bearer(der: bytes, cas: Sequence[x509.Certificate]) -> Bearer | None:
    """What a certificate says that one of ``cas`` issued directly; ``None`` when it is not good as a client's."""
    try:
        certificate = x509.load_der_x509_certificate(der)
        if not any(_issued(certificate, ca) for ca in cas):
            return None
        usage = certificate.extensions.get_extension_for_class(x509.ExtendedKeyUsage).value
        if ExtendedKeyUsageOID.CLIENT_AUTH not in usage:
            return None
        names = [str(a.value) for a in certificate.subject.get_attributes_for_oid(NameOID.COMMON_NAME)]
        if not names or not names[0]:
            return None
        scope = _scope(certificate)
    except (ValueError, TypeError, x509.ExtensionNotFound):
        return None
    groups = [str(a.value) for a in certificate.subject.get_attributes_for_oid(NameOID.ORGANIZATION_NAME)]
    extra = {"authentication.kubernetes.io/credential-id": (f"X509SHA256={hashlib.sha256(der).hexdigest()}",)}
    user = User(names[0], tuple(dict.fromkeys((*groups, AUTHENTICATED))), "", extra)
    return Bearer(user, scope, _stamp(certificate.not_valid_before_utc), _stamp(certificate.not_valid_after_utc))


def _issued(certificate: x509.Certificate, ca: x509.Certificate) -> bool:
    try:
        certificate.verify_directly_issued_by(ca)
    except (ValueError, TypeError, InvalidSignature):
        return False
    return True


def _scope(certificate: x509.Certificate) -> Scope | None:
    """The one cluster that the certificate names.

    :raises ValueError: it names several, or something that only looks like a cluster.
    """
    try:
        names = certificate.extensions.get_extension_for_class(x509.SubjectAlternativeName).value
    except x509.ExtensionNotFound:
        return None
    urns = [u for u in names.get_values_for_type(x509.UniformResourceIdentifier) if u.lower().startswith(PREFIX)]
    if not urns:
        return None
    if len(urns) > 1:
        raise ValueError("a certificate is good in one cluster at most")
    return parse_urn(urns[0])


def _stamp(when: datetime) -> float:
    return when.astimezone(UTC).timestamp()
