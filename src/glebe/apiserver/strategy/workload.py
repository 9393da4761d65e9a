"""Workloads of apps/v1 whose metadata counts something."""

from __future__ import annotations

from glebe.apiserver.strategy.base import Strategy
from glebe.kube.objects import Object

#: Counts the changes of a DaemonSet's template; upstream still writes it.
TEMPLATE_GENERATION = "deprecated.daemonset.template.generation"


class DeploymentStrategy(Strategy):
    """Its generation counts changed annotations, too."""

    def spec_changed(self, obj: Object, old: Object) -> bool:
        notes, before = (o["metadata"].get("annotations") or {} for o in (obj, old))
        return notes != before or super().spec_changed(obj, old)


class DaemonSetStrategy(Strategy):
    """Its annotation counts the changes of its template."""

    def prepare_create(self, obj: Object, now: str) -> None:
        super().prepare_create(obj, now)
        _note(obj, 1)

    def prepare_update(self, obj: Object, old: Object, now: str) -> None:
        super().prepare_update(obj, old, now)
        text = str((old["metadata"].get("annotations") or {}).get(TEMPLATE_GENERATION, "1"))
        count = int(text) if text.isascii() and text.isdigit() else 1
        template, before = ((o.get("spec") or {}).get("template") for o in (obj, old))
        _note(obj, count + 1 if template != before else count)


def _note(obj: Object, count: int) -> None:
    obj["metadata"]["annotations"] = {**(obj["metadata"].get("annotations") or {}), TEMPLATE_GENERATION: str(count)}


class EndpointSliceStrategy(Strategy):
    """Its generation counts changed labels, too: they say which service it belongs to."""

    def spec_changed(self, obj: Object, old: Object) -> bool:
        labels, before = (o["metadata"].get("labels") or {} for o in (obj, old))
        return labels != before or super().spec_changed(obj, old)
