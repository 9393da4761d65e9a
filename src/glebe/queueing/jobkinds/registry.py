"""Which kinds of jobs there are: the shipped ones, and those that a ConfigMap declares."""

from __future__ import annotations

from collections.abc import Iterable
from functools import lru_cache
from importlib import resources

import yaml

from glebe.queueing.jobkinds.model import JobKind
from glebe.queueing.jobkinds.parse import parse_kinds

_Loader = getattr(yaml, "CSafeLoader", yaml.SafeLoader)


@lru_cache(maxsize=1)
def shipped() -> tuple[JobKind, ...]:
    """The table of the package."""
    text = resources.files(__package__).joinpath("shipped.yaml").read_text()
    return parse_kinds(yaml.load(text, _Loader), own=True)


class JobKinds:
    """All kinds by their addresses. A declared kind never replaces a shipped one.

    :param copied_labels: labels that workloads get from their jobs, whatever the kind.
    """

    def __init__(self, declared: Iterable[JobKind] = (), copied_labels: tuple[str, ...] = ()) -> None:
        self.copied_labels = copied_labels
        self._declared: tuple[JobKind, ...] = ()
        self._by_kind: dict[tuple[str, str], JobKind] = {}
        self._by_resource: dict[tuple[str, str], JobKind] = {}
        self.declare(declared)

    @property
    def all(self) -> tuple[JobKind, ...]:
        return (*shipped(), *self._declared)

    def declare(self, declared: Iterable[JobKind]) -> None:
        """Know these besides the shipped ones, and no others any more."""
        known = {(k.resource.group, k.resource.kind) for k in shipped()}
        self._declared = tuple(k for k in declared if (k.resource.group, k.resource.kind) not in known)
        self._by_kind = {(k.resource.api_version, k.resource.kind): k for k in self.all}
        self._by_resource = {(k.resource.group, k.resource.plural): k for k in self.all}

    def for_kind(self, api_version: str, kind: str) -> JobKind | None:
        return self._by_kind.get((api_version, kind))

    def for_resource(self, group: str, plural: str) -> JobKind | None:
        return self._by_resource.get((group, plural))
