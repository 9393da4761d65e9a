"""Built-in kinds: decoding, defaults and validation, held against what a kube-apiserver 1.36 answered."""

from __future__ import annotations

import copy
import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from glebe.apiserver.types.defaults import apply_defaults
from glebe.apiserver.types.prune import prune
from glebe.apiserver.types.registry import ResourceInfo, TypeRegistry, builtins
from glebe.apiserver.types.validation import validate
from glebe.kube.errors import ApiError

REGISTRY = TypeRegistry()


def info(group: str, plural: str, version: str = "v1") -> ResourceInfo:
    found = REGISTRY.lookup("root", group, version, plural)
    assert found is not None
    return found


JOBS, PODS = info("batch", "jobs"), info("", "pods")


def job(**spec: Any) -> dict[str, Any]:
    template = {"spec": {"restartPolicy": "Never", "containers": [{"name": "c", "image": "i"}]}}
    return {
        "apiVersion": "batch/v1",
        "kind": "Job",
        "metadata": {"name": "j", "uid": "u1"},
        "spec": {"template": template, **spec},
    }


def pod(**spec: Any) -> dict[str, Any]:
    containers = [{"name": "c", "image": "i"}]
    return {
        "apiVersion": "v1",
        "kind": "Pod",
        "metadata": {"name": "p"},
        "spec": {"containers": containers, **spec},
    }


def container(**fields: Any) -> list[dict[str, Any]]:
    return [{"name": "c", "image": "i", **fields}]


def faults(kind: ResourceInfo, obj: dict[str, Any], old: dict[str, Any] | None = None) -> list[str]:
    prune(kind, obj)
    apply_defaults(kind, obj)
    return [c.text() for c in validate(kind, obj, old)]


def test_every_builtin_has_a_schema_that_names_its_metadata() -> None:
    for kind in builtins():
        assert kind.schema is not None, kind
        if kind.plural not in ("selfsubjectreviews", "tokenreviews"):
            assert "metadata" in kind.schema.fields, kind


def test_the_generated_data_is_up_to_date() -> None:
    root = Path(__file__).parents[3]
    pytest.importorskip("kubernetes_validate")
    done = subprocess.run(
        [sys.executable, "tools/gen_types.py", "--check"], cwd=root, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stdout + done.stderr


def test_merge_facts_of_a_pod() -> None:
    spec = PODS.schema.field("spec")  # type: ignore[union-attr]
    assert spec is not None
    containers = spec.field("containers")
    assert containers is not None
    assert (containers.list_type, containers.list_keys) == ("map", ("name",))
    assert (containers.patch_strategy, containers.patch_merge_key) == (("merge",), "name")
    ports = containers.items.field("ports") if containers.items else None
    assert ports is not None
    assert ports.list_keys == ("containerPort", "protocol")
    assert spec.field("tolerations").list_type == "atomic"  # type: ignore[union-attr]


# ---------------------------------------------------------------------------------------------------------- decoding


@pytest.mark.parametrize(
    ("obj", "why"),
    [
        (
            job(parallelism="x"),
            "json: cannot unmarshal string into Go struct field JobSpec.spec.parallelism of type int32",
        ),
        (
            job(parallelism=1.5),
            "cannot unmarshal number 1.5 into Go struct field JobSpec.spec.parallelism of type int32",
        ),
        (job(suspend="x"), "json: cannot unmarshal string into Go struct field JobSpec.spec.suspend of type bool"),
        (job(template=[]), "array into Go struct field JobSpec.spec.template of type v1.PodTemplateSpec"),
    ],
)
def test_wrong_types_are_refused_as_upstream_words_it(obj: dict[str, Any], why: str) -> None:
    with pytest.raises(ApiError) as caught:
        prune(JOBS, obj)
    assert caught.value.code == 400
    assert caught.value.message.startswith('Job in version "v1" cannot be handled as a Job: ')
    assert caught.value.message.endswith(why)


def test_quantities_and_times_are_checked_and_a_bare_number_is_a_quantity() -> None:
    bad = pod(containers=container(resources={"limits": {"cpu": "x y"}}))
    with pytest.raises(ApiError, match="quantities must match the regular expression") as caught:
        prune(PODS, bad)
    assert caught.value.message.endswith(': spec.containers[0].resources.limits.cpu: "x y"')
    late = pod()
    late["metadata"]["creationTimestamp"] = "x"
    with pytest.raises(ApiError, match="parsing time"):
        prune(PODS, late)
    good = pod(containers=container(resources={"limits": {"cpu": 2}}))
    assert prune(PODS, good) == []
    assert good["spec"]["containers"][0]["resources"]["limits"] == {"cpu": "2"}


def test_unknown_fields_are_dropped_and_named_with_their_paths() -> None:
    obj = job(foo=1, template={"spec": {"containers": [{"name": "c", "image": "i", "imagge": 1}], "bar": {}}})
    assert prune(JOBS, obj) == ["spec.template.spec.containers[0].imagge", "spec.template.spec.bar", "spec.foo"]
    assert prune(JOBS, obj) == []


def test_nulls_and_empty_optional_lists_go() -> None:
    obj = pod(nodeName=None, tolerations=[], nodeSelector={})
    prune(PODS, obj)
    assert set(obj["spec"]) == {"containers"}


# ---------------------------------------------------------------------------------------------------------- defaults


def test_defaults_of_a_job_and_its_generated_selector() -> None:
    obj = job()
    apply_defaults(JOBS, obj)
    spec = obj["spec"]
    assert {k: spec[k] for k in spec if k not in ("template", "selector")} == {
        "parallelism": 1,
        "completions": 1,
        "backoffLimit": 6,
        "completionMode": "NonIndexed",
        "suspend": False,
        "manualSelector": False,
        "podReplacementPolicy": "TerminatingOrFailed",
    }
    assert spec["selector"] == {"matchLabels": {"batch.kubernetes.io/controller-uid": "u1"}}
    assert spec["template"]["metadata"]["labels"] == {
        "batch.kubernetes.io/controller-uid": "u1",
        "batch.kubernetes.io/job-name": "j",
        "controller-uid": "u1",
        "job-name": "j",
    }
    assert "requests" not in spec["template"]["spec"]["containers"][0]["resources"]


def test_defaults_of_a_pod() -> None:
    obj = pod(containers=container(image="registry/i:v1", resources={"limits": {"cpu": "1"}}))
    apply_defaults(PODS, obj)
    spec = obj["spec"]
    assert spec["containers"][0]["resources"] == {"limits": {"cpu": "1"}, "requests": {"cpu": "1"}}
    assert spec["containers"][0]["imagePullPolicy"] == "IfNotPresent"
    assert (spec["restartPolicy"], spec["dnsPolicy"], spec["terminationGracePeriodSeconds"]) == (
        "Always",
        "ClusterFirst",
        30,
    )
    assert (spec["schedulerName"], spec["securityContext"], spec["enableServiceLinks"]) == (
        "default-scheduler",
        {},
        True,
    )


# -------------------------------------------------------------------------------------------------------- validation

_GPU = "nvidia.com/gpu"


@pytest.mark.parametrize(
    ("spec", "want"),
    [
        ({"containers": []}, "spec.containers: Required value"),
        ({"containers": container() * 2}, 'spec.containers[1].name: Duplicate value: "c"'),
        ({"containers": [{"name": "c"}]}, "spec.containers[0].image: Required value"),
        (
            {"containers": container(resources={"limits": {"cpu": "1"}, "requests": {"cpu": "2"}})},
            'spec.containers[0].resources.requests: Invalid value: "2": must be less than or equal to cpu limit of 1',
        ),
        (
            {"containers": container(resources={"requests": {_GPU: "1"}})},
            "spec.containers[0].resources.limits: Required value: Limit must be set for non overcommitable resources",
        ),
        (
            {"containers": container(resources={"limits": {_GPU: "2"}, "requests": {_GPU: "1"}})},
            f'spec.containers[0].resources.requests: Invalid value: "1": must be equal to {_GPU} limit of 2',
        ),
        (
            {"containers": container(volumeMounts=[{"name": "v", "mountPath": "/x"}])},
            'spec.containers[0].volumeMounts[0].name: Not found: "v"',
        ),
        (
            {"activeDeadlineSeconds": 0},
            "spec.activeDeadlineSeconds: Invalid value: 0: must be between 1 and 2147483647, inclusive",
        ),
        (
            {"tolerations": [{"key": "a", "tolerationSeconds": 3}]},
            'spec.tolerations[0].effect: Invalid value: "": '
            "effect must be 'NoExecute' when `tolerationSeconds` is set",
        ),
        (
            {"containers": container(imagePullPolicy="x")},
            'spec.containers[0].imagePullPolicy: Unsupported value: "x": '
            'supported values: "Always", "IfNotPresent", "Never"',
        ),
    ],
)
def test_pod_rules(spec: dict[str, Any], want: str) -> None:
    assert faults(PODS, pod(**spec)) == [want]


def test_an_extended_resource_comes_whole() -> None:
    assert faults(PODS, pod(containers=container(resources={"limits": {_GPU: "1500m"}}))) == [
        f'spec.containers[0].resources.limits[{_GPU}]: Invalid value: "1500m": must be an integer',
        f'spec.containers[0].resources.requests[{_GPU}]: Invalid value: "1500m": must be an integer',
    ]


@pytest.mark.parametrize(
    ("spec", "want"),
    [
        ({"parallelism": -1}, "spec.parallelism: Invalid value: -1: must be greater than or equal to 0"),
        (
            {"template": {"spec": {"containers": container()}}},
            'spec.template.spec.restartPolicy: Required value: valid values: "OnFailure", "Never"',
        ),
        ({"backoffLimitPerIndex": 1}, "spec.backoffLimitPerIndex: Invalid value: 1: requires indexed completion mode"),
        (
            {"managedBy": "x"},
            'spec.managedBy: Invalid value: "x": must be a domain-prefixed path (such as "acme.io/foo")',
        ),
        (
            {"completionMode": "Indexed", "completions": 3, "parallelism": 200000},
            "spec.parallelism: Invalid value: 200000: "
            "must be less than or equal to 100000 when completion mode is Indexed",
        ),
    ],
)
def test_job_rules(spec: dict[str, Any], want: str) -> None:
    assert faults(JOBS, job(**spec)) == [want]


def test_what_may_change_in_a_job() -> None:
    old = job(suspend=True, completions=2)
    assert faults(JOBS, old) == []
    queued = copy.deepcopy(old)
    queued["spec"]["suspend"] = False
    queued["spec"]["template"]["spec"]["nodeSelector"] = {"rack": "r1"}
    assert faults(JOBS, queued, old) == []
    other = copy.deepcopy(old)
    other["spec"]["template"]["spec"]["containers"][0]["image"] = "other"
    assert [f.split(":")[0] for f in faults(JOBS, other, old)] == ["spec.template"]
    started = {**copy.deepcopy(old), "status": {"startTime": "2026-01-01T00:00:00Z"}}
    assert [f.split(":")[0] for f in faults(JOBS, queued, started)] == ["spec.template"]
    more = copy.deepcopy(old)
    more["spec"]["completions"] = 3
    assert faults(JOBS, more, old) == ["spec.completions: Invalid value: 3: field is immutable"]


def test_names_and_labels() -> None:
    obj = pod()
    obj["metadata"] = {"name": "A_b", "labels": {"a": "x y"}}
    texts = faults(PODS, obj)
    assert texts[0].startswith('metadata.name: Invalid value: "A_b": a lowercase RFC 1123 subdomain must consist of')
    assert texts[1].startswith('metadata.labels: Invalid value: "x y": a valid label must be an empty string')
    assert faults(PODS, {**pod(), "metadata": {}}) == [
        "metadata.name: Required value: name or generateName is required"
    ]


_NAMES = st.sampled_from(["a", "b-1", "x.y"])
_POD_SPECS = st.fixed_dictionaries(
    {},
    optional={
        "nodeName": _NAMES,
        "tolerations": st.lists(st.fixed_dictionaries({"key": _NAMES}), max_size=2),
        "hostNetwork": st.booleans(),
        "volumes": st.lists(st.fixed_dictionaries({"name": _NAMES}), max_size=2, unique_by=lambda v: v["name"]),
        "terminationGracePeriodSeconds": st.integers(0, 100),
        "unknownThing": st.integers(),
        "nodeSelector": st.dictionaries(_NAMES, _NAMES, max_size=2),
    },
)


@settings(max_examples=60, deadline=None)
@given(_POD_SPECS, st.booleans())
def test_pruning_and_defaulting_settle_at_once(spec: dict[str, Any], as_job: bool) -> None:
    kind, obj = (JOBS, job(template={"spec": pod(**spec)["spec"]})) if as_job else (PODS, pod(**spec))
    unknown = prune(kind, obj)
    assert bool(unknown) == ("unknownThing" in spec)
    apply_defaults(kind, obj)
    once = json.dumps(obj)
    assert prune(kind, obj) == []
    apply_defaults(kind, obj)
    assert json.dumps(obj) == once


def test_older_releases_are_data() -> None:
    """In a process of its own: one process serves one release."""
    root = Path(__file__).resolve().parents[3]
    script = """
import asyncio
from glebe.apiserver.discovery import health
from glebe.apiserver.discovery.openapi import documents
from glebe.apiserver.types import release
release.use("1.35")
from glebe.apiserver.types.registry import TypeRegistry
from glebe.apiserver.types.schema import definition
registry = TypeRegistry()
policies = ("admissionregistration.k8s.io", "v1", "mutatingadmissionpolicies")
assert registry.lookup("root", *policies) is None
assert registry.lookup("root", "apps", "v1", "deployments") is not None
assert health.version()["minor"] == "35"
assert "schedulingGroup" not in definition("io.k8s.api.core.v1.PodSpec").fields
assert b'"version":"1.35"' in asyncio.run(documents.v2(registry, "root"))
try:
    release.use("1.34")
except ValueError as error:
    assert str(error) == "this process serves Kubernetes 1.35 already"
else:
    raise AssertionError("two releases")
"""
    done = subprocess.run([sys.executable, "-c", script], cwd=root, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr


def test_older_releases_are_as_their_tool_makes_them() -> None:
    pytest.importorskip("kubernetes_validate", reason="the packages that the data is made from are not installed")
    root = Path(__file__).resolve().parents[3]
    stale = subprocess.run(
        [sys.executable, "tools/gen_release.py", "1.35", "1.34", "--check"],
        cwd=root,
        capture_output=True,
        text=True,
        check=False,
    )
    assert stale.returncode == 0, stale.stdout + stale.stderr
