"""TLS contexts for clients from PEM material in memory."""

from __future__ import annotations

import os
import ssl
import tempfile

from glebe.kube.kubeconfig import ClientConfig, KubeconfigError


def client_context(config: ClientConfig) -> ssl.SSLContext:
    """The TLS context of a kubeconfig: its authority (else the system's), its client certificate.

    :raises KubeconfigError: the material cannot be used.
    """
    try:
        context = ssl.create_default_context(cadata=config.ca.decode() if config.ca else None)
        if config.insecure:
            context.check_hostname = False
            context.verify_mode = ssl.CERT_NONE
        if config.certificate:
            load_cert_chain(context, config.certificate, config.key)
    except (ssl.SSLError, ValueError) as error:
        raise KubeconfigError(f"context {config.context!r}: its certificates cannot be used: {error}") from error
    return context


def load_cert_chain(context: ssl.SSLContext, certificate: bytes, key: bytes) -> None:
    """``SSLContext.load_cert_chain`` for bytes; OpenSSL's binding wants a file, so there is one for a moment (0600)."""
    handle, path = tempfile.mkstemp()
    try:
        with os.fdopen(handle, "wb") as file:
            file.write(certificate + b"\n" + key)
        context.load_cert_chain(path)
    finally:
        os.unlink(path)
