"""On which nodes a volume can be had, or made: one truth value per row of the fleet, remembered until nodes change."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Final

import numpy as np
import orjson

from glebe.kube.nodes import term_matches
from glebe.kube.objects import Object, labels_of
from glebe.kube.storage import HOSTNAME, NO_PROVISIONER
from glebe.workloads.binder.fleet import Fleet
from glebe.workloads.binder.plugins import Bools

_ZONES: Final[tuple[str, ...]] = (
    "topology.kubernetes.io/zone",
    "topology.kubernetes.io/region",
    "failure-domain.beta.kubernetes.io/zone",
    "failure-domain.beta.kubernetes.io/region",
)
_KEPT: Final = 512


class Rows:
    """Answers about the nodes of ``fleet``."""

    def __init__(self, fleet: Fleet) -> None:
        self._fleet = fleet
        self._names: list[str] = []
        self._hosts: dict[str, list[int]] = {}
        self._known: dict[str, Bools] = {}

    def near(self, volume: Object) -> Bools:
        """Where the volume's node affinity holds."""
        required = ((volume.get("spec") or {}).get("nodeAffinity") or {}).get("required")
        if required is None:
            return np.ones(len(self._fleet.names), np.bool_)
        self._renew()
        host = single_host(required)
        if host is not None:
            found = np.zeros(len(self._fleet.names), np.bool_)
            found[self._hosts.get(host, [])] = True
            return found
        terms = required.get("nodeSelectorTerms") or ()
        return self._remember(
            b"a" + orjson.dumps(required, default=dict), lambda node: any(term_matches(t, node) for t in terms)
        )

    def in_zone(self, volume: Object) -> Bools | None:
        """Where the volume's labels of zones suit; ``None``: everywhere."""
        labels = labels_of(volume)
        wanted = {key: labels[key].split("__") for key in _ZONES if key in labels}
        if not wanted:
            return None
        self._renew()
        return self._remember(b"z" + orjson.dumps(wanted), lambda node: _in_zone(wanted, labels_of(node)))

    def provisionable(self, storage_class: Object | None) -> Bools:
        """Where a volume of the class can be made (``allowedTopologies``)."""
        provisioner = (storage_class or {}).get("provisioner") or ""
        rows = len(self._fleet.names)
        if storage_class is None or provisioner in ("", NO_PROVISIONER):
            return np.zeros(rows, np.bool_)
        terms = storage_class.get("allowedTopologies") or ()
        if not terms:
            return np.ones(rows, np.bool_)
        self._renew()
        return self._remember(b"t" + orjson.dumps(terms, default=dict), lambda node: _topology(terms, labels_of(node)))

    def only(self, node: str) -> Bools:
        """One row, or none."""
        found = np.zeros(len(self._fleet.names), np.bool_)
        if (row := self._fleet.row(node)) is not None:
            found[row] = True
        return found

    def _renew(self) -> None:
        if self._names is self._fleet.names:
            return
        self._names = self._fleet.names
        self._known.clear()
        self._hosts = {}
        for row, name in enumerate(self._names):
            host = labels_of(self._fleet.node(name) or {"metadata": {}}).get(HOSTNAME)
            if host is not None:
                self._hosts.setdefault(host, []).append(row)

    def _remember(self, key: bytes, holds: Any) -> Bools:
        text = key.decode()
        if text not in self._known:
            if len(self._known) >= _KEPT:
                self._known.clear()
            self._known[text] = self._fleet.rows_where(holds)
        return self._known[text]


def single_host(required: Mapping[str, Any]) -> str | None:
    """The one host name that a node affinity names and nothing else, as local volumes' do."""
    terms: list[Mapping[str, Any]] = list(required.get("nodeSelectorTerms") or ())
    if len(terms) != 1 or terms[0].get("matchFields"):
        return None
    expressions: list[Mapping[str, Any]] = list(terms[0].get("matchExpressions") or ())
    if len(expressions) != 1:
        return None
    only = expressions[0]
    values: list[str] = list(only.get("values") or ())
    return str(values[0]) if (only.get("key"), only.get("operator"), len(values)) == (HOSTNAME, "In", 1) else None


def _in_zone(wanted: Mapping[str, list[str]], node: Mapping[str, str]) -> bool:
    if not any(key in node for key in _ZONES):
        return True  # such a node is in no zone at all: a cluster without zones
    return all(node.get(key) in values for key, values in wanted.items())


def _topology(terms: Any, labels: Mapping[str, str]) -> bool:
    return any(
        all(labels.get(e.get("key", "")) in (e.get("values") or ()) for e in term.get("matchLabelExpressions") or ())
        for term in terms
        if term.get("matchLabelExpressions")
    )
