"""JSON Web Tokens: signed with our own keys (EC P-256 or RSA), checked with ours and with identity providers' keys."""

from __future__ import annotations

import base64
import binascii
import hashlib
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any, TypeAlias

import orjson
from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec, padding, rsa
from cryptography.hazmat.primitives.asymmetric.utils import decode_dss_signature, encode_dss_signature

PublicKey: TypeAlias = "ec.EllipticCurvePublicKey | rsa.RSAPublicKey"
PrivateKey: TypeAlias = "ec.EllipticCurvePrivateKey | rsa.RSAPrivateKey"

#: Longer texts are no tokens of anybody we know.
MAX_LENGTH = 32 * 1024
_HASHES: dict[str, type[hashes.HashAlgorithm]] = {"256": hashes.SHA256, "384": hashes.SHA384, "512": hashes.SHA512}
#: Name of the curve and bytes of a coordinate, by algorithm.
_CURVES = {"ES256": ("secp256r1", 32), "ES384": ("secp384r1", 48), "ES512": ("secp521r1", 66)}


@dataclass(frozen=True, slots=True)
class Token:
    """A token taken apart; nothing in it is to be believed before :func:`signed_by` says so."""

    algorithm: str
    key_id: str
    claims: dict[str, Any]
    text: bytes
    signature: bytes


def key_id(key: PublicKey) -> str:
    """A short name of a public key, as upstream makes it (SHA-256 of its DER form)."""
    raw = key.public_bytes(serialization.Encoding.DER, serialization.PublicFormat.SubjectPublicKeyInfo)
    return encode(hashlib.sha256(raw).digest())


def sign(claims: dict[str, Any], key: PrivateKey) -> str:
    """A signed token: ES256 or RS256, as the key is."""
    is_curve = isinstance(key, ec.EllipticCurvePrivateKey)
    header = {"alg": "ES256" if is_curve else "RS256", "kid": key_id(key.public_key())}
    text = f"{encode(orjson.dumps(header))}.{encode(orjson.dumps(claims))}"
    if isinstance(key, ec.EllipticCurvePrivateKey):
        r, s = decode_dss_signature(key.sign(text.encode(), ec.ECDSA(hashes.SHA256())))
        return f"{text}.{encode(r.to_bytes(32, 'big') + s.to_bytes(32, 'big'))}"
    return f"{text}.{encode(key.sign(text.encode(), padding.PKCS1v15(), hashes.SHA256()))}"


def parse(token: str) -> Token | None:
    """Take a token apart; ``None`` for any other text."""
    if len(token) > MAX_LENGTH or token.count(".") != 2:
        return None
    head, body, tail = token.split(".")
    try:
        header, claims = orjson.loads(decode(head)), orjson.loads(decode(body))
        signature = decode(tail)
        text = f"{head}.{body}".encode("ascii")
    except ValueError:
        return None
    if not isinstance(header, dict) or not isinstance(claims, dict) or "crit" in header:
        return None
    algorithm, kid = header.get("alg"), header.get("kid", "")
    if not isinstance(algorithm, str) or not isinstance(kid, str):
        return None
    return Token(algorithm, kid, claims, text, signature)


def signed_by(token: Token, key: PublicKey) -> bool:
    """Whether ``key`` signed it. The key decides which algorithms may be meant, never the token alone."""
    family, size = token.algorithm[:2], token.algorithm[2:]
    if size not in _HASHES:
        return False
    algorithm = _HASHES[size]()
    try:
        if isinstance(key, ec.EllipticCurvePublicKey):
            curve, width = _CURVES.get(token.algorithm, ("", 0))
            if key.curve.name != curve or len(token.signature) != 2 * width:
                return False
            r, s = (int.from_bytes(part, "big") for part in (token.signature[:width], token.signature[width:]))
            key.verify(encode_dss_signature(r, s), token.text, ec.ECDSA(algorithm))
            return True
        if not isinstance(key, rsa.RSAPublicKey) or key.key_size < 2048:
            return False
        if family == "RS":
            key.verify(token.signature, token.text, padding.PKCS1v15(), algorithm)
            return True
        if family == "PS":
            pss = padding.PSS(padding.MGF1(algorithm), padding.PSS.DIGEST_LENGTH)
            key.verify(token.signature, token.text, pss, algorithm)
            return True
    except (InvalidSignature, ValueError):
        return False
    return False


def verify(token: str, *keys: PublicKey) -> dict[str, Any] | None:
    """The claims of a token that one of ``keys`` signed; ``None`` for any other text. Times are not looked at."""
    parsed = parse(token)
    if parsed is None or not any(signed_by(parsed, key) for key in keys):
        return None
    return parsed.claims


# --- JSON Web Keys


def to_jwk(key: PublicKey) -> dict[str, str]:
    """A public key as it stands in a key set."""
    base = {"use": "sig", "kid": key_id(key)}
    if isinstance(key, ec.EllipticCurvePublicKey):
        numbers, width = key.public_numbers(), (key.curve.key_size + 7) // 8
        x, y = (encode(n.to_bytes(width, "big")) for n in (numbers.x, numbers.y))
        return {**base, "kty": "EC", "alg": "ES256", "crv": "P-256", "x": x, "y": y}
    public = key.public_numbers()
    n, e = (encode(v.to_bytes((v.bit_length() + 7) // 8, "big")) for v in (public.n, public.e))
    return {**base, "kty": "RSA", "alg": "RS256", "n": n, "e": e}


def read_jwks(document: Any) -> list[tuple[str, PublicKey]]:
    """(kid, key) of all keys of a key set that can be used for signatures; others are left out.

    :raises ValueError: it is no key set.
    """
    keys = document.get("keys") if isinstance(document, dict) else None
    if not isinstance(keys, list):
        raise ValueError("a key set has a list of keys")
    return [(str(k.get("kid") or ""), key) for k in keys if isinstance(k, dict) for key in _read_jwk(k)]


def _read_jwk(jwk: dict[str, Any]) -> Iterable[PublicKey]:
    curves: dict[str, ec.EllipticCurve] = {"P-256": ec.SECP256R1(), "P-384": ec.SECP384R1(), "P-521": ec.SECP521R1()}
    if jwk.get("use") not in (None, "", "sig"):
        return []
    try:
        if jwk.get("kty") == "RSA":
            return [rsa.RSAPublicNumbers(_number(jwk["e"]), _number(jwk["n"])).public_key()]
        if jwk.get("kty") == "EC":
            curve = curves[jwk["crv"]]
            return [ec.EllipticCurvePublicNumbers(_number(jwk["x"]), _number(jwk["y"]), curve).public_key()]
    except (KeyError, ValueError, TypeError, AttributeError):
        pass
    return []


def _number(text: str) -> int:
    return int.from_bytes(decode(text), "big")


def encode(raw: bytes) -> str:
    """base64url without padding."""
    return base64.urlsafe_b64encode(raw).rstrip(b"=").decode()


def decode(text: str) -> bytes:
    """Inverse of :func:`encode`, strict.

    :raises ValueError: any other characters.
    """
    try:
        return base64.b64decode(text + "=" * (-len(text) % 4), altchars="-_", validate=True)
    except binascii.Error as error:
        raise ValueError(str(error)) from None
