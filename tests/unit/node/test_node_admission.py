"""What a node refuses, and in which words."""

from __future__ import annotations

from typing import Any

import pytest

from glebe.node.contracts import AdmissionError, ImageError
from glebe.node.process.admission import admit
from glebe.node.process.reasons import pull_back_off, trouble_of
from glebe.node.values.environment import ConfigError

NODE: dict[str, Any] = {
    "metadata": {"name": "n1", "labels": {"zone": "a", "gen": "4"}},
    "spec": {"taints": [{"key": "bad", "effect": "NoExecute"}, {"key": "soft", "effect": "NoSchedule"}]},
    "status": {"allocatable": {"cpu": "2", "memory": "4Gi", "nvidia.com/gpu": "1", "pods": "3"}},
}
TOLERANT = [{"key": "bad", "operator": "Exists"}]


def pod(requests: dict[str, str] | None = None, **spec: Any) -> dict[str, Any]:
    container: dict[str, Any] = {"name": "c", "resources": {"requests": requests or {}}}
    if "hostPort" in spec:
        container["ports"] = [{"containerPort": 1, "hostPort": spec.pop("hostPort"), **spec.pop("port", {})}]
    return {"metadata": {"name": "p"}, "spec": {"containers": [container], "tolerations": TOLERANT, **spec}}


def affinity(*terms: dict[str, Any]) -> dict[str, Any]:
    required = {"requiredDuringSchedulingIgnoredDuringExecution": {"nodeSelectorTerms": list(terms)}}
    return {"affinity": {"nodeAffinity": required}}


def expression(key: str, operator: str, *values: str) -> dict[str, Any]:
    return {"key": key, "operator": operator, "values": list(values)}


@pytest.mark.parametrize(
    ("name", "more", "taken"),
    [
        ("kernel.shm_rmid_forced", {}, True),
        ("net/ipv4/tcp_syncookies", {}, True),
        ("kernel.shm_rmid_forced", {"hostIPC": True}, False),
        ("net.ipv4.tcp_rmem", {"hostNetwork": True}, False),
        ("kernel.msgmax", {}, False),
        ("net.ipv4.ip_forward", {}, False),
        ("vm.swappiness", {}, False),
    ],
)
def test_only_safe_sysctls_of_the_pods_own_namespaces_are_set(name: str, more: dict[str, Any], taken: bool) -> None:
    asks = pod(securityContext={"sysctls": [{"name": name, "value": "1"}]}, **more)
    if taken:
        admit(asks, [], NODE)
        return
    with pytest.raises(AdmissionError, match="not allowlisted") as refused:
        admit(asks, [], NODE)
    assert refused.value.reason == "SysctlForbidden"


def test_what_fits_is_taken() -> None:
    other = pod({"cpu": "1"}, hostPort=80)
    fits = affinity(
        {"matchExpressions": [expression("zone", "In", "b")]},
        {"matchExpressions": [expression("gen", "Gt", "3")], "matchFields": [expression("metadata.name", "In", "n1")]},
    )
    admit(pod({"cpu": "1", "memory": "4Gi", "example.com/unknown": "7"}, hostPort=81, **fits), [other], NODE)
    admit(pod(hostPort=80, port={"protocol": "UDP"}), [other], NODE)
    at = [pod(hostPort=80, port={"hostIP": address}) for address in ("127.0.0.1", "10.0.0.1")]
    admit(at[0], [at[1]], NODE)


@pytest.mark.parametrize(
    ("asked", "others", "reason", "message"),
    [
        (
            pod({"cpu": "1500m"}),
            [pod({"cpu": "1"})],
            "OutOfcpu",
            "Node didn't have enough resource: cpu, requested: 1500, used: 1000, capacity: 2000",
        ),
        (pod({"memory": "5Gi"}), [], "OutOfmemory", "requested: 5368709120, used: 0, capacity: 4294967296"),
        (pod({"nvidia.com/gpu": "2"}), [], "OutOfnvidia.com/gpu", "requested: 2, used: 0, capacity: 1"),
        (pod(), [pod()] * 3, "OutOfpods", "requested: 1, used: 3, capacity: 3"),
        (pod(hostPort=80), [pod(hostPort=80)], "NodePorts", "node(s) didn't have free ports"),
        (pod(hostPort=80, port={"hostIP": "10.0.0.1"}), [pod(hostPort=80)], "NodePorts", "node(s) didn't have free"),
        (
            pod(nodeSelector={"zone": "b"}),
            [],
            "NodeAffinity",
            "Predicate NodeAffinity failed: node(s) didn't match Pod's node affinity/selector",
        ),
        (pod(**affinity({})), [], "NodeAffinity", "didn't match"),
        (pod(tolerations=[]), [], "TaintToleration", "had taints that the pod didn't tolerate"),
        (pod(os={"name": "windows"}), [], "PodOSNotSupported", "OS field doesn't match"),
    ],
)
def test_what_does_not_fit_is_refused(asked: Any, others: list[Any], reason: str, message: str) -> None:
    with pytest.raises(AdmissionError) as refusal:
        admit(asked, others, NODE)
    assert refusal.value.reason == reason
    assert message in str(refusal.value)


def test_why_a_container_does_not_start_is_said_as_users_know_it() -> None:
    config = trouble_of(ConfigError('secret "s" not found'), "img")
    assert (config.reason, config.events) == (
        "CreateContainerConfigError",
        (("Failed", 'Error: secret "s" not found'),),
    )
    full = trouble_of(OSError(28, "No space left on device", "/d/x"), "img")
    assert (full.reason, full.message) == ("CreateContainerError", "/d/x: no space left on device")
    pull = trouble_of(ImageError("ErrImagePull", "not found"), "img:1")
    assert pull.events == (("Failed", 'Failed to pull image "img:1": not found'), ("Failed", "Error: ErrImagePull"))
    later = pull_back_off("img:1", pull)
    assert (later.reason, later.message) == (
        "ImagePullBackOff",
        'Back-off pulling image "img:1": ErrImagePull: not found',
    )
    never = trouble_of(ImageError("ErrImageNeverPull", "not present"), "img")
    assert [reason for reason, _ in never.events] == ["ErrImageNeverPull", "Failed"]
    name = trouble_of(ImageError("InvalidImageName", "invalid reference format"), "IMG")
    assert name.message == 'Failed to apply default image tag "IMG": invalid reference format'
