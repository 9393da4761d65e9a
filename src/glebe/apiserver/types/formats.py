"""String formats that custom resources' schemas may ask for; unknown formats accept anything, as upstream."""

from __future__ import annotations

import base64
import binascii
import ipaddress
import re
from collections.abc import Callable
from datetime import date, datetime

from glebe.kube import names as n

_DURATION = re.compile(
    r"^[+-]?(\d+(\.\d*)?|\.\d+)(ns|us|µs|ms|s|m|h|d|w)((\d+(\.\d*)?|\.\d+)(ns|us|µs|ms|s|m|h))*$|^0$"
)
_EMAIL = re.compile(r"^[^@\s]+@[^@\s]+\.[^@\s]+$|^[^@\s]+@[^@\s]+$")
_HOSTNAME = re.compile(
    r"^([A-Za-z0-9]([-A-Za-z0-9]{0,61}[A-Za-z0-9])?)(\.[A-Za-z0-9]([-A-Za-z0-9]{0,61}[A-Za-z0-9])?)*$"
)
_TIME = re.compile(r"^\d{4}-\d\d-\d\d[Tt ]\d\d:\d\d:\d\d(\.\d+)?([Zz]|[+-]\d\d:?\d\d)$")
_URI = re.compile(r"^[A-Za-z][A-Za-z0-9+.-]*:|^/")
_UUID = r"^[0-9a-fA-F]{8}-?[0-9a-fA-F]{4}-?%s[0-9a-fA-F]{3}-?%s[0-9a-fA-F]{3}-?[0-9a-fA-F]{12}$"


def _parses(parse: Callable[[str], object]) -> Callable[[str], bool]:
    def test(text: str) -> bool:
        try:
            parse(text)
        except (ValueError, binascii.Error):
            return False
        return True

    return test


def _date_time(text: str) -> bool:
    return _TIME.match(text) is not None and _parses(datetime.fromisoformat)(text)


def _matches(pattern: str | re.Pattern[str]) -> Callable[[str], bool]:
    compiled = re.compile(pattern)
    return lambda text: compiled.match(text) is not None


def _isbn(text: str, *lengths: int) -> bool:
    digits = text.replace("-", "").replace(" ", "")
    if len(digits) not in lengths:
        return False
    if len(digits) == 10:
        if not digits[:9].isdecimal() or not (digits[9].isdecimal() or digits[9] in "xX"):
            return False
        values = [10 if d in "xX" else int(d) for d in digits]
        return sum((10 - i) * v for i, v in enumerate(values)) % 11 == 0
    return digits.isdecimal() and sum((1, 3)[i % 2] * int(d) for i, d in enumerate(digits)) % 10 == 0


FORMATS: dict[str, Callable[[str], bool]] = {
    "bsonobjectid": _matches(r"^[0-9a-fA-F]{24}$"),
    "hexcolor": _matches(r"^#?([0-9a-fA-F]{3}|[0-9a-fA-F]{6})$"),
    "isbn": lambda text: _isbn(text, 10, 13),
    "isbn10": lambda text: _isbn(text, 10),
    "isbn13": lambda text: _isbn(text, 13),
    "k8s-long-name": lambda text: not n.subdomain_faults(text),
    "k8s-short-name": lambda text: not n.label_faults(text),
    "mac": _matches(r"^([0-9a-fA-F]{2}([:-])([0-9a-fA-F]{2}\2){4}[0-9a-fA-F]{2}|([0-9a-fA-F]{4}\.){2}[0-9a-fA-F]{4})$"),
    "ssn": _matches(r"^\d{3}[- ]?\d{2}[- ]?\d{4}$"),
    "byte": _parses(lambda text: base64.b64decode(text, validate=True)),
    "cidr": _parses(lambda text: ipaddress.ip_network(text, strict=False)),
    "date": _parses(date.fromisoformat),
    "date-time": _date_time,
    "datetime": _date_time,
    "duration": _matches(_DURATION),
    "email": _matches(_EMAIL),
    "hostname": _matches(_HOSTNAME),
    "ipv4": _parses(ipaddress.IPv4Address),
    "ipv6": _parses(ipaddress.IPv6Address),
    "uri": _matches(_URI),
    "uuid": _matches(_UUID % ("[0-9a-fA-F]", "[0-9a-fA-F]")),
    "uuid3": _matches(_UUID % ("3", "[0-9a-fA-F]")),
    "uuid4": _matches(_UUID % ("4", "[89abAB]")),
    "uuid5": _matches(_UUID % ("5", "[89abAB]")),
}
