"""Every label, annotation and reason that the code knows is documented, and nothing else is.

The code is searched for strings of their form, so that a new one cannot be forgotten: it is either documented or
listed here as something else.
"""

from __future__ import annotations

import ast
import json
import re
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from glebe.apiserver.types.registry import TypeRegistry
from glebe.kube.crdgen import custom_resource_definition
from glebe.platform.views import State
from glebe.queueing import labels
from glebe.queueing.kinds import KINDS
from glebe.scheduling.model import Reason

ROOT = Path(__file__).resolve().parents[3]
SOURCE = ROOT / "src" / "glebe"

sys.path.insert(0, str(ROOT / "tools"))
try:
    import docs_words
finally:
    sys.path.pop(0)


def page(name: str) -> str:
    return (ROOT / "docs" / "reference" / name).read_text(encoding="utf-8")


def texts(path: Path) -> Iterator[str]:
    """String constants, docstrings left out by their form."""
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Constant) and isinstance(node.value, str):
            yield node.value


# --- labels and annotations

ROOMS = ("apiserver", "gpu", "kube", "node", "queueing", "metering", "platform", "workloads", "cli")
NAME = re.compile(
    r"(kueue\.x-k8s\.io|([a-z]+\.)?glebe\.dev|nvidia\.com|(batch|node)\.kubernetes\.io)/(?!v\d)[a-z][\w.-]*"
)


def names_in_code() -> set[str]:
    found = {v for v in vars(labels).values() if isinstance(v, str) and NAME.fullmatch(v)}
    for room in ROOMS:
        for path in (SOURCE / room).rglob("*.py"):
            found.update(text for text in texts(path) if NAME.fullmatch(text))
    return found


@pytest.mark.parametrize("name", sorted(names_in_code()))
def test_every_label_and_annotation_is_documented(name: str) -> None:
    assert f"| `{name}` |" in page("labels.md")


def test_documented_labels_exist() -> None:
    ours = {row[1] for _, _, rows in docs_words.LABEL_TABLES for row in rows if NAME.fullmatch(row[1])}
    assert ours - names_in_code() == set()


# --- reasons

#: Modules that write reasons into conditions, events and statuses.
WRITERS = (
    "node/status.py",
    "node/spec.py",
    "node/containers/**/*.py",
    "node/devices/*.py",
    "node/process/*.py",
    "node/simulated/*.py",
    "node/volumes/*.py",
    "queueing/*.py",
    *(
        f"queueing/{room}/*.py"
        for room in ("gatekeeping", "jobs", "life", "picture", "pods", "round", "telling", "tenants")
    ),
    "workloads/**/*.py",
)
#: Words of the API that look like reasons and are something else: types of conditions, plug-ins, codes of protocols.
OTHER_WORDS = frozenset(
    re.findall(
        r"\w+",
        """BlockUndeclared Class ConcurrentAdmission Creation DueTo ElasticJobsViaWorkloadSlicesWithTAS Enabled
        IgnoreUndeclared LeastLostWork LessThanInitialShare LessThanOrEqualToFinalShare MultiKueueOrchestratedPreemption
        Newest PriorityBoost RecomputeAssignmentUponPreemptionTargetsOverlap SkipReassignmentForPodOwnedWorkloads
        TopologyAwareScheduling
        Aborted Accept AdmissionReview Age AllContainersRestarting AlreadyExists Approved Authorization
        Background Canceled ClusterTrustBundle Cmd Conflict ContainerResource DataLoss Description
        DeviceFileMinor Disabled DisruptionAllowed DynamicResources Entrypoint Established ExposedPorts External
        FailedPrecondition False FieldValueTooMany Find Foreground HoldAndDrain Hostname Integration InterPodAffinity
        Internal InternalIP
        InvalidArgument Ki Liveness Max MaximumExecutionTimeExceeded Message Min NamespaceTerminating
        NodeResourcesFit NetworkUnavailable NodeUnschedulable Normal NotFound Nvidia Object
        Orphan OutOf
        OutOfRange Parent PermissionDenied PodGroup PodResizeInProgress PodResizePending PodTopologySpread
        Position PreferClose PreferSameNode PreferSameZone Progressing Queue Range Readiness ReplicaFailure
        Resize ResourceExhausted RestartContainer Rivals Startup StopSignal Tesla True TryNextFlavor
        Unauthenticated Unavailable Unimplemented Value VolumeBinding VolumeRestrictions Warning WorkingDir
        ConversionReview FieldValueNotSupported PendingWorkloadsSummary Success Webhook""",
    )
)
CAMEL = re.compile(r"[A-Z][a-z]+[A-Za-z]*")


def names_of_classes() -> set[str]:
    """Of the whole code: modules say in ``__all__`` and in annotations what they are about."""
    trees = (ast.parse(path.read_text(encoding="utf-8")) for path in SOURCE.rglob("*.py"))
    return {node.name for tree in trees for node in ast.walk(tree) if isinstance(node, ast.ClassDef)}


def kinds() -> set[str]:
    return {resource.kind for resource in TypeRegistry().resources("root")}


def values_of_fields() -> set[str]:
    """What the schemas of built-in kinds and of the queue's own enumerate."""
    found: set[str] = set()
    todo: list[Any] = [json.loads(p.read_text("utf-8")) for p in (SOURCE / "apiserver/data").glob("schema-*.json")]
    todo.extend(custom_resource_definition(kind) for kind in KINDS)
    while todo:
        node = todo.pop()
        if isinstance(node, dict):
            found.update(value for value in node.get("enum") or () if isinstance(value, str))
            todo.extend(node.values())
        elif isinstance(node, list):
            todo.extend(node)
    return found


def reasons_in_code() -> set[str]:
    paths = {path for pattern in WRITERS for path in SOURCE.glob(pattern)}
    found = {text for path in paths for text in texts(path) if CAMEL.fullmatch(text)}
    return found - OTHER_WORDS - kinds() - ((names_of_classes() | values_of_fields()) - documented_reasons())


def documented_reasons() -> set[str]:
    return {row[-2] for rows in docs_words.REASON_TABLES for row in rows}


def test_no_word_is_excused_that_the_code_does_not_write() -> None:
    paths = {path for pattern in WRITERS for path in SOURCE.glob(pattern)}
    assert {text for path in paths for text in texts(path)} >= OTHER_WORDS


@pytest.mark.parametrize("reason", sorted(reasons_in_code()))
def test_every_reason_is_documented(reason: str) -> None:
    assert re.search(rf"`{reason}`|\b{reason}\b[^|]* \|", page("reasons.md"))


def test_every_verdict_and_state_is_documented() -> None:
    assert set(docs_words.DECISIONS) == set(Reason)
    assert set(docs_words.STATES) == set(State)


def test_documented_reasons_exist() -> None:
    known = {text for path in SOURCE.rglob("*.py") for text in texts(path)}
    for rows in docs_words.REASON_TABLES:
        for row in rows:
            assert row[-2] in known or " " in row[-2], f"no code writes {row[-2]}"


def test_what_is_said_at_submission_is_what_the_code_says() -> None:
    code = " ".join(path.read_text(encoding="utf-8") for path in (SOURCE / "queueing").rglob("*.py"))
    for _, text, _ in docs_words.AT_SUBMISSION:
        said = text.replace("WorkloadPriorityClass", "{missing}").replace(
            "there is no {missing}", "there is no {missing}"
        )
        assert text in code or said in code, text
