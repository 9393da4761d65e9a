"""URLs, IP addresses and CIDR blocks."""

from __future__ import annotations

import ipaddress
from typing import Any, TypeAlias
from urllib.parse import parse_qs, quote, unquote, urlsplit

from glebe.cel.budget import Budget, EvalError, of_text
from glebe.cel.registry import CLASSES, Library
from glebe.cel.standard import free
from glebe.cel.values import Extension

Address: TypeAlias = ipaddress.IPv4Address | ipaddress.IPv6Address
Network: TypeAlias = ipaddress.IPv4Interface | ipaddress.IPv6Interface


class Url(Extension):
    """An absolute URI or an absolute path."""

    __slots__ = ("parts", "text")
    type_name = "kubernetes.URL"

    def __init__(self, text: str) -> None:
        self.text = text
        try:
            self.parts = urlsplit(text)
            _ = self.parts.port
        except ValueError as error:
            raise EvalError(f"URL parse error during conversion from string: {error}") from None
        absolute = bool(self.parts.scheme) or text.startswith("/")
        if not absolute or any(c <= " " or c == "\x7f" for c in text):
            raise EvalError(f'URL parse error during conversion from string: parse "{text}": invalid URI for request')

    def equals(self, other: Any) -> bool:
        return bool(self.text == other.text)


class Ip(Extension):
    __slots__ = ("address",)
    type_name = "net.IP"

    def __init__(self, address: Address) -> None:
        self.address = address

    def equals(self, other: Any) -> bool:
        return bool(self.address == other.address)


class Cidr(Extension):
    __slots__ = ("block",)
    type_name = "net.CIDR"

    def __init__(self, block: Network) -> None:
        self.block = block

    def equals(self, other: Any) -> bool:
        return bool(self.block == other.block)


CLASSES.update({"url": (Url,), "ip": (Ip,), "cidr": (Cidr,)})


def _address(text: str) -> Address:
    if "%" in text:
        raise EvalError(f"IP Address {text!r} with zone value is not allowed".replace("'", '"'))
    try:
        address = ipaddress.ip_address(text)
    except ValueError:
        raise EvalError(f'IP Address "{text}" parse error during conversion from string: unable to parse IP') from None
    if isinstance(address, ipaddress.IPv6Address) and address.ipv4_mapped is not None:
        raise EvalError(f'IPv4-mapped IPv6 address "{text}" is not allowed')
    return address


def _block(text: str) -> Network:
    host, slash, bits = text.partition("/")
    if not slash or not bits.isdigit() or (len(bits) > 1 and bits[0] == "0"):
        raise EvalError(f'network address parse error during conversion from string: netip.ParsePrefix("{text}")')
    _address(host)
    try:
        return ipaddress.ip_interface(text)
    except ValueError:
        raise EvalError(
            f'network address parse error during conversion from string: netip.ParsePrefix("{text}")'
        ) from None


def _ip(budget: Budget, text: str) -> Ip:
    budget.spend(of_text(len(text)))
    return Ip(_address(text))


def _cidr(budget: Budget, text: str) -> Cidr:
    budget.spend(of_text(len(text)))
    return Cidr(_block(text))


def _is(make: Any) -> Any:
    def run(budget: Budget, text: str) -> bool:
        budget.spend(of_text(len(text)))
        try:
            make(text)
        except EvalError:
            return False
        return True

    return run


def _global(address: Address) -> bool:
    limited = isinstance(address, ipaddress.IPv4Address) and address == ipaddress.IPv4Address("255.255.255.255")
    return not (
        limited or address.is_unspecified or address.is_loopback or address.is_multicast or address.is_link_local
    )


def _link_multicast(address: Address) -> bool:
    wide = "224.0.0.0/24" if isinstance(address, ipaddress.IPv4Address) else "ff02::/16"
    return address in ipaddress.ip_network(wide)


def _canonical(text: str) -> bool:
    return str(_address(text)) == text


def _contains_ip(block: Cidr, ip: Ip | str) -> bool:
    address = _address(ip) if isinstance(ip, str) else ip.address
    return address in block.block.network


def _contains_cidr(block: Cidr, other: Cidr | str) -> bool:
    inner = _block(other) if isinstance(other, str) else other.block
    outer = block.block
    if inner.version != outer.version:
        return False
    return inner.network.prefixlen >= outer.network.prefixlen and inner.network.network_address in outer.network


def _masked(block: Cidr) -> Cidr:
    return Cidr(ipaddress.ip_interface(str(block.block.network)))


def _query(url: Url) -> dict[str, list[str]]:
    return parse_qs(url.parts.query, keep_blank_values=True, max_num_fields=10_000)


def _hostname(url: Url) -> str:
    """With its letters as they are (urlsplit makes them small)."""
    host = url.parts.netloc.rpartition("@")[2]
    return host[1 : host.find("]")] if host.startswith("[") else host.partition(":")[0]


def declare(library: Library) -> None:
    """Add all of these to ``library``."""
    add, member = library.add, library.member
    add("url(string) -> url", lambda b, s: (b.spend(of_text(len(s))), Url(s))[1], "text")
    add("isURL(string) -> bool", _is(Url), "text")
    member("url", "getScheme() -> string", free(lambda u: u.parts.scheme))
    member("url", "getHost() -> string", free(lambda u: u.parts.netloc.rpartition("@")[2]))
    member("url", "getHostname() -> string", free(_hostname))
    member("url", "getPort() -> string", free(lambda u: "" if u.parts.port is None else str(u.parts.port)))
    member("url", "getEscapedPath() -> string", free(lambda u: quote(unquote(u.parts.path), safe="/:@!$&'()*+,;=~")))
    member("url", "getQuery() -> map(string, list(string))", free(_query))
    add("ip(string) -> ip", _ip, "text")
    add("isIP(string) -> bool", _is(_address), "text")
    add("ip.isCanonical(string) -> bool", free(_canonical), "text")
    add("string(ip) -> string", free(lambda i: str(i.address)))
    member("ip", "family() -> int", free(lambda i: i.address.version))
    member("ip", "isUnspecified() -> bool", free(lambda i: i.address.is_unspecified))
    member("ip", "isLoopback() -> bool", free(lambda i: i.address.is_loopback))
    member("ip", "isLinkLocalMulticast() -> bool", free(lambda i: _link_multicast(i.address)))
    member("ip", "isLinkLocalUnicast() -> bool", free(lambda i: i.address.is_link_local))
    member("ip", "isGlobalUnicast() -> bool", free(lambda i: _global(i.address)))
    add("cidr(string) -> cidr", _cidr, "text")
    add("isCIDR(string) -> bool", _is(_block), "text")
    add("string(cidr) -> string", free(lambda c: str(c.block)))
    for kind in ("ip", "string"):
        member("cidr", f"containsIP({kind}) -> bool", free(_contains_ip))
    for kind in ("cidr", "string"):
        member("cidr", f"containsCIDR({kind}) -> bool", free(_contains_cidr))
    member("cidr", "ip() -> ip", free(lambda c: Ip(c.block.ip)))
    member("cidr", "masked() -> cidr", free(_masked))
    member("cidr", "prefixLength() -> int", free(lambda c: c.block.network.prefixlen))
