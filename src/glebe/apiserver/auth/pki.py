"""The control plane's keys and certificates, kept in files under the data directory.

Everything is EC P-256. What is missing, unreadable, about to expire or made for other addresses is made anew; what is
good is left alone, so that a kubeconfig stays valid across restarts. Private keys are readable by their owner only.
"""

from __future__ import annotations

import ipaddress
import os
import ssl
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import TypeAlias

from cryptography import x509
from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec, ed25519, rsa
from cryptography.x509.oid import ExtendedKeyUsageOID, NameOID

from glebe.apiserver.auth.scope import Scope

CA_LIFE = timedelta(days=3650)
LEAF_LIFE = timedelta(days=365)
RENEW_BEFORE = timedelta(days=30)
SKEW = timedelta(minutes=5)
SERVICE_NAMES = (
    "localhost",
    "kubernetes",
    "kubernetes.default",
    "kubernetes.default.svc",
    "kubernetes.default.svc.cluster.local",
)
MASTERS = "system:masters"
LeafKey: TypeAlias = ec.EllipticCurvePublicKey | rsa.RSAPublicKey | ed25519.Ed25519PublicKey


@dataclass(frozen=True, slots=True)
class KeyPair:
    """A certificate with its key, both PEM."""

    certificate: bytes
    key: bytes


@dataclass(frozen=True, slots=True)
class LeafRequest:
    """What a certificate shall say."""

    name: str
    groups: tuple[str, ...] = ()
    usages: tuple[x509.ObjectIdentifier, ...] = (ExtendedKeyUsageOID.CLIENT_AUTH,)
    hosts: tuple[str, ...] = ()
    uris: tuple[str, ...] = ()
    emails: tuple[str, ...] = ()
    encipher: bool = False
    """Key encipherment besides signatures (RSA keys)."""


class Pki:
    """The files in one directory. Call :meth:`ensure` first.

    :param directory: created with mode 0700 if it is missing.
    """

    def __init__(self, directory: Path) -> None:
        self.directory = directory
        self.ca_file = directory / "ca.crt"
        self.server_file = directory / "apiserver.crt"
        self.server_key_file = directory / "apiserver.key"
        self.admin_file = directory / "admin.crt"
        self.admin_key_file = directory / "admin.key"
        self.signing_key_file = directory / "service-account.key"
        self._ca: x509.Certificate | None = None
        self._ca_key: ec.EllipticCurvePrivateKey | None = None
        self._kubelets: Pki | None = None

    def ensure(self, hosts: Sequence[str], now: float) -> None:
        """Make everything good for ``hosts`` (names or addresses, besides the usual local ones) at time ``now``.

        :raises OSError: the directory cannot be written.
        """
        self.directory.mkdir(parents=True, exist_ok=True, mode=0o700)
        at = datetime.fromtimestamp(now, UTC)
        self._ensure_ca(at)
        names = list(dict.fromkeys([*SERVICE_NAMES, "127.0.0.1", "::1", *(h for h in hosts if h)]))
        self._ensure_leaf("apiserver", "kube-apiserver", (), names, at)
        self._ensure_leaf("admin", "glebe-admin", (MASTERS,), (), at)
        if _load_key(self.signing_key_file) is None:
            _write(self.signing_key_file, _key_pem(_new_key()), 0o600)

    # --- what others need

    @property
    def ca_pem(self) -> bytes:
        return self.ca_file.read_bytes()

    @property
    def ca_certificate(self) -> x509.Certificate:
        return x509.load_pem_x509_certificate(self.ca_pem)

    def authority(self) -> Pki:
        """This, ready to sign with what the files hold; for those who did not call :meth:`ensure` themselves.

        :raises FileNotFoundError: there is no CA yet.
        """
        key, certificate = _load_key(self.directory / "ca.key"), _load_certificate(self.ca_file)
        if key is None or certificate is None:
            raise FileNotFoundError(self.ca_file)
        self._ca, self._ca_key = certificate, key
        return self

    def signing_key(self) -> ec.EllipticCurvePrivateKey:
        """The key that signs service account tokens."""
        key = _load_key(self.signing_key_file)
        if key is None:
            raise FileNotFoundError(self.signing_key_file)
        return key

    def server_context(self, further_cas: Sequence[x509.Certificate] = ()) -> ssl.SSLContext:
        """TLS for the API server: asks clients for a certificate of this CA (or a further one), but does not insist."""
        context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH, cafile=str(self.ca_file))
        for ca in further_cas:
            context.load_verify_locations(cadata=ca.public_bytes(serialization.Encoding.DER))
        context.load_cert_chain(self.server_file, self.server_key_file)
        context.verify_mode = ssl.CERT_OPTIONAL
        context.minimum_version = ssl.TLSVersion.TLSv1_2
        return context

    def issue_client(
        self, name: str, groups: Sequence[str], now: float, *, scope: Scope | None, life: timedelta = LEAF_LIFE
    ) -> KeyPair:
        """A client certificate with a new key.

        :param scope: the one logical cluster in which it is good; ``None``: the platform's root cluster.
        """
        key = _new_key()
        request = LeafRequest(name, tuple(groups), uris=(scope.urn(),) if scope is not None else ())
        signed = self.sign(key.public_key(), request, datetime.fromtimestamp(now, UTC), life)
        return KeyPair(signed, _key_pem(key))

    def sign(self, key: LeafKey, wanted: LeafRequest, at: datetime, life: timedelta) -> bytes:
        """A certificate (PEM) of this CA for somebody's public key, from a little before ``at`` for ``life``.

        It does not outlive the CA.
        """
        if self._ca is None or self._ca_key is None:
            raise RuntimeError("call ensure() first")
        subject = [x509.NameAttribute(NameOID.ORGANIZATION_NAME, group) for group in wanted.groups]
        name = x509.Name([*subject, x509.NameAttribute(NameOID.COMMON_NAME, wanted.name)])
        end = min(at + life, self._ca.not_valid_after_utc)
        builder = (
            x509.CertificateBuilder()
            .subject_name(name)
            .public_key(key)
            .serial_number(x509.random_serial_number())
            .not_valid_before(at - SKEW)
            .not_valid_after(end)
            .issuer_name(self._ca.subject)
            .add_extension(x509.BasicConstraints(ca=False, path_length=None), critical=True)
            .add_extension(_key_usage(wanted), critical=True)
            .add_extension(x509.ExtendedKeyUsage(list(wanted.usages)), critical=False)
            .add_extension(
                x509.AuthorityKeyIdentifier.from_issuer_public_key(self._ca_key.public_key()), critical=False
            )
        )
        names: list[x509.GeneralName] = [_general_name(h) for h in wanted.hosts]
        names += [x509.UniformResourceIdentifier(u) for u in wanted.uris]
        names += [x509.RFC822Name(e) for e in wanted.emails]
        if names:
            builder = builder.add_extension(x509.SubjectAlternativeName(names), critical=False)
        return builder.sign(self._ca_key, hashes.SHA256()).public_bytes(serialization.Encoding.PEM)

    def kubelet_authority(self, now: float) -> Pki:
        """The CA of kubelets' serving certificates, in a directory below; made when it is needed first."""
        if self._kubelets is None:
            self._kubelets = self.below("kubelets", now)
        return self._kubelets

    def below(self, name: str, now: float) -> Pki:
        """A further CA in the directory ``name`` below, ready to sign; made when it is not there."""
        made = Pki(self.directory / name)
        made.directory.mkdir(exist_ok=True, mode=0o700)
        made._ensure_ca(datetime.fromtimestamp(now, UTC))
        return made

    # --- making

    def _ensure_ca(self, at: datetime) -> None:
        key_file = self.directory / "ca.key"
        key, certificate = _load_key(key_file), _load_certificate(self.ca_file)
        good = key is not None and certificate is not None and _fits(certificate, key) and _lasts(certificate, at)
        if not good or key is None or certificate is None:
            key = _new_key()
            certificate = _ca_certificate(key, at)
            # The key first: a certificate without its key would look whole and be useless.
            _write(key_file, _key_pem(key), 0o600)
            _write(self.ca_file, certificate.public_bytes(serialization.Encoding.PEM), 0o644)
        self._ca, self._ca_key = certificate, key

    def _ensure_leaf(self, stem: str, name: str, groups: Sequence[str], hosts: Sequence[str], at: datetime) -> None:
        key_file, file = self.directory / f"{stem}.key", self.directory / f"{stem}.crt"
        key, certificate = _load_key(key_file), _load_certificate(file)
        if key is not None and certificate is not None and self._is_good(certificate, key, hosts, at):
            return
        key = _new_key()
        signed = self._sign(name, groups, hosts, key, at)
        _write(key_file, _key_pem(key), 0o600)
        _write(file, signed, 0o644)

    def _is_good(
        self, certificate: x509.Certificate, key: ec.EllipticCurvePrivateKey, hosts: Sequence[str], at: datetime
    ) -> bool:
        if self._ca is None or not _fits(certificate, key) or not _lasts(certificate, at):
            return False
        try:
            certificate.verify_directly_issued_by(self._ca)
        except (InvalidSignature, ValueError, TypeError):
            return False
        return set(hosts) <= _hosts_of(certificate)

    def _sign(
        self, name: str, groups: Sequence[str], hosts: Sequence[str], key: ec.EllipticCurvePrivateKey, at: datetime
    ) -> bytes:
        usage = ExtendedKeyUsageOID.SERVER_AUTH if hosts else ExtendedKeyUsageOID.CLIENT_AUTH
        request = LeafRequest(name, tuple(groups), (usage,), tuple(hosts))
        return self.sign(key.public_key(), request, at, LEAF_LIFE)


def _key_usage(wanted: LeafRequest) -> x509.KeyUsage:
    return x509.KeyUsage(
        digital_signature=True, content_commitment=False, key_encipherment=wanted.encipher, data_encipherment=False,
        key_agreement=False, key_cert_sign=False, crl_sign=False, encipher_only=False, decipher_only=False,
    )  # fmt: skip


def _new_key() -> ec.EllipticCurvePrivateKey:
    return ec.generate_private_key(ec.SECP256R1())


def _key_pem(key: ec.EllipticCurvePrivateKey) -> bytes:
    return key.private_bytes(
        serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
    )


def _ca_certificate(key: ec.EllipticCurvePrivateKey, at: datetime) -> x509.Certificate:
    name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "glebe-ca")])
    usage = x509.KeyUsage(
        digital_signature=True, content_commitment=False, key_encipherment=False, data_encipherment=False,
        key_agreement=False, key_cert_sign=True, crl_sign=True, encipher_only=False, decipher_only=False,
    )  # fmt: skip
    return (
        x509.CertificateBuilder()
        .subject_name(name)
        .public_key(key.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(at - SKEW)
        .not_valid_after(at + CA_LIFE)
        .issuer_name(name)
        .add_extension(x509.BasicConstraints(ca=True, path_length=0), critical=True)
        .add_extension(usage, critical=True)
        .add_extension(x509.SubjectKeyIdentifier.from_public_key(key.public_key()), critical=False)
        .sign(key, hashes.SHA256())
    )


def _general_name(host: str) -> x509.GeneralName:
    try:
        return x509.IPAddress(ipaddress.ip_address(host))
    except ValueError:
        return x509.DNSName(host)


def _hosts_of(certificate: x509.Certificate) -> set[str]:
    try:
        names = certificate.extensions.get_extension_for_class(x509.SubjectAlternativeName).value
    except x509.ExtensionNotFound:
        return set()
    return {str(name.value) for name in names}


def _fits(certificate: x509.Certificate, key: ec.EllipticCurvePrivateKey) -> bool:
    return certificate.public_key() == key.public_key()


def _lasts(certificate: x509.Certificate, at: datetime) -> bool:
    return certificate.not_valid_before_utc <= at and at + RENEW_BEFORE < certificate.not_valid_after_utc


def _load_key(path: Path) -> ec.EllipticCurvePrivateKey | None:
    try:
        key = serialization.load_pem_private_key(path.read_bytes(), None)
    except (OSError, ValueError, TypeError):
        return None
    return key if isinstance(key, ec.EllipticCurvePrivateKey) else None


def _load_certificate(path: Path) -> x509.Certificate | None:
    try:
        return x509.load_pem_x509_certificate(path.read_bytes())
    except (OSError, ValueError):
        return None


def _write(path: Path, data: bytes, mode: int) -> None:
    """Replace a file in one step; it never exists with half its content or wider rights."""
    beside = path.with_name(path.name + ".new")
    beside.unlink(missing_ok=True)
    with os.fdopen(os.open(beside, os.O_WRONLY | os.O_CREAT | os.O_EXCL, mode), "wb") as file:
        file.write(data)
        file.flush()
        os.fsync(file.fileno())
    beside.replace(path)
