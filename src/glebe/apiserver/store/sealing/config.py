"""Reads an ``EncryptionConfiguration`` (apiserver.config.k8s.io/v1), the file of ``--encryption-provider-config``."""

from __future__ import annotations

import binascii
from base64 import b64decode
from pathlib import Path
from typing import Any

from glebe.apiserver.store.sealing.providers import KINDS, Identity, Provider
from glebe.apiserver.store.sealing.sealing import Sealing

_SIZES = (16, 24, 32)
_UNSUPPORTED = {
    "secretbox": "XSalsa20 is not in the cryptographic library that Glebe uses",
    "kms": "key management services are not reached yet",
}


class EncryptionConfigError(Exception):
    """The file cannot be used: where and why, and the remedy."""

    def __init__(self, where: str, why: str, remedy: str = "see docs/storage.md for a complete example") -> None:
        super().__init__(f"{where}: {why}" if where else why)
        self.remedy = remedy


def load_encryption_config(path: Path) -> Sealing:
    """
    :raises EncryptionConfigError: it cannot be read, or something in it is wrong.
    """
    import yaml  # late: big, and most servers have no such file

    try:
        text = path.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        raise EncryptionConfigError("", f"cannot be read ({error})", "check the path and its owner") from error
    try:
        return parse_encryption_config(yaml.safe_load(text))
    except yaml.YAMLError as error:
        raise EncryptionConfigError("", f"is no YAML ({error})") from error


def parse_encryption_config(config: Any) -> Sealing:
    """
    :raises EncryptionConfigError: something in it is wrong.
    """
    if not isinstance(config, dict) or config.get("kind") != "EncryptionConfiguration":
        raise EncryptionConfigError("kind", "must be EncryptionConfiguration")
    if config.get("apiVersion") != "apiserver.config.k8s.io/v1":
        raise EncryptionConfigError("apiVersion", "must be apiserver.config.k8s.io/v1")
    rules = config.get("resources")
    if not isinstance(rules, list) or not rules:
        raise EncryptionConfigError("resources", "must be a list with at least one item")
    return Sealing([_rule(rule, f"resources[{i}]") for i, rule in enumerate(rules)])


def _rule(rule: Any, where: str) -> tuple[list[str], list[Provider]]:
    resources = rule.get("resources") if isinstance(rule, dict) else None
    providers = rule.get("providers") if isinstance(rule, dict) else None
    if not isinstance(resources, list) or not resources or not all(isinstance(r, str) and r for r in resources):
        raise EncryptionConfigError(f"{where}.resources", "must be a list of resources such as secrets or jobs.batch")
    if "*" in resources:
        raise EncryptionConfigError(f"{where}.resources", "use '*.' for the core group, '*.*' for everything")
    if not isinstance(providers, list) or not providers:
        raise EncryptionConfigError(f"{where}.providers", "must be a list with at least one provider")
    made: list[Provider] = []
    for i, provider in enumerate(providers):
        made += _provider(provider, f"{where}.providers[{i}]")
    return resources, made


def _provider(provider: Any, where: str) -> list[Provider]:
    if not isinstance(provider, dict) or len(provider) != 1:
        raise EncryptionConfigError(where, "must have exactly one of aesgcm, aescbc, identity")
    ((kind, options),) = provider.items()
    if kind == "identity":
        return [Identity()]
    if kind not in KINDS:
        why = _UNSUPPORTED.get(str(kind), "there is no such provider")
        raise EncryptionConfigError(f"{where}.{kind}", f"not supported ({why})", "use aesgcm")
    keys = options.get("keys") if isinstance(options, dict) else None
    if not isinstance(keys, list) or not keys:
        raise EncryptionConfigError(f"{where}.{kind}.keys", "must be a list with at least one key")
    made: list[Provider] = []
    names: set[str] = set()
    for i, key in enumerate(keys):
        name, secret = _key(key, f"{where}.{kind}.keys[{i}]")
        if name in names:
            raise EncryptionConfigError(f"{where}.{kind}.keys[{i}].name", f"{name!r} is there twice")
        names.add(name)
        made.append(KINDS[str(kind)](name, secret))
    return made


def _key(key: Any, where: str) -> tuple[str, bytes]:
    name = key.get("name") if isinstance(key, dict) else None
    if not isinstance(name, str) or not name or ":" in name:
        raise EncryptionConfigError(f"{where}.name", "must be a text without ':'")
    try:
        secret = b64decode(str(key.get("secret") or ""), validate=True)
    except (binascii.Error, ValueError) as error:
        raise EncryptionConfigError(f"{where}.secret", "must be base64", "head -c 32 /dev/urandom | base64") from error
    if len(secret) not in _SIZES:
        why = f"must be 16, 24 or 32 bytes, is {len(secret)}"
        raise EncryptionConfigError(f"{where}.secret", why, "head -c 32 /dev/urandom | base64")
    return name, secret
