"""The rules of :mod:`.pods.holding` as admission policies in CEL, for a Kubernetes that is not embedded.

CEL cannot look up a pod group of another scheduler, nor hash a pod's spec: words of KAI and Volcano are understood
there as far as they stand on the pod, and a pod's role is told when it is first seen.
"""

from __future__ import annotations

from glebe.kube import resources as r
from glebe.kube.objects import Object
from glebe.queueing import labels
from glebe.queueing.gatekeeping.policyparts import binding, gated, labelled, mutating, not_a_part
from glebe.queueing.jobkinds.registry import shipped
from glebe.queueing.jobs.integrations import Integration
from glebe.queueing.pods.holding import parent_word

_QUEUE = f'object.metadata.?labels["{labels.QUEUE_NAME}"].orValue("")'
_KAI = f'object.metadata.?labels["{labels.KAI_QUEUE}"].orValue("")'
_VOLCANO = f'object.metadata.?annotations["{labels.VOLCANO_QUEUE}"].orValue("")'
_PARENT = f'object.metadata.?annotations["{labels.SUSPENDING_PARENT}"].orValue("")'
_PODS = [("", r.PODS.version, r.PODS.plural)]


def objects(version: str = "v1") -> list[Object]:
    """Policies and bindings for pods, and for the kinds that are held by them."""
    free = '!has(object.spec.nodeName) || object.spec.nodeName == ""'
    alone = {"parent": f'{_PARENT} == ""', "part": not_a_part(), "unbound": free}
    named = f'({_QUEUE} != "" ? {_QUEUE} : ({_KAI} != "" ? {_KAI} : {_VOLCANO}))'
    own = [
        *labelled("object", "", ((labels.QUEUE_NAME, named), (labels.MANAGED, '"true"'))),
        _finalizer(),
        gated("object.spec", "/spec", (labels.ADMISSION_GATE, labels.GATE)),
    ]
    wants = {"queue": f'{_QUEUE} != "" || {_KAI} != "" || {_VOLCANO} != ""', **alone}
    of_parent = [gated("object.spec", "/spec", (labels.ADMISSION_GATE, labels.GATE))]
    out = [
        mutating(version, "glebe-queue-pods", _PODS, ("CREATE",), wants, ["\n+ ".join(own)]),
        binding(version, "glebe-queue-pods", {}),
        mutating(
            version,
            "glebe-queue-pods-of-parents",
            _PODS,
            ("CREATE",),
            {"parent": f'{_PARENT} != ""', "unbound": free},
            of_parent,
        ),
        binding(version, "glebe-queue-pods-of-parents", {}),
    ]
    for kind in shipped():
        if kind.held_by_pods and kind.resource != r.PODS:
            out.extend(_of_kind(kind, version))
    return out


def _of_kind(kind: Integration, version: str) -> list[Object]:
    name = f"glebe-queue-{kind.resource.plural}"
    rules = [(kind.resource.group, kind.resource.version, kind.resource.plural)]
    patches = []
    for rule in kind.pod_sets:
        template, path = "object." + ".".join(rule.template), "/" + "/".join(rule.template)
        notes = [(labels.SUSPENDING_PARENT, f'"{parent_word(kind)}"')]
        own = [(labels.QUEUE_NAME, _QUEUE)]
        if kind.held_by_pods == "each":
            own.append((labels.MANAGED, '"true"'))
        elif kind.held_by_pods == "groups":
            notes.append((labels.POD_GROUP_SERVING, '"true"'))
        parts = labelled(template, path, notes, "annotations")
        parts += labelled(template, path, own)[1:]
        text = "\n+ ".join(parts)
        patches.append(f"(!has({template}) ? [] : ({text}))" if kind.crd else text)
    when = {"queue": f'{_QUEUE} != ""', "part": not_a_part()}
    made = mutating(version, name, rules, ("CREATE", "UPDATE"), when, patches)
    return [made, binding(version, name, {})]


def _finalizer() -> str:
    add = 'JSONPatch{op: "add", path: "/metadata/finalizers%s", value: %s}'
    first = add % ("", f'["{labels.MANAGED_FINALIZER}"]')
    more = add % ("/-", f'"{labels.MANAGED_FINALIZER}"')
    have = f'object.metadata.finalizers.exists(f, f == "{labels.MANAGED_FINALIZER}")'
    return f"(!has(object.metadata.finalizers) ? [{first}] : ({have} ? [] : [{more}]))"
