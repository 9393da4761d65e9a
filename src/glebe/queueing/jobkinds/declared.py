"""Kinds of jobs that somebody declares in a ConfigMap. Pure.

Each value of the ConfigMap is YAML: one row of the table of job kinds, or a list of rows.
"""

from __future__ import annotations

from collections.abc import Iterable

import yaml

from glebe.kube.objects import Object
from glebe.queueing.jobkinds.model import JobKind
from glebe.queueing.jobkinds.parse import DeclarationError, parse_kinds
from glebe.queueing.jobkinds.registry import shipped

#: Where the ConfigMap stands, in the host cluster.
NAMESPACE, NAME = "glebe-system", "glebe-job-kinds"


def is_declaration(obj: Object) -> bool:
    meta = obj["metadata"]
    return bool(meta.get("namespace") == NAMESPACE and meta.get("name") == NAME)


def declared(configmap: Object | None) -> tuple[tuple[JobKind, ...], list[str]]:
    """The kinds that can be understood, and what is wrong with the others: one sentence per fault."""
    kinds: list[JobKind] = []
    faults: list[str] = []
    for key, text in sorted(((configmap or {}).get("data") or {}).items()):
        try:
            found = parse_kinds(yaml.safe_load(text), origin=key)
        except DeclarationError as error:
            faults += [f"{key}: {fault}" for fault in error.faults]
            continue
        except yaml.YAMLError as error:
            faults.append(f"{key}: this is not YAML: {' '.join(str(error).split())}")
            continue
        faults += [f"{key}: {fault}" for fault in _clashes(found, kinds)]
        kinds += [kind for kind in found if not list(_clashes((kind,), kinds))]
    return tuple(kinds), faults


def _clashes(found: Iterable[JobKind], known: Iterable[JobKind]) -> Iterable[str]:
    taken = {(k.resource.group, k.resource.kind): "is known already" for k in shipped()}
    taken |= {(k.resource.group, k.resource.kind): f"is declared by {k.origin}" for k in known}
    for kind in found:
        if why := taken.get((kind.resource.group, kind.resource.kind)):
            yield f"{kind.resource.kind} of {kind.resource.group or 'the core group'} {why}"
