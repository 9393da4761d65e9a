"""Syntax of names, labels and keys, with upstream's complaints (``k8s.io/apimachinery/pkg/util/validation``)."""

from __future__ import annotations

import re
from functools import lru_cache
from typing import Any

import orjson

from glebe.kube.errors import Cause

_LABEL = "[a-z0-9]([-a-z0-9]*[a-z0-9])?"
_SUBDOMAIN = f"{_LABEL}(\\.{_LABEL})*"
_LABEL_1035 = "[a-z]([-a-z0-9]*[a-z0-9])?"
_QUALIFIED = "([A-Za-z0-9][-A-Za-z0-9_.]*)?[A-Za-z0-9]"
_VALUE = f"({_QUALIFIED})?"

_label = re.compile(_LABEL).fullmatch
_subdomain = re.compile(_SUBDOMAIN).fullmatch
_label_1035 = re.compile(_LABEL_1035).fullmatch
_qualified = re.compile(_QUALIFIED).fullmatch
_value = re.compile(_VALUE).fullmatch

_ENDS = "and must start and end with an alphanumeric character"
SUBDOMAIN_ERROR = (
    "a lowercase RFC 1123 subdomain must consist of lower case alphanumeric characters, '-' or '.', "
    f"{_ENDS} (e.g. 'example.com', regex used for validation is '{_SUBDOMAIN}')"
)
LABEL_ERROR = (
    "a lowercase RFC 1123 label must consist of lower case alphanumeric characters or '-', "
    f"{_ENDS} (e.g. 'my-name',  or '123-abc', regex used for validation is '{_LABEL}')"
)
LABEL_1035_ERROR = (
    "a DNS-1035 label must consist of lower case alphanumeric characters or '-', start with an alphabetic character, "
    "and end with an alphanumeric character (e.g. 'my-name',  or 'abc-123', regex used for validation is "
    f"'{_LABEL_1035}')"
)
_NAME_CHARACTERS = (
    f"must consist of alphanumeric characters, '-', '_' or '.', {_ENDS} "
    f"(e.g. 'MyName',  or 'my.name',  or '123-abc', regex used for validation is '{_QUALIFIED}')"
)
_KEY_ERROR = (
    f"a valid label key {_NAME_CHARACTERS} with an optional DNS subdomain prefix and '/' (e.g. 'example.com/MyName')"
)
_VALUE_ERROR = (
    "a valid label must be an empty string or consist of alphanumeric characters, '-', '_' or '.', "
    f"{_ENDS} (e.g. 'MyValue',  or 'my_value',  or '12345', regex used for validation is '{_VALUE}')"
)


def show(value: Any) -> str:
    """A value as upstream prints it in a message."""
    return orjson.dumps(value).decode()


def invalid(path: str, value: Any, why: str) -> Cause:
    return Cause("FieldValueInvalid", f"Invalid value: {show(value)}: {why}", path)


def required(path: str, why: str = "") -> Cause:
    return Cause("FieldValueRequired", f"Required value: {why}" if why else "Required value", path)


def not_supported(path: str, value: Any, allowed: tuple[str, ...] | list[str]) -> Cause:
    listed = ", ".join(show(item) for item in allowed)
    return Cause("FieldValueNotSupported", f"Unsupported value: {show(value)}: supported values: {listed}", path)


def duplicate(path: str, value: Any) -> Cause:
    return Cause("FieldValueDuplicate", f"Duplicate value: {show(value)}", path)


def forbidden(path: str, why: str) -> Cause:
    return Cause("FieldValueForbidden", f"Forbidden: {why}", path)


def too_long(path: str, limit: int) -> Cause:
    return Cause("FieldValueTooLong", f"Too long: may not be more than {limit} bytes", path)


def non_negative(path: str, value: int | None) -> list[Cause]:
    if value is not None and value < 0:
        return [invalid(path, value, "must be greater than or equal to 0")]
    return []


@lru_cache(maxsize=8192)
def subdomain_faults(name: str) -> tuple[str, ...]:
    """What is wrong with a DNS-1123 subdomain; empty when nothing is."""
    out = []
    if len(name) > 253:
        out.append("must be no more than 253 characters")
    if _subdomain(name) is None:
        out.append(SUBDOMAIN_ERROR)
    return tuple(out)


@lru_cache(maxsize=8192)
def label_faults(name: str) -> tuple[str, ...]:
    """What is wrong with a DNS-1123 label."""
    out = []
    if len(name) > 63:
        out.append("must be no more than 63 characters")
    if _label(name) is None:
        out.append(LABEL_ERROR)
    return tuple(out)


def label_1035_faults(name: str) -> tuple[str, ...]:
    """What is wrong with a DNS-1035 label."""
    out = []
    if len(name) > 63:
        out.append("must be no more than 63 characters")
    if _label_1035(name) is None:
        out.append(LABEL_1035_ERROR)
    return tuple(out)


def path_segment_faults(name: str) -> tuple[str, ...]:
    """Names that may be anything that fits into one URL path segment (RBAC)."""
    if name in (".", ".."):
        return (f"may not be '{name}'",)
    return tuple(f"may not contain '{bad}'" for bad in ("/", "%") if bad in name)


@lru_cache(maxsize=8192)
def key_faults(key: str) -> tuple[str, ...]:
    """What is wrong with a qualified name: the key of a label or annotation, a resource, a finalizer."""
    prefix, slash, name = key.rpartition("/")
    if slash and "/" in prefix:
        return (_KEY_ERROR,)
    out = []
    if slash and not prefix:
        out.append("prefix part must be non-empty")
    elif slash:
        out.extend(f"prefix part {fault}" for fault in subdomain_faults(prefix))
    if not name:
        out.append("name part must be non-empty")
    elif len(name) > 63:
        out.append("name part must be no more than 63 bytes")
    if _qualified(name) is None:
        out.append(f"name part {_NAME_CHARACTERS}")
    return tuple(out)


@lru_cache(maxsize=8192)
def value_faults(value: str) -> tuple[str, ...]:
    """What is wrong with a label's value."""
    out = []
    if len(value) > 63:
        out.append("must be no more than 63 bytes")
    if _value(value) is None:
        out.append(_VALUE_ERROR)
    return tuple(out)


def labels(path: str, values: dict[str, str] | None) -> list[Cause]:
    """Keys and values of labels."""
    causes: list[Cause] = []
    for key, value in (values or {}).items():
        if faults := key_faults(key):
            causes.extend(invalid(path, key, fault) for fault in faults)
        if faults := value_faults(value):
            causes.extend(invalid(path, value, fault) for fault in faults)
    return causes
