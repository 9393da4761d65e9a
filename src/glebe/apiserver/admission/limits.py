"""LimitRanger: what containers ask for when they do not say, and how little and how much may be asked for
(``plugin/pkg/admission/limitranger``)."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from fractions import Fraction
from typing import Any

from glebe.apiserver.admission.base import AdmissionAttributes, BuiltinPlugin, ReadAll
from glebe.apiserver.admission.quota.amounts import of
from glebe.apiserver.admission.quota.podusage import pod_resources
from glebe.apiserver.admission.storage import CLAIMS
from glebe.kube.objects import Object
from glebe.kube.quantity import QuantityError, canonical, format_binary, format_decimal

ANNOTATION = "kubernetes.io/limit-ranger"


class LimitRanger(BuiltinPlugin):
    """The namespace's LimitRanges on new pods, resized pods and claims."""

    name = "LimitRanger"
    resources = frozenset({"pods", CLAIMS})

    def __init__(self, read_all: ReadAll) -> None:
        self._read_all = read_all

    async def admit(self, a: AdmissionAttributes) -> None:
        if a.info.group_resource == "pods" and a.obj is not None:
            for limit_range in self._ranges(a):
                _fill_in(a.obj, limit_range)

    async def validate(self, a: AdmissionAttributes) -> None:
        if a.obj is None:
            return
        for limit_range in self._ranges(a):
            complaints: dict[str, None] = {}
            for limit in (limit_range.get("spec") or {}).get("limits") or ():
                complaints.update(dict.fromkeys(_complaints(a, a.obj, limit)))
            if complaints:
                texts = list(complaints)
                raise a.refusal(texts[0] if len(texts) == 1 else f"[{', '.join(texts)}]")

    def _ranges(self, a: AdmissionAttributes) -> list[Object]:
        if a.old is not None and "deletionTimestamp" in a.old["metadata"]:
            return []
        resized = a.subresource == "resize" and a.operation == "UPDATE"
        updated_claim = a.operation == "UPDATE" and a.info.group_resource == CLAIMS
        if not resized and (a.subresource or not (a.operation == "CREATE" or updated_claim)):
            return []
        return self._read_all(a.cluster, "limitranges", a.namespace)


def _fill_in(pod: Object, limit_range: Object) -> None:
    """Containers that do not say get the defaults; the pod says in an annotation what was set."""
    requests: dict[str, Any] = {}
    limits: dict[str, Any] = {}
    for limit in (limit_range.get("spec") or {}).get("limits") or ():
        if limit.get("type") == "Container":
            requests.update(limit.get("defaultRequest") or {})
            limits.update(limit.get("default") or {})
    if not requests and not limits:
        return
    notes = []
    for field, words in (("containers", "container"), ("initContainers", "init container")):
        for container in pod["spec"].get(field) or ():
            for kind, defaults in (("requests", requests), ("limits", limits)):
                present = (container.get("resources") or {}).get(kind) or {}
                missing = {name: value for name, value in defaults.items() if name not in present}
                if missing:
                    resources = container["resources"] = dict(container.get("resources") or {})
                    resources[kind] = {**present, **missing}
                    notes.append(f"{', '.join(sorted(missing))} {kind[:-1]} for {words} {container.get('name', '')}")
    if notes:
        text = "LimitRanger plugin set: " + "; ".join(notes)
        meta = pod["metadata"]
        meta["annotations"] = {**(meta.get("annotations") or {}), ANNOTATION: text}


def _complaints(a: AdmissionAttributes, obj: Object, limit: Object) -> Iterator[str]:
    kind = limit.get("type")
    if a.info.group_resource == CLAIMS:
        if kind == "PersistentVolumeClaim":
            yield from _claim(limit, ((obj["spec"].get("resources") or {}).get("requests")) or {})
        return
    if kind == "Container":
        for container in (*(obj["spec"].get("containers") or ()), *(obj["spec"].get("initContainers") or ())):
            resources = container.get("resources") or {}
            yield from _bounds(limit, _Asked(resources.get("requests") or {}), _Asked(resources.get("limits") or {}))
    elif kind == "Pod":
        whole = {**obj, "status": {}, "spec": {**obj["spec"], "overhead": {}}}
        requests, limits = pod_resources(whole, "requests"), pod_resources(whole, "limits")
        yield from _bounds(limit, _Asked({}, requests), _Asked({}, limits))


class _Asked:
    """A resource list, as amounts and as text; of sums only amounts are known."""

    def __init__(self, texts: Mapping[str, Any], amounts: Mapping[str, int] | None = None) -> None:
        self._texts = texts
        self.amounts = amounts if amounts is not None else {name: of(value) for name, value in texts.items()}

    def text(self, name: str, like: Any) -> str:
        if name in self._texts:
            return _text(self._texts[name])
        value = Fraction(self.amounts[name], 10**9)
        return format_binary(value) if str(like).endswith("i") else format_decimal(value)


def _bounds(limit: Object, requests: _Asked, limits: _Asked) -> Iterator[str]:
    kind = limit["type"]
    for least, bound in ((True, limit.get("min") or {}), (False, limit.get("max") or {})):
        word = "minimum" if least else "maximum"
        for name in sorted(bound):
            enforced, said = of(bound[name]), f"{word} {name} usage per {kind} is {_text(bound[name])}"
            # What must be there: a request for the minimum, a limit for the maximum.
            order = (("request", requests), ("limit", limits)) if least else (("limit", limits), ("request", requests))
            if name not in order[0][1].amounts:
                yield f"{said}.  No {order[0][0]} is specified"
                continue
            for what, asked in order:
                amount = asked.amounts.get(name)
                if amount is not None and (amount < enforced if least else amount > enforced):
                    yield f"{said}, but {what} is {asked.text(name, bound[name])}"
                    break
    ratios = limit.get("maxLimitRequestRatio") or {}
    for name in sorted(ratios):
        yield from _ratio(kind, name, ratios[name], requests.amounts.get(name, 0), limits.amounts.get(name, 0))


def _ratio(kind: str, name: str, most: Any, request: int, limit: int) -> Iterator[str]:
    said = f"{name} max limit to request ratio per {kind} is {_text(most)}, but"
    if not request:
        yield f"{said} no request is specified or request is 0"
    elif not limit:
        yield f"{said} no limit is specified or limit is 0"
    elif limit * 10**9 > of(most) * request:
        yield f"{said} provided ratio is {limit / request:f}"


def _claim(limit: Object, requests: Mapping[str, Any]) -> Iterator[str]:
    asked = _Asked(requests)
    yield from _bounds({"type": limit["type"], "min": limit.get("min")}, asked, _Asked({}))
    for name, value in sorted((limit.get("max") or {}).items()):
        said = f"maximum {name} usage per {limit['type']} is {_text(value)}"
        if name not in requests:
            yield f"{said}.  No request is specified"
        elif asked.amounts[name] > of(value):
            yield f"{said}, but request is {asked.text(name, value)}"


def _text(value: Any) -> str:
    try:
        return canonical(value)
    except QuantityError:
        return str(value)
