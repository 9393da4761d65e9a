"""The node's serving certificate: self-made, kept beside its containers, renewed in time (as a kubelet's by default).

The embedded platform pins it; other API servers take kubelets' certificates unseen unless they are told otherwise.
"""

from __future__ import annotations

import ipaddress
import os
import ssl
from datetime import UTC, datetime, timedelta
from pathlib import Path

_LIFE = timedelta(days=365)
_RENEW = timedelta(days=60)


class Certificate:
    """``kubelet.crt`` and ``kubelet.key`` in ``directory``, good for ``name`` and ``address``."""

    def __init__(self, directory: Path, name: str, address: str) -> None:
        self._file = directory / "kubelet.crt"
        self._key_file = directory / "kubelet.key"
        self._name = name
        self._address = address

    @property
    def pem(self) -> bytes:
        return self._file.read_bytes()

    def ensure(self, now: float) -> None:
        """Make it unless there is a good one.

        :raises OSError: the directory cannot be written.
        """
        if not self._good(datetime.fromtimestamp(now, UTC)):
            self._make(datetime.fromtimestamp(now, UTC))

    def context(self, client_ca: bytes) -> ssl.SSLContext:
        """TLS that asks clients for a certificate of ``client_ca`` (PEM; none: of nobody), but does not insist."""
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        context.minimum_version = ssl.TLSVersion.TLSv1_2
        context.load_cert_chain(self._file, self._key_file)
        if client_ca:
            context.load_verify_locations(cadata=client_ca.decode("ascii"))
            context.verify_mode = ssl.CERT_OPTIONAL
        return context

    def _good(self, at: datetime) -> bool:
        from cryptography import x509

        try:
            found = x509.load_pem_x509_certificate(self._file.read_bytes())
            names = found.extensions.get_extension_for_class(x509.SubjectAlternativeName).value
            known = {str(name.value) for name in names}
            whole = self._key_file.stat().st_size > 0
        except (OSError, ValueError, x509.ExtensionNotFound):
            return False
        lasts = found.not_valid_before_utc <= at and at + _RENEW < found.not_valid_after_utc
        return whole and lasts and {self._name, self._address} <= known

    def _make(self, at: datetime) -> None:
        from cryptography import x509
        from cryptography.hazmat.primitives import hashes, serialization
        from cryptography.hazmat.primitives.asymmetric import ec
        from cryptography.x509.oid import ExtendedKeyUsageOID, NameOID

        key = ec.generate_private_key(ec.SECP256R1())
        subject = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, f"{self._name}@glebe-node"[-64:])])
        names = [x509.DNSName(self._name), x509.IPAddress(ipaddress.ip_address(self._address))]
        certificate = (
            x509.CertificateBuilder()
            .subject_name(subject)
            .issuer_name(subject)
            .public_key(key.public_key())
            .serial_number(x509.random_serial_number())
            .not_valid_before(at - timedelta(hours=1))
            .not_valid_after(at + _LIFE)
            .add_extension(x509.BasicConstraints(ca=True, path_length=0), critical=True)
            .add_extension(x509.ExtendedKeyUsage([ExtendedKeyUsageOID.SERVER_AUTH]), critical=False)
            .add_extension(x509.SubjectAlternativeName(names), critical=False)
            .sign(key, hashes.SHA256())
        )
        secret = key.private_bytes(
            serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
        )
        self._file.unlink(missing_ok=True)  # never a certificate beside another's key
        _write(self._key_file, secret)
        _write(self._file, certificate.public_bytes(serialization.Encoding.PEM))


def _write(path: Path, data: bytes) -> None:
    beside = path.with_name(path.name + ".new")
    beside.unlink(missing_ok=True)
    with os.fdopen(os.open(beside, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600), "wb") as file:
        file.write(data)
    beside.replace(path)
