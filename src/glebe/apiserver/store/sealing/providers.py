"""Ways of sealing bytes, with the stored forms of Kubernetes: ``k8s:enc:PROVIDER:v1:KEYNAME:`` and what follows.

``aesgcm``: 12 bytes nonce, ciphertext and tag; the object's address is authenticated with it, so that a value moved to
another object does not open. ``aescbc``: 16 bytes initial vector, ciphertext with PKCS#7 padding (no authentication:
Kubernetes has deprecated it, it is here to read and to migrate). Nonces are random: a key should be replaced after
some hundreds of millions of writes.
"""

from __future__ import annotations

import os
from typing import Protocol

from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives import padding
from cryptography.hazmat.primitives.ciphers import Cipher, algorithms, modes
from cryptography.hazmat.primitives.ciphers.aead import AESGCM

SEALED = b"k8s:enc:"
"""Begins everything that is sealed."""


class WrongKey(Exception):
    """It does not open."""


class Provider(Protocol):
    """One key of one kind. ``prefix`` begins what it seals; "" is identity, which seals nothing."""

    prefix: bytes

    def seal(self, plain: bytes, address: bytes) -> bytes: ...

    def open(self, body: bytes, address: bytes) -> bytes:
        """
        :param body: without the prefix.
        :raises WrongKey: it was not sealed by this key, or changed since.
        """
        ...


class Identity:
    prefix = b""

    def seal(self, plain: bytes, address: bytes) -> bytes:
        return plain

    def open(self, body: bytes, address: bytes) -> bytes:
        return body


class AesGcm:
    def __init__(self, name: str, secret: bytes) -> None:
        self.prefix = SEALED + b"aesgcm:v1:" + name.encode() + b":"
        self._key = AESGCM(secret)

    def seal(self, plain: bytes, address: bytes) -> bytes:
        nonce = os.urandom(12)
        return self.prefix + nonce + self._key.encrypt(nonce, plain, address)

    def open(self, body: bytes, address: bytes) -> bytes:
        try:
            return self._key.decrypt(body[:12], body[12:], address)
        except (InvalidTag, ValueError) as error:
            raise WrongKey from error


class AesCbc:
    def __init__(self, name: str, secret: bytes) -> None:
        self.prefix = SEALED + b"aescbc:v1:" + name.encode() + b":"
        self._secret = secret

    def seal(self, plain: bytes, address: bytes) -> bytes:
        vector = os.urandom(16)
        padder = padding.PKCS7(128).padder()
        encryptor = Cipher(algorithms.AES(self._secret), modes.CBC(vector)).encryptor()
        padded = padder.update(plain) + padder.finalize()
        return self.prefix + vector + encryptor.update(padded) + encryptor.finalize()

    def open(self, body: bytes, address: bytes) -> bytes:
        try:
            decryptor = Cipher(algorithms.AES(self._secret), modes.CBC(body[:16])).decryptor()
            padded = decryptor.update(body[16:]) + decryptor.finalize()
            unpadder = padding.PKCS7(128).unpadder()
            return unpadder.update(padded) + unpadder.finalize()
        except ValueError as error:
            raise WrongKey from error


KINDS: dict[str, type[AesGcm] | type[AesCbc]] = {"aesgcm": AesGcm, "aescbc": AesCbc}
