"""One logical cluster: what the server keeps in memory about it, and its object in the register."""

from __future__ import annotations

import re
from sys import intern
from typing import Any

import orjson

from glebe.apiserver.clusters.budget import Budget, budget_of
from glebe.apiserver.store import Entry, Key, Make
from glebe.kube import errors
from glebe.kube.objects import Object

GROUP, PLURAL, KIND = "glebe.dev", "clusters", "LogicalCluster"
API_VERSION = "glebe.dev/v1alpha1"
#: Where the register itself is stored: a cluster that no path can name.
RESOURCE, NOWHERE = "clusters.glebe.dev", ""

_NAME = re.compile(r"[a-z0-9]([-a-z0-9]{0,61}[a-z0-9])?")


class LogicalCluster:
    """A cluster as long as it can be seen. Requests hold on to it: when ``alive`` is False, nothing may be written any
    more in its name, whatever another cluster of the same name may be by then."""

    __slots__ = ("alive", "budget", "created", "entry", "name", "reserved_bytes", "reserved_objects", "revision")

    def __init__(self, name: str, entry: Entry, created: str, revision: int) -> None:
        self.name = name
        self.entry = entry
        """Its object in the register."""
        self.created = created
        self.revision = revision
        """At which it came into being."""
        self.alive = True
        self.budget: Budget | None = None
        self.reserved_objects = 0
        self.reserved_bytes = 0
        """Of creations that are on their way to the store."""

    @property
    def uid(self) -> str:
        """Read anew each time: there may be very many clusters, of which few are asked."""
        uid: str = self.entry.load()["metadata"]["uid"]
        return uid


def key_of(name: str) -> Key:
    """Where the register keeps a cluster's object."""
    return Key(RESOURCE, NOWHERE, "", name)


def read(entry: Entry) -> LogicalCluster:
    """The cluster that a register's object declares."""
    obj = entry.view()
    meta = obj["metadata"]
    born = int((obj.get("status") or {}).get("firstResourceVersion") or entry.revision)
    # Thousands of clusters are made within one second, and most are never changed: what is equal is one.
    born = entry.revision if born == entry.revision else born
    made = LogicalCluster(meta["name"], entry, intern(meta["creationTimestamp"]), born)
    made.budget = budget_of(obj)
    return made


def full(entry: Entry) -> Object:
    """The object that an entry of the register stands for. What is the same for all clusters is not kept in it: there
    may be very many. (Releases before 0.2 kept everything.)"""
    obj, revision = entry.load(), str(entry.revision)
    return {
        "apiVersion": API_VERSION,
        "kind": KIND,
        "metadata": {**obj["metadata"], "resourceVersion": revision},
        "spec": obj.get("spec") or {},
        "status": obj.get("status") or {"phase": "Ready", "firstResourceVersion": revision},
    }


def row(obj: Object, *, first: bool = False) -> Make:
    """What the register keeps of a cluster's object; ``first``: it is the cluster's beginning."""
    kept: Object = {
        "metadata": {field: value for field, value in obj["metadata"].items() if field != "resourceVersion"}
    }
    if obj["spec"]:
        kept["spec"] = obj["spec"]
    if not first:
        kept["status"] = obj["status"]
    value = orjson.dumps(kept)
    return lambda _: value


def new(name: str, uid: str, now: str, asked: Object) -> Object:
    """The object of a new cluster, with what a client may choose of it.

    :raises ApiError: 422.
    """
    check_name(name)
    given = asked.get("metadata") or {}
    meta: Object = {"name": name, "uid": uid, "creationTimestamp": now}
    meta |= {field: given[field] for field in ("labels", "annotations") if given.get(field)}
    obj: Object = {"apiVersion": API_VERSION, "kind": KIND, "metadata": meta, "spec": asked.get("spec") or {}}
    check_spec(name, obj["spec"])
    return obj


def changed(old: Object, asked: Object) -> Object:
    """``old`` with what ``asked`` may change: labels, annotations and the specification.

    :raises ApiError: 409 when ``asked`` is of an older version or another cluster, 422.
    """
    meta, wanted = old["metadata"], asked.get("metadata") or {}
    name = meta["name"]
    for field in ("name", "uid", "resourceVersion"):
        if wanted.get(field) not in (None, "", meta[field]):
            if field == "resourceVersion":
                raise errors.modified(GROUP, PLURAL, name)
            raise errors.conflict(GROUP, PLURAL, name, f"metadata.{field} is {meta[field]}, not {wanted[field]}")
    kept = {field: value for field, value in meta.items() if field not in ("labels", "annotations")}
    kept |= {field: wanted[field] for field in ("labels", "annotations") if wanted.get(field)}
    spec = asked.get("spec") or {}
    check_spec(name, spec)
    return {**old, "metadata": kept, "spec": spec}


def check_name(name: str) -> None:
    """:raises ApiError: 422."""
    if not _NAME.fullmatch(name):
        why = "a cluster's name is a DNS label: lower case letters, digits and '-', at most 63"
        raise _invalid(name, "metadata.name", f'Invalid value: "{name}": {why}')


def check_spec(name: str, spec: Any) -> None:
    """:raises ApiError: 422."""
    if not isinstance(spec, dict) or set(spec) - {"budget"}:
        raise _invalid(name, "spec", "Invalid value: the only field of spec is budget")
    try:
        budget_of({"spec": spec})
    except ValueError as error:
        raise _invalid(name, "spec.budget", f"Invalid value: {error}") from None


def _invalid(name: str, field: str, message: str) -> errors.ApiError:
    return errors.invalid(GROUP, KIND, name, [errors.Cause("FieldValueInvalid", message, field)])


def stamped(obj: Object) -> Make:
    """The bytes of ``obj`` under the revision of a write."""

    def make(revision: int) -> bytes:
        obj["metadata"]["resourceVersion"] = str(revision)
        return orjson.dumps(obj)

    return make
