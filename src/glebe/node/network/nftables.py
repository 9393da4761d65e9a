"""nftables by netlink: a table of our own, changed in transactions.

Only what a node needs: base chains, chains to go to, maps from address, protocol and port to a chain, sets of addresses
that forget, and the expressions of which the rules are made. A rule is a sequence of expressions (``bytes``).

Sources: ``include/uapi/linux/netfilter/nf_tables.h``, ``nft(8)``.
"""

from __future__ import annotations

import errno
import socket
import struct
from collections.abc import Iterable, Sequence
from ipaddress import IPv4Address, IPv4Network
from typing import Final

from glebe.node.network.netlink import APPEND, CREATE, Netlink, attribute, nested, text

_FAMILY = 12  # NETLINK_NETFILTER
_SUBSYSTEM = 10
_BEGIN, _END = 16, 17
_NEW_TABLE, _GET_TABLE, _DEL_TABLE, _NEW_CHAIN, _DEL_CHAIN = 0, 1, 2, 3, 5
_NEW_RULE, _DEL_RULE, _NEW_SET, _DEL_SET, _NEW_ELEMENT, _DEL_ELEMENT = 6, 8, 9, 11, 12, 14
_IPV4 = 2
_ANONYMOUS, _CONSTANT, _MAP, _TIMEOUT, _EVAL = 1, 2, 8, 0x10, 0x20
_VERDICT_DATA = 0xFFFFFF00
_GOTO, _DROP = -4, 0

PREROUTING, FORWARD, OUTPUT, POSTROUTING = 0, 2, 3, 4
#: Where expressions put what they find: 16 words of 4 bytes.
WORD: Final = 8
VERDICT: Final = 0

Message = tuple[int, int, bytes]


def _be32(kind: int, value: int) -> bytes:
    return attribute(kind, struct.pack(">I", value & 0xFFFFFFFF))


def _be64(kind: int, value: int) -> bytes:
    return attribute(kind, struct.pack(">Q", value))


def _value(kind: int, data: bytes) -> bytes:
    return nested(kind, attribute(1, data))


def _verdict(kind: int, code: int, chain: str = "") -> bytes:
    return nested(kind, nested(2, _be32(1, code), *([text(2, chain)] if chain else ())))


def _expression(name: str, *fields: bytes) -> bytes:
    return nested(1, text(1, name), nested(2, *fields))


# ---------------------------------------------------------------------------------------------------- expressions


def source(register: int = WORD) -> bytes:
    """The packet's source address."""
    return _payload(register, 1, 12, 4)


def destination(register: int = WORD) -> bytes:
    """The packet's destination address."""
    return _payload(register, 1, 16, 4)


def destination_port(register: int = WORD) -> bytes:
    return _payload(register, 2, 2, 2)


def _payload(register: int, base: int, offset: int, size: int) -> bytes:
    return _expression("payload", _be32(1, register), _be32(2, base), _be32(3, offset), _be32(4, size))


def protocol(register: int = WORD) -> bytes:
    """The number of the transport protocol, one byte."""
    return _expression("meta", _be32(1, register), _be32(2, 16))


def equals(data: bytes, register: int = WORD, *, negated: bool = False) -> bytes:
    """Go on only if what is in the register begins with ``data`` (or, negated, does not)."""
    return _expression("cmp", _be32(1, register), _be32(2, int(negated)), _value(3, data))


def within(network: IPv4Network, register: int = WORD, *, negated: bool = False) -> bytes:
    """Go on only if the address in the register lies in ``network`` (or, negated, does not)."""
    mask = network.netmask.packed
    cut = _expression(
        "bitwise", _be32(1, register), _be32(2, register), _be32(3, 4), _value(4, mask), _value(5, b"\0\0\0\0")
    )
    return cut + equals(network.network_address.packed, register, negated=negated)


def comes_in_by(prefix: str, *, negated: bool = False) -> bytes:
    """Go on only if the packet came in by an interface whose name begins with ``prefix``."""
    return _expression("meta", _be32(1, WORD), _be32(2, 6)) + equals(prefix.encode(), negated=negated)


def goes_out_by(prefix: str, *, negated: bool = False) -> bytes:
    """Go on only if the packet leaves by an interface whose name begins with ``prefix``."""
    return _expression("meta", _be32(1, WORD), _be32(2, 7)) + equals(prefix.encode(), negated=negated)


def is_for_this_machine() -> bytes:
    """Go on only if the destination is an address of this machine, whichever."""
    return _expression("fib", _be32(1, WORD), _be32(2, 3), _be32(3, 2)) + equals(struct.pack("=I", 2))


def look_up(map_name: str, register: int = WORD, into: int | None = VERDICT, *, number: int = 0) -> bytes:
    """Find what is in the registers in a set (``into`` is ``None``) or a map; go on only if it is there."""
    fields = [text(1, map_name), _be32(2, register)]
    if into is not None:
        fields.append(_be32(3, into))
    if number:
        fields.append(_be32(4, number))
    return _expression("lookup", *fields)


def draw(below: int, register: int = WORD) -> bytes:
    """A random number in the machine's byte order."""
    return _expression("numgen", _be32(1, register), _be32(2, below), _be32(3, 1))


def put(data: bytes, register: int) -> bytes:
    return _expression("immediate", _be32(1, register), _value(2, data))


def go_to(chain: str) -> bytes:
    return _expression("immediate", _be32(1, VERDICT), _verdict(2, _GOTO, chain))


def drop() -> bytes:
    return _expression("immediate", _be32(1, VERDICT), _verdict(2, _DROP))


def reject() -> bytes:
    """Refuse with an ICMP message, which callers see as "connection refused"."""
    return _expression("reject", _be32(1, 0), attribute(2, b"\x03"))


def masquerade() -> bytes:
    """Leave with an address of the machine."""
    return _expression("masq")


def leave_as(address: str) -> bytes:
    """Leave with this source address."""
    return put(IPv4Address(address).packed, WORD) + _expression("nat", _be32(1, 0), _be32(2, _IPV4), _be32(3, WORD))


def send_to_registers() -> bytes:
    """Go to the address in the first word and the port in the second."""
    return _expression("nat", _be32(1, 1), _be32(2, _IPV4), _be32(3, WORD), _be32(5, WORD + 1))


def send_to(address: str, port: int) -> bytes:
    """Go to ``address`` and ``port``."""
    return put(IPv4Address(address).packed, WORD) + put(port_bytes(port), WORD + 1) + send_to_registers()


def remember(set_name: str, register: int = WORD) -> bytes:
    """Put what is in the register into a set, or make it new there."""
    return _expression("dynset", text(1, set_name), _be32(3, 1), _be32(4, register))


def port_bytes(port: int) -> bytes:
    return struct.pack(">HH", port, 0)


def target_bytes(address: str, port: int) -> bytes:
    """What a map holds for :func:`send_to_registers`."""
    return IPv4Address(address).packed + port_bytes(port)


def key_bytes(protocol_number: int, port: int, address: str = "") -> bytes:
    """Address (if any), protocol and port as they lie in registers."""
    head = IPv4Address(address).packed if address else b""
    return head + struct.pack("=Bxxx", protocol_number) + port_bytes(port)


# ---------------------------------------------------------------------------------------------------- transactions


class Change:
    """Changes to one table that are made together."""

    def __init__(self, table: str) -> None:
        self.table = table
        self.messages: list[Message] = []
        self._sets = 0

    def _add(self, message: int, flags: int, *fields: bytes) -> None:
        head = struct.pack(">BBH", _IPV4, 0, 0)
        self.messages.append(((_SUBSYSTEM << 8) | message, flags, head + b"".join(fields)))

    def new_table(self) -> None:
        """The table, empty, whether it was there or not."""
        for message, flags in ((_NEW_TABLE, CREATE), (_DEL_TABLE, 0), (_NEW_TABLE, CREATE)):
            self._add(message, flags, text(1, self.table))

    def delete_table(self) -> None:
        self._add(_DEL_TABLE, 0, text(1, self.table))

    def base_chain(self, name: str, kind: str, hook: int, priority: int) -> None:
        """A chain that the kernel calls; ``kind`` is ``nat`` or ``filter``."""
        where = nested(4, _be32(1, hook), _be32(2, priority))
        self._add(_NEW_CHAIN, CREATE, text(1, self.table), text(3, name), where, _be32(5, 1), text(7, kind))

    def chain(self, name: str) -> None:
        """A chain to go to, empty, whether it was there or not."""
        self._add(_NEW_CHAIN, CREATE, text(1, self.table), text(3, name))
        self.flush(name)

    def flush(self, name: str) -> None:
        self._add(_DEL_RULE, 0, text(1, self.table), text(2, name))

    def delete_chain(self, name: str) -> None:
        self._add(_DEL_CHAIN, 0, text(1, self.table), text(3, name))

    def rule(self, chain: str, *expressions: bytes) -> None:
        """Append a rule."""
        self._add(_NEW_RULE, CREATE | APPEND, text(1, self.table), text(2, chain), nested(4, *expressions))

    def set(self, name: str, size: int, *, seconds: int = 0) -> None:
        """A set of keys of ``size`` bytes; ``seconds``: a set that rules fill and that forgets after that time."""
        fields = [text(1, self.table), text(2, name)]
        fields += [_be32(3, _TIMEOUT | _EVAL if seconds else 0), _be32(4, 0), _be32(5, size)]
        if seconds:
            fields.append(_be64(11, seconds * 1000))
        self._sets += 1
        self._add(_NEW_SET, CREATE, *fields, _be32(10, self._sets))

    def verdict_map(self, name: str, size: int) -> None:
        """A map from keys of ``size`` bytes to chains."""
        self._sets += 1
        fields = [text(1, self.table), text(2, name), _be32(3, _MAP), _be32(4, 0), _be32(5, size)]
        self._add(_NEW_SET, CREATE, *fields, _be32(6, _VERDICT_DATA), _be32(7, 0), _be32(10, self._sets))

    def delete_set(self, name: str) -> None:
        self._add(_DEL_SET, 0, text(1, self.table), text(2, name))

    def goto(self, map_name: str, key: bytes, chain: str) -> None:
        """Add a key to a verdict map."""
        self._element(_NEW_ELEMENT, CREATE, map_name, nested(1, _value(1, key), _verdict(2, _GOTO, chain)))

    def add(self, set_name: str, key: bytes) -> None:
        self._element(_NEW_ELEMENT, CREATE, set_name, nested(1, _value(1, key)))

    def discard(self, set_name: str, key: bytes) -> None:
        """Take a key that is there out of a set or map."""
        self._element(_DEL_ELEMENT, 0, set_name, nested(1, _value(1, key)))

    def _element(self, message: int, flags: int, set_name: str, *elements: bytes) -> None:
        self._add(message, flags, text(1, self.table), text(2, set_name), nested(3, *elements))

    def choose(self, targets: Sequence[tuple[str, int]]) -> bytes:
        """Expressions that send a packet to one of ``targets`` at random; for a rule of this same change."""
        if len(targets) == 1:
            return send_to(*targets[0])
        pairs = [_value(2, target_bytes(*target)) for target in targets]
        name, number = self._anonymous(pairs, 4, (1, 8))
        return draw(len(targets)) + look_up(name, into=WORD, number=number) + send_to_registers()

    def choose_chain(self, chains: Sequence[str]) -> bytes:
        """Expressions that go on in one of ``chains`` at random; for a rule of this same change."""
        if len(chains) == 1:
            return go_to(chains[0])
        pairs = [_verdict(2, _GOTO, chain) for chain in chains]
        name, number = self._anonymous(pairs, 4, (_VERDICT_DATA, 0))
        return draw(len(chains)) + look_up(name, number=number)

    def _anonymous(self, values: Iterable[bytes], size: int, data: tuple[int, int]) -> tuple[str, int]:
        """A map from 0, 1, ... to ``values`` that lives as long as the rule that names it."""
        self._sets += 1
        name, number = "__map%d", self._sets
        flags = _ANONYMOUS | _CONSTANT | _MAP
        fields = [text(1, self.table), text(2, name), _be32(3, flags), _be32(4, 0), _be32(5, size)]
        self._add(_NEW_SET, CREATE, *fields, _be32(6, data[0]), _be32(7, data[1]), _be32(10, number))
        elements = [nested(1, _value(1, struct.pack("=I", at)), value) for at, value in enumerate(values)]
        for start in range(0, len(elements), 500):  # an attribute holds at most 64 KiB
            listed = nested(3, *elements[start : start + 500])
            self._add(_NEW_ELEMENT, CREATE, text(1, self.table), text(2, name), _be32(4, number), listed)
        return name, number

    def commit(self) -> None:
        """Make the changes in the network namespace of the thread.

        :raises OSError: none of them was made.
        """
        mark = struct.pack(">BBH", socket.AF_UNSPEC, 0, _SUBSYSTEM)
        with Netlink(_FAMILY) as netlink:
            netlink.transaction((_BEGIN, mark), self.messages, _END)


def has_table(name: str) -> bool:
    """Whether there is such a table.

    :raises OSError: the kernel does not say.
    """
    with Netlink(_FAMILY) as netlink:
        try:
            netlink.request((_SUBSYSTEM << 8) | _GET_TABLE, struct.pack(">BBH", _IPV4, 0, 0) + text(1, name))
        except FileNotFoundError:
            return False
    return True


def delete_table(name: str) -> None:
    """Delete a table with everything in it, if it is there.

    :raises OSError: the kernel refuses.
    """
    change = Change(name)
    change.delete_table()
    try:
        change.commit()
    except OSError as error:
        if error.errno != errno.ENOENT:
            raise
