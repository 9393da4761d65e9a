"""How objects lie in etcd.

Keys are ``PREFIX CLUSTER / RESOURCE / NAMESPACE / NAME``, so that a cluster is one range. Keys that begin with "!" (no
cluster's name does) are the store's own. An object carries its revision (``metadata.resourceVersion``), which etcd
gives out only when it has the value; so the value is stored without the number and says where the number belongs:
``@OFFSET[,OFFSET...]\\nBYTES``.
"""

from __future__ import annotations

from itertools import pairwise

from glebe.apiserver.store.base import Key, Make

#: The newest deletion: the key's bytes, a zero byte, and the last state as a value. Written together with the deletion,
#: because etcd's own event has the state before it.
GONE = b"!gone"
#: The cluster that was dropped last; written together with the deletion of its range.
DROPPED = b"!dropped"
#: Written to have an event.
TICK = b"!tick"
#: The revision at which somebody compacted last.
COMPACTED = b"!compacted"

# Stand in for the revision until it is known. As long as a revision can get.
_STAND_IN = 7_046_029_254_386_353_131
_OTHER = 6_364_136_223_846_793_005


class Layout:
    """Keys under one prefix."""

    def __init__(self, prefix: str) -> None:
        self.start = prefix.encode()
        self.end = self.start[:-1] + bytes((self.start[-1] + 1,))

    def key(self, key: Key) -> bytes:
        return self.start + "/".join((key.cluster, key.resource, key.namespace, key.name)).encode()

    def own(self, name: bytes) -> bytes:
        return self.start + name

    def parse(self, raw: bytes) -> Key | bytes:
        """An object's key, or the name of a key of the store itself."""
        text = raw[len(self.start) :]
        if text[:1] == b"!":
            return text
        cluster, resource, namespace, name = text.decode().split("/", 3)
        return Key(resource, cluster, namespace, name)

    def cluster(self, name: str) -> tuple[bytes, bytes]:
        """The range that holds a cluster: first key, first key behind it."""
        return self.start + name.encode() + b"/", self.start + name.encode() + b"0"


def pack(make: Make) -> bytes:
    """The value to store of what ``make`` makes."""
    digits = b"%d" % _STAND_IN
    made = make(_STAND_IN)
    places = _places(made, digits)
    if len(places) > 1:
        # The object itself contains our number (or carries its revision twice): what changes with it is the revision.
        again = make(_OTHER)
        places = [place for place in places if again[place : place + len(digits)] == b"%d" % _OTHER]
    parts, last = [], 0
    for place in places:
        parts.append(made[last:place])
        last = place + len(digits)
    parts.append(made[last:])
    offsets, total = [], 0
    for part in parts[:-1]:
        total += len(part)
        offsets.append(b"%d" % total)
    return b"@" + b",".join(offsets) + b"\n" + b"".join(parts)


def _places(text: bytes, digits: bytes) -> list[int]:
    found, at = [], text.find(digits)
    while at >= 0:
        found.append(at)
        at = text.find(digits, at + len(digits))
    return found


def unpack(value: bytes, revision: int) -> bytes:
    """The object's bytes, with its revision.

    :raises ValueError: it is not a value that :func:`pack` made.
    """
    if value[:1] != b"@":
        raise ValueError("no value of ours")
    line = value.index(b"\n")
    head = value[1:line]
    if not head:
        return value[line + 1 :]
    digits = b"%d" % revision
    if b"," not in head:
        cut = line + 1 + int(head)
        return value[line + 1 : cut] + digits + value[cut:]
    cuts = [line + 1, *(line + 1 + int(offset) for offset in head.split(b",")), len(value)]
    return digits.join(value[a:b] for a, b in pairwise(cuts))
