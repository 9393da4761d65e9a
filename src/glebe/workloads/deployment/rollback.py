"""The old way to roll back: an annotation (once ``spec.rollbackTo``) names a revision. kubectl patches the template."""

from __future__ import annotations

from collections.abc import Sequence

from glebe.kube.objects import Object, annotations_of
from glebe.workloads.deployment import annotate
from glebe.workloads.deployment.annotate import ROLLBACK, revision
from glebe.workloads.deployment.plan import Event, Plan
from glebe.workloads.deployment.sets import HASH_LABEL, name_of, same_template


def roll_back(deployment: Object, sets: Sequence[Object]) -> Plan | None:
    """Make an old set's template the Deployment's; ``None`` when the annotation names no number."""
    text = annotations_of(deployment)[ROLLBACK]
    if not text.isascii() or not text.isdigit():
        return None
    to = int(text) or _last(sets)
    if to == 0:
        return _give_up(deployment, "DeploymentRollbackRevisionNotFound", "Unable to find last revision.")
    for one in sets:
        if revision(one) == to:
            return _to(deployment, one, to)
    return _give_up(deployment, "DeploymentRollbackRevisionNotFound", "Unable to find the revision to rollback to.")


def _last(sets: Sequence[Object]) -> int:
    """The revision before the present one; 0 when there is none."""
    known = sorted({revision(s) for s in sets}, reverse=True)
    return known[1] if len(known) > 1 else 0


def _to(deployment: Object, replica_set: Object, number: int) -> Plan:
    name, template = name_of(deployment), replica_set["spec"]["template"]
    if same_template(deployment["spec"]["template"], template):
        text = f'The rollback revision contains the same template as current deployment "{name}"'
        return _give_up(deployment, "DeploymentRollbackTemplateUnchanged", text)
    meta = dict(template.get("metadata") or {})
    meta["labels"] = {k: v for k, v in (meta.get("labels") or {}).items() if k != HASH_LABEL}
    new = {
        **deployment,
        "metadata": {**deployment["metadata"], "annotations": annotate.after_rollback(deployment, replica_set)},
        "spec": {**deployment["spec"], "template": {**template, "metadata": meta}},
    }
    event = Event("Normal", "DeploymentRollback", f'Rolled back deployment "{name}" to revision {number}')
    return Plan(deployment=new, events=[event])


def _give_up(deployment: Object, reason: str, message: str) -> Plan:
    notes = {k: v for k, v in annotations_of(deployment).items() if k != ROLLBACK}
    new = {**deployment, "metadata": {**deployment["metadata"], "annotations": notes}}
    return Plan(deployment=new, events=[Event("Warning", reason, message)])
