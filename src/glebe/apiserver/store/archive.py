"""A store's content as a file that any store can take: JSON lines between a header and a checksum.

    {"format":"glebe-archive","version":1,"cluster":"team-a","revision":812,"created":"2026-01-31T10:00:00Z"}
    {"k":["configmaps","team-a","default","settings"],"r":640,"o":{"apiVersion":"v1",...}}
    {"d":["configmaps","team-a","default","kube-root-ca.crt"]}
    {"end":true,"objects":1,"sha256":"..."}

``cluster`` "" means everything, the register of clusters included. ``d`` says that what the cluster would have from the
beginning was deleted. The checksum is over all bytes before its line, so a cut or changed file is noticed.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass

import orjson

from glebe.apiserver.store.base import Entry, GivenEntry, Key

FORMAT, VERSION = "glebe-archive", 1
_OBJECT = b',"o":'
_REGISTER = "clusters.glebe.dev"


class ArchiveError(Exception):
    """The file is no archive, or not whole: what is wrong, and where."""


@dataclass(frozen=True, slots=True)
class Snapshot:
    """The state of a store at one moment. Entries are shared with the store: nothing is copied but references."""

    cluster: str
    revision: int
    tables: list[tuple[str, str, dict[tuple[str, str], Entry]]]
    """(resource, cluster, entries by (namespace, name))."""
    deleted: list[Key]

    def rows(self) -> Iterator[tuple[Key, Entry]]:
        for resource, cluster, entries in self.tables:
            for (namespace, name), entry in sorted(entries.items()):
                if not isinstance(entry, GivenEntry):
                    yield Key(resource, cluster, namespace, name), entry


@dataclass(frozen=True, slots=True)
class Header:
    cluster: str
    revision: int
    created: str


@dataclass(frozen=True, slots=True)
class Item:
    """One line. ``value`` None: what the cluster would have from the beginning was deleted."""

    key: Key
    revision: int
    value: bytes | None


def write(snapshot: Snapshot, created: str) -> Iterator[bytes]:
    """The lines of an archive."""
    digest = hashlib.sha256()
    count = 0
    head = {
        "format": FORMAT,
        "version": VERSION,
        "cluster": snapshot.cluster,
        "revision": snapshot.revision,
        "created": created,
    }
    line = orjson.dumps(head) + b"\n"
    digest.update(line)
    yield line
    for key, entry in snapshot.rows():
        line = b'{"k":%b,"r":%d,"o":%b}\n' % (orjson.dumps(list(key)), entry.revision, entry.value)
        digest.update(line)
        count += 1
        yield line
    for key in snapshot.deleted:
        line = b'{"d":%b}\n' % orjson.dumps(list(key))
        digest.update(line)
        yield line
    yield orjson.dumps({"end": True, "objects": count, "sha256": digest.hexdigest()}) + b"\n"


def parse_line(line: bytes) -> Item:
    """
    :raises ValueError: it is no line of an archive.
    """
    cut = line.find(_OBJECT)
    if line.startswith(b'{"k":') and cut > 0:
        head = orjson.loads(line[:cut] + b"}")
        value = line[cut + len(_OBJECT) :].rstrip(b"\n")[:-1]
        orjson.loads(value)
        return Item(_key(head["k"]), int(head["r"]), value)
    return Item(_key(orjson.loads(line)["d"]), 0, None)


def _key(parts: object) -> Key:
    if not isinstance(parts, list) or len(parts) != 4 or not all(isinstance(part, str) for part in parts):
        raise ValueError("no address of an object")
    return Key(*parts)


class Reader:
    """Reads an archive line by line; whoever has read it to its end knows that it is whole.

    :raises ArchiveError: at once when it is no archive of a version that we know.
    """

    def __init__(self, lines: Iterable[bytes]) -> None:
        self._lines = iter(lines)
        self._digest = hashlib.sha256()
        first = next(self._lines, b"")
        try:
            head = orjson.loads(first)
            known = head["format"] == FORMAT
        except (ValueError, KeyError, TypeError):
            known = False
        if not known:
            raise ArchiveError("it is no archive of Glebe")
        if head.get("version") != VERSION:
            raise ArchiveError(f"it has version {head.get('version')}, this Glebe reads version {VERSION}")
        self.header = Header(str(head.get("cluster", "")), int(head.get("revision", 0)), str(head.get("created", "")))
        self._digest.update(first)
        self.objects = 0

    def raw(self) -> Iterator[bytes]:
        """The lines between header and end.

        :raises ArchiveError: it ends early, or is not as it was written.
        """
        for number, line in enumerate(self._lines, 2):
            if line.startswith(b'{"end":'):
                self._check_end(line, number)
                return
            if line.startswith(b'{"k":'):
                self.objects += 1
            self._digest.update(line)
            yield line
        raise ArchiveError("it is cut short: its last line is missing")

    def items(self) -> Iterator[Item]:
        """The same, parsed.

        :raises ArchiveError: as :meth:`raw`.
        """
        for number, line in enumerate(self.raw(), 2):
            try:
                yield parse_line(line)
            except (ValueError, KeyError, TypeError) as error:
                raise ArchiveError(f"line {number} is damaged") from error

    def _check_end(self, line: bytes, number: int) -> None:
        try:
            end = orjson.loads(line)
        except ValueError as error:
            raise ArchiveError(f"line {number} is damaged") from error
        if end.get("sha256") != self._digest.hexdigest() or end.get("objects") != self.objects:
            raise ArchiveError("its checksum is wrong: something in it was changed")
        if next(self._lines, b""):
            raise ArchiveError("something follows its end")


def remade(item: Item) -> Callable[[int], bytes]:
    """Makes an archived object anew, under a new revision."""
    assert item.value is not None
    obj = orjson.loads(item.value)
    born = item.key.resource == _REGISTER and "firstResourceVersion" in (obj.get("status") or {})

    def make(revision: int) -> bytes:
        obj["metadata"]["resourceVersion"] = str(revision)
        if born:
            obj["status"]["firstResourceVersion"] = str(revision)
        return orjson.dumps(obj)

    return make
