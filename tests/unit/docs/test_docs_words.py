"""Every label, annotation and reason that the code knows is documented, and nothing else is.

The code is searched for strings of their form, so that a new one cannot be forgotten: it is either documented or
listed here as something else.
"""

from __future__ import annotations

import ast
import re
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from glebe.platform.views import State
from glebe.queueing import labels
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

ROOMS = ("gpu", "node", "queueing", "metering", "platform", "workloads", "cli")
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
    "workloads/**/*.py",
)
#: Words of the API that look like reasons and are something else.
OTHER_WORDS = frozenset(
    re.findall(
        r"\w+",
        """Always Never OnFailure True False Unknown None Normal Warning Pending Running Succeeded Failed
        BestEffort Burstable Guaranteed FallbackToLogsOnError NoExecute NoSchedule Background Foreground Count
        FailJob FailIndex Replace Forbid HoldAndDrain MaximumExecutionTimeExceeded Conflict PodReadyToStartContainers
        Job Pod Node Lease Port Binding Hostname InternalIP Endpoints PodDisruptionBudget PodTopologySpread
        PersistentVolume PersistentVolumeClaim StorageClass NamespaceTerminating Available Progressing ReplicaFailure
        DisruptionAllowed Accept Authorization Cmd Entrypoint Env ExposedPorts Range StopSignal User WorkingDir
        Aborted AlreadyExists Canceled DataLoss FailedPrecondition Internal InvalidArgument NotFound OutOfRange
        PermissionDenied ResourceExhausted Unauthenticated Unavailable Unimplemented AllContainersRestarting
        PodResizePending PodResizeInProgress RestartContainer Liveness Readiness Startup Equal Exists OutOf Resize Ki
        IfNotPresent RuntimeClass ServiceCIDR
        AdmissionReview Age Allow Approved Binder Block BlockDevice Bound CertificateSigningRequest CharDevice Choice
        ClusterTrustBundle Cohort Container ContainerResource Delete Denied Deny Description DeviceClass
        DeviceFileMinor Directory DirectoryOrCreate Disabled DoNotSchedule DoesNotExist DynamicResources EndpointSlice
        Eviction External ExternalName Fail FieldValueInvalid File FileOrCreate Filesystem FromClaim FromClass Gt
        Honor HorizontalPodAutoscaler IfNeeded Ignore Indexed InlinePlanner InterPodAffinity Lost Lt Max Message Min
        MutatingAdmissionPolicy MutatingAdmissionPolicyBinding Namespace Needs NoAdmissionFairSharing NodeResourcesFit
        NodeUnschedulable NotIn Nvidia Object OnRootMismatch Orphan Parallel Parent Planner PodGroup Position
        PreferClose PreferNoSchedule PreferSameNode PreferSameZone Priority ProcessPlanner Queue Queueing
        ReadWriteOnce ReadWriteOncePod Reason Recycle Released Resource ResourceClaim ResourceClaimTemplate
        ResourceSlice Retain Rivals RollingUpdate Scenario ScheduleAnyway ServiceAccount Socket Strategy
        SubjectAccessReview Tesla Topology TryNextFlavor ValidatingAdmissionPolicy ValidatingAdmissionPolicyBinding
        Value VolumeAttributesClass VolumeBinding VolumeRestrictions
        Abilities BrokenImage CannotExecute Containers ImageError NotRunning PullError Supervisor Usage""",
    )
)
CAMEL = re.compile(r"[A-Z][a-z]+[A-Za-z]*")


def reasons_in_code() -> set[str]:
    paths = {path for pattern in WRITERS for path in SOURCE.glob(pattern)}
    found = {text for path in paths for text in texts(path) if CAMEL.fullmatch(text)}
    return found - OTHER_WORDS


@pytest.mark.parametrize("reason", sorted(reasons_in_code()))
def test_every_reason_is_documented(reason: str) -> None:
    assert re.search(rf"`{reason}`|\b{reason}\b[^|]* \|", page("reasons.md"))


def test_every_verdict_and_state_is_documented() -> None:
    assert set(docs_words.DECISIONS) == set(Reason)
    assert set(docs_words.STATES) == set(State)


def test_documented_reasons_exist() -> None:
    tables = (
        docs_words.WORKLOAD,
        docs_words.QUEUES,
        docs_words.EVENTS,
        docs_words.JOB,
        docs_words.PODS,
        docs_words.APPS,
    )
    tables += (docs_words.NODE_REASONS, docs_words.NAMESPACES, docs_words.VOLUMES)
    known = {text for path in SOURCE.rglob("*.py") for text in texts(path)}
    for rows in tables:
        for row in rows:
            assert row[-2] in known or " " in row[-2], f"no code writes {row[-2]}"


def test_what_is_said_at_submission_is_what_the_code_says() -> None:
    code = " ".join(path.read_text(encoding="utf-8") for path in (SOURCE / "queueing").glob("*.py"))
    for _, text, _ in docs_words.AT_SUBMISSION:
        said = text.replace("WorkloadPriorityClass", "{missing}").replace(
            "there is no {missing}", "there is no {missing}"
        )
        assert text in code or said in code, text
