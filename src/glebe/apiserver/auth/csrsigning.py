"""Signs approved certificate signing requests of the ``kubernetes.io`` signers."""

from __future__ import annotations

from base64 import b64decode
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta

from cryptography import x509
from cryptography.hazmat.primitives.asymmetric import ec, ed25519, rsa
from cryptography.x509.oid import ExtendedKeyUsageOID, NameOID

from glebe.apiserver.auth.pki import MASTERS, LeafRequest, Pki
from glebe.apiserver.auth.scope import PREFIX, Scope, UidOf
from glebe.apiserver.request.routing import ROOT
from glebe.kube.clock import Clock
from glebe.kube.objects import Object

CLIENT = "kubernetes.io/kube-apiserver-client"
KUBELET_CLIENT = "kubernetes.io/kube-apiserver-client-kubelet"
KUBELET_SERVING = "kubernetes.io/kubelet-serving"
SIGNERS = (CLIENT, KUBELET_CLIENT, KUBELET_SERVING)
LONGEST = timedelta(days=365)
SHORTEST = timedelta(minutes=10)


class NotSigned(ValueError):
    """Why the signer does not sign it, whatever approvers say."""


@dataclass(frozen=True, slots=True)
class Asked:
    """What a PKCS#10 request asks for."""

    name: str
    groups: tuple[str, ...]
    dns: tuple[str, ...]
    addresses: tuple[str, ...]
    uris: tuple[str, ...]
    emails: tuple[str, ...]
    key: ec.EllipticCurvePublicKey | rsa.RSAPublicKey | ed25519.Ed25519PublicKey


def read_request(obj: Object) -> Asked:
    """:raises NotSigned: it is no request, or its key is of a kind (or a strength) that we do not sign."""
    try:
        request = x509.load_pem_x509_csr(b64decode((obj.get("spec") or {}).get("request") or ""))
        if not request.is_signature_valid:
            raise NotSigned("the request's signature is not valid")
        key = request.public_key()
        names = _alternative_names(request)
        uris = tuple(names.get_values_for_type(x509.UniformResourceIdentifier)) if names else ()
        return Asked(
            name=next((str(a.value) for a in request.subject.get_attributes_for_oid(NameOID.COMMON_NAME)), ""),
            groups=tuple(str(a.value) for a in request.subject.get_attributes_for_oid(NameOID.ORGANIZATION_NAME)),
            dns=tuple(names.get_values_for_type(x509.DNSName)) if names else (),
            addresses=tuple(str(v) for v in names.get_values_for_type(x509.IPAddress)) if names else (),
            uris=uris,
            emails=tuple(names.get_values_for_type(x509.RFC822Name)) if names else (),
            key=_usable(key),
        )
    except NotSigned:
        raise
    except (ValueError, TypeError) as error:
        raise NotSigned(f"unable to parse the request: {error}") from None


def _usable(key: object) -> ec.EllipticCurvePublicKey | rsa.RSAPublicKey | ed25519.Ed25519PublicKey:
    if isinstance(key, rsa.RSAPublicKey) and key.key_size >= 2048:
        return key
    if isinstance(key, ec.EllipticCurvePublicKey | ed25519.Ed25519PublicKey):
        return key
    raise NotSigned("the key must be ECDSA, Ed25519, or RSA with 2048 bits or more")


def _alternative_names(request: x509.CertificateSigningRequest) -> x509.SubjectAlternativeName | None:
    try:
        return request.extensions.get_extension_for_class(x509.SubjectAlternativeName).value
    except x509.ExtensionNotFound:
        return None


def _need_usages(usages: set[str], wanted: str) -> None:
    required = {"digital signature", wanted}
    if usages not in (required, required | {"key encipherment"}):
        raise NotSigned(f"usages did not match [digital signature key encipherment {wanted}]")


def _check_node(asked: Asked) -> None:
    if asked.groups != ("system:nodes",):
        raise NotSigned("subject organization is not system:nodes")
    if not asked.name.startswith("system:node:"):
        raise NotSigned("subject common name does not begin with system:node:")


def _kubelet_client(asked: Asked, usages: set[str]) -> None:
    _check_node(asked)
    for what, values in (("DNS", asked.dns), ("Email", asked.emails), ("IP", asked.addresses), ("URI", asked.uris)):
        if values:
            raise NotSigned(f"{what} subjectAltNames are not allowed")
    _need_usages(usages, "client auth")


def _kubelet_serving(asked: Asked, usages: set[str]) -> None:
    _check_node(asked)
    if not asked.dns and not asked.addresses:
        raise NotSigned("DNS or IP subjectAltName is required")
    for what, values in (("Email", asked.emails), ("URI", asked.uris)):
        if values:
            raise NotSigned(f"{what} subjectAltNames are not allowed")
    _need_usages(usages, "server auth")


def _api_client(asked: Asked, usages: set[str]) -> None:
    for usage in sorted(usages):
        if usage not in ("digital signature", "key encipherment", "client auth"):
            raise NotSigned(f"invalid usage for client certificate: {usage}")
    if "client auth" not in usages:
        raise NotSigned("missing required usage for client certificate: client auth")


_CHECKS: dict[str, Callable[[Asked, set[str]], None]] = {
    CLIENT: _api_client,
    KUBELET_CLIENT: _kubelet_client,
    KUBELET_SERVING: _kubelet_serving,
}


def is_kubelet_client(obj: Object) -> str:
    """The user name for which a request asks as a kubelet; "" when it is no such request."""
    spec = obj.get("spec") or {}
    if spec.get("signerName") != KUBELET_CLIENT:
        return ""
    try:
        asked = read_request(obj)
        _kubelet_client(asked, set(spec.get("usages") or ()))
    except NotSigned:
        return ""
    return asked.name


class Signer:
    """Signs for all logical clusters with the platform's CAs.

    A client certificate of a cluster names that cluster and is good only there. Kubelets' serving certificates come
    from a CA of their own: clients of the API server do not trust it, so that nobody can pose as the API server with
    what was signed for a node.
    """

    def __init__(self, pki: Pki, clock: Clock, uid_of: UidOf) -> None:
        self._pki = pki
        self._clock = clock
        self._uid_of = uid_of

    def recognise(self, obj: Object) -> str:
        """See :func:`is_kubelet_client`."""
        return is_kubelet_client(obj)

    def sign(self, cluster: str, obj: Object) -> bytes:
        """The certificate (PEM) for an approved request of one of :data:`SIGNERS`.

        :raises NotSigned: the request is not what its signer signs.
        """
        spec = obj.get("spec") or {}
        signer, usages = str(spec.get("signerName")), set(spec.get("usages") or ())
        asked = read_request(obj)
        _CHECKS[signer](asked, usages)
        if any(uri.lower().startswith(PREFIX) for uri in asked.uris):
            raise NotSigned(f"URI subjectAltNames that begin with {PREFIX} are not allowed")
        if MASTERS in asked.groups:
            raise NotSigned(f"subject organization {MASTERS} is not allowed")
        if not asked.name:
            raise NotSigned("subject common name is required")
        serving = signer == KUBELET_SERVING
        uris: Sequence[str] = asked.uris
        if not serving and cluster not in ("", ROOT):
            uid = self._uid_of(cluster)
            if not uid:
                raise NotSigned("the logical cluster is gone")
            uris = (Scope(cluster, uid).urn(), *asked.uris)
        leaf = LeafRequest(
            asked.name,
            asked.groups,
            (ExtendedKeyUsageOID.SERVER_AUTH if serving else ExtendedKeyUsageOID.CLIENT_AUTH,),
            (*asked.dns, *asked.addresses),
            tuple(uris),
            asked.emails,
            "key encipherment" in usages,
        )
        at = datetime.fromtimestamp(self._clock.now(), UTC)
        authority = self._pki.kubelet_authority(self._clock.now()) if serving else self._pki
        return authority.sign(asked.key, leaf, at, _life(spec.get("expirationSeconds")))


def _life(seconds: int | None) -> timedelta:
    if seconds is None:
        return LONGEST
    return min(max(timedelta(seconds=seconds), SHORTEST), LONGEST)
