"""JSON Web Tokens with ES256: just what service accounts need."""

from __future__ import annotations

import base64
import hashlib
from typing import Any

import orjson
from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.asymmetric.utils import decode_dss_signature, encode_dss_signature

_ALGORITHM = ec.ECDSA(hashes.SHA256())


def key_id(key: ec.EllipticCurvePublicKey) -> str:
    """A short name of a public key."""
    raw = key.public_bytes(serialization.Encoding.DER, serialization.PublicFormat.SubjectPublicKeyInfo)
    return _encode(hashlib.sha256(raw).digest())


def sign(claims: dict[str, Any], key: ec.EllipticCurvePrivateKey) -> str:
    """A signed token."""
    header = {"alg": "ES256", "kid": key_id(key.public_key())}
    text = f"{_encode(orjson.dumps(header))}.{_encode(orjson.dumps(claims))}"
    r, s = decode_dss_signature(key.sign(text.encode(), _ALGORITHM))
    return f"{text}.{_encode(r.to_bytes(32, 'big') + s.to_bytes(32, 'big'))}"


def verify(token: str, key: ec.EllipticCurvePublicKey) -> dict[str, Any] | None:
    """The claims of a token that ``key`` signed; ``None`` for any other text. Times are not looked at."""
    try:
        head, body, tail = token.split(".")
        header = orjson.loads(_decode(head))
        signature = _decode(tail)
        if header.get("alg") != "ES256" or len(signature) != 64:
            return None
        pair = encode_dss_signature(int.from_bytes(signature[:32], "big"), int.from_bytes(signature[32:], "big"))
        key.verify(pair, f"{head}.{body}".encode(), _ALGORITHM)
        claims = orjson.loads(_decode(body))
    except (ValueError, AttributeError, InvalidSignature):
        return None
    return claims if isinstance(claims, dict) else None


def _encode(raw: bytes) -> str:
    return base64.urlsafe_b64encode(raw).rstrip(b"=").decode()


def _decode(text: str) -> bytes:
    return base64.urlsafe_b64decode(text + "=" * (-len(text) % 4))
