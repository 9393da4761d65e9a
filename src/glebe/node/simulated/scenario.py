"""The scenario file: what befalls simulated nodes and pods. Pure; :mod:`.timeline` makes it happen.

All lengths and moments may be distributions. What is drawn depends on the scenario's seed and on the name of the node
or the uid of the pod alone, so that two runs see the same.
"""

from __future__ import annotations

import random
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from fnmatch import fnmatchcase
from pathlib import Path
from typing import Any, Final

import yaml

from glebe.kube.objects import Object, ObjectKey, annotations_of, labels_of
from glebe.node.simulated import plan, runtimes
from glebe.node.spec import POOL_LABEL, ROOT, NodeSpec
from glebe.node.values.fields import Fields, FleetError

API_VERSION: Final = "glebe.dev/v1alpha1"

FAIL, CUT_OFF, NOT_READY, SLOW_STATUS, XID, DRAIN = "fail", "cutOff", "notReady", "slowStatus", "xid", "drain"
#: What can befall a node, and the further fields that it takes.
DEEDS: Final[Mapping[str, tuple[str, ...]]] = {
    FAIL: (),
    CUT_OFF: (),
    NOT_READY: (),
    SLOW_STATUS: ("delay",),
    XID: ("code", "gpu"),
    DRAIN: (),
}
_NODE_FIELDS: Final = ("do", "pools", "names", "clusters", "share", "at", "for", "every")
#: Fields of a pod rule, and the annotations that say the same of one pod.
WISHES: Final[Mapping[str, str]] = {
    "startDelay": plan.START_DELAY,
    "imagePull": plan.IMAGE_PULL,
    "imagePullError": plan.IMAGE_PULL_ERROR,
    "readyAfter": plan.READY_AFTER,
    "runTime": plan.RUN_TIME,
    "failAfter": plan.FAIL_AFTER,
    "failTimes": plan.FAIL_TIMES,
    "exitCode": plan.EXIT_CODE,
    "exitReason": plan.EXIT_REASON,
    "initTime": plan.INIT_TIME,
    "initExitCode": plan.INIT_EXIT_CODE,
    "stopTime": plan.STOP_TIME,
}
_POD_FIELDS: Final = ("clusters", "namespaces", "names", "images", "labels", "share")


@dataclass(frozen=True, slots=True)
class NodeRule:
    """Something that befalls some nodes: first at ``at`` (after the start, or the coming of the cluster), for ``lasts``
    (``""``: for ever), and again ``every`` after its end (``""``: never)."""

    deed: str
    pools: tuple[str, ...] = ()
    names: tuple[str, ...] = ()
    clusters: tuple[str, ...] = ()
    share: float = 1.0
    at: str = ""
    lasts: str = ""
    every: str = ""
    delay: str = "0"
    code: int = 0
    gpu: int = 0

    def concerns(self, cluster: str, spec: NodeSpec, seed: str) -> bool:
        return (
            _any(self.clusters, cluster)
            and _any(self.pools, spec.labels.get(POOL_LABEL, ""))
            and _any(self.names, spec.name)
            and _drawn(self.share, f"{seed}/{cluster}/{spec.name}")
        )


@dataclass(frozen=True, slots=True)
class PodRule:
    """What some pods are to do, as annotations."""

    wishes: Mapping[str, str]
    clusters: tuple[str, ...] = ()
    namespaces: tuple[str, ...] = ()
    names: tuple[str, ...] = ()
    images: tuple[str, ...] = ()
    labels: Mapping[str, str] = field(default_factory=dict)
    share: float = 1.0

    def concerns(self, cluster: str, pod: Object, seed: str) -> bool:
        meta, labels = pod["metadata"], labels_of(pod)
        return (
            _any(self.clusters, cluster)
            and _any(self.namespaces, meta.get("namespace", ""))
            and _any(self.names, meta["name"])
            and (not self.images or any(_any(self.images, c.get("image", "")) for c in pod["spec"]["containers"]))
            and all(labels.get(key) == value for key, value in self.labels.items())
            and _drawn(self.share, f"{seed}/{meta['uid']}")
        )


@dataclass(frozen=True, slots=True)
class Scenario:
    """``seed`` decides what is drawn. Of several rules for pods the first that says something counts."""

    seed: int = 0
    nodes: Sequence[NodeRule] = ()
    pods: Sequence[PodRule] = ()

    def wishes(self, cluster: str, pod: Object) -> Mapping[str, str]:
        """The pod's annotations, and for what they do not say the rules'."""
        own = annotations_of(pod)
        if not self.pods:
            return own
        told: dict[str, str] = {}
        for number, rule in enumerate(self.pods):
            if rule.concerns(cluster, pod, f"{self.seed}/pods/{number}"):
                told = {**rule.wishes, **told}
        return {**told, **own}

    def draw(self, text: str, rule: int, node: ObjectKey, what: str, time: int) -> float:
        """A sample for the ``time``-th occurrence of a rule on a node."""
        return runtimes.sample(text, f"{self.seed}/nodes/{rule}/{node.cluster or ROOT}/{node.name}/{what}/{time}")


NO_SCENARIO: Final = Scenario()


def _any(patterns: Sequence[str], text: str) -> bool:
    return not patterns or any(fnmatchcase(text, pattern) for pattern in patterns)


def _drawn(share: float, seed: str) -> bool:
    return share >= 1.0 or random.Random(seed).random() < share


# --- the file


def load_scenario(path: Path | str) -> Scenario:
    """Read a scenario file.

    :raises FleetError: when it cannot be read or used; the message names file, field and remedy.
    """
    try:
        text = Path(path).read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        why = error.strerror if isinstance(error, OSError) else "it is not UTF-8 text"
        remedy = "check the path given to --scenario"
        raise FleetError(str(path), "", f"cannot read the scenario file: {why}", remedy) from None
    return parse_scenario(text, str(path))


def parse_scenario(text: str, file: str = "scenario") -> Scenario:
    """Parse the text of a scenario file; ``file`` is its name in errors.

    :raises FleetError: see :func:`load_scenario`.
    """
    try:
        document = yaml.safe_load(text)
    except yaml.YAMLError as error:
        mark = getattr(error, "problem_mark", None)
        where = f"line {mark.line + 1}, column {mark.column + 1}" if mark else ""
        raise FleetError(file, where, f"not YAML: {getattr(error, 'problem', error)}", "correct the syntax") from None
    root = Fields(file, "", document if document is not None else {})
    root.only("apiVersion", "kind", "metadata", "seed", "nodes", "pods")
    for key, wanted in (("apiVersion", API_VERSION), ("kind", "Scenario")):
        if root.text(key, "") != wanted:
            raise root.error(key, f'must be "{wanted}"', f'write "{key}: {wanted}"')
    return Scenario(
        root.integer("seed", 0, high=2**53),
        tuple(_node_rule(Fields(file, f"nodes[{i}]", value)) for i, value in enumerate(root.items("nodes"))),
        tuple(_pod_rule(Fields(file, f"pods[{i}]", value)) for i, value in enumerate(root.items("pods"))),
    )


def _node_rule(rule: Fields) -> NodeRule:
    deed = rule.text("do")
    if deed not in DEEDS:
        raise rule.error("do", f'"{deed}" is nothing that can befall a node', f"use one of {', '.join(DEEDS)}")
    rule.only(*_NODE_FIELDS, *DEEDS[deed])
    made = NodeRule(
        deed=deed,
        pools=_texts(rule, "pools"),
        names=_texts(rule, "names"),
        clusters=_texts(rule, "clusters"),
        share=_share(rule),
        at=_length(rule, "at"),
        lasts=_length(rule, "for"),
        every=_length(rule, "every"),
        delay=_length(rule, "delay", required=deed == SLOW_STATUS),
        code=rule.integer("code", low=1, high=10_000) if deed == XID else 0,
        gpu=rule.integer("gpu", 0, high=71) if deed == XID else 0,
    )
    if made.every and not made.lasts and deed != XID:
        raise rule.error("every", "what never ends cannot come again", 'say how long it lasts: "for: 30s"')
    return made


def _pod_rule(rule: Fields) -> PodRule:
    rule.only(*_POD_FIELDS, *WISHES)
    wishes = {WISHES[key]: str(rule.value[key]) for key in WISHES if rule.value.get(key) is not None}
    if not wishes:
        raise rule.error("", "says nothing", f"give one of {', '.join(WISHES)}")
    for key in WISHES:
        try:
            plan.Plan.of({name: text for name, text in wishes.items() if name == WISHES[key]}, "")
        except ValueError as error:
            problem, _, remedy = str(error).partition(": ")[2].partition(": ")
            raise rule.error(key, problem, remedy) from None
    return PodRule(
        wishes,
        clusters=_texts(rule, "clusters"),
        namespaces=_texts(rule, "namespaces"),
        names=_texts(rule, "names"),
        images=_texts(rule, "images"),
        labels=rule.string_map("labels"),
        share=_share(rule),
    )


def _texts(rule: Fields, key: str) -> tuple[str, ...]:
    items = rule.items(key)
    for i, item in enumerate(items):
        if not isinstance(item, str):
            raise rule.error(f"{key}[{i}]", "must be text", f'write it in quotes: "{item}"')
    return tuple(items)


def _share(rule: Fields) -> float:
    value: Any = rule.value.get("share", 1.0)
    if isinstance(value, bool) or not isinstance(value, int | float) or not 0 < value <= 1:
        raise rule.error("share", f"{value} is no share", "give a number above 0, at most 1: 0.1 is one of ten")
    return float(value)


def _length(rule: Fields, key: str, *, required: bool = False) -> str:
    value = rule.value.get(key)
    if value is None:
        if required:
            raise rule.error(key, "is required", runtimes.HELP)
        return ""
    try:
        runtimes.check(str(value))
    except ValueError as error:
        raise rule.error(key, str(error).partition(": ")[0], runtimes.HELP) from None
    return str(value)
