"""Pod Security Standards: what each level refuses, in which words, and what a namespace's labels say."""

from __future__ import annotations

from typing import Any

import pytest
from admission_world import container, pod, refused, serve, thing

from glebe.apiserver.admission.podsecurity.policy import LevelVersion, Policy, read
from glebe.apiserver.admission.podsecurity.standards import violations
from glebe.apiserver.assembly import ServerOptions
from glebe.kube.client import Client
from glebe.kube.errors import ApiError
from glebe.kube.inprocess import InProcessTransport
from glebe.kube.resources import JOBS, NAMESPACES, PODS

LABEL = "pod-security.kubernetes.io/"
HARDENED = {
    "allowPrivilegeEscalation": False,
    "capabilities": {"drop": ["ALL"]},
    "runAsNonRoot": True,
    "seccompProfile": {"type": "RuntimeDefault"},
}


def spec(**rest: Any) -> dict[str, Any]:
    return {"containers": [{"name": "c", "image": "x", **rest.pop("container", {})}], **rest}


def secure(**rest: Any) -> dict[str, Any]:
    return {"securityContext": {**HARDENED, **rest}}


def texts(level: str, minor: int | None, body: dict[str, Any], **meta: Any) -> list[str]:
    return [v.text() for v in violations(level, minor, meta, body)]


def context(**rest: Any) -> dict[str, Any]:
    return spec(container={"securityContext": rest})


@pytest.mark.parametrize(
    ("body", "text"),
    [
        (spec(hostNetwork=True, hostIPC=True), "host namespaces (hostNetwork=true, hostIPC=true)"),
        (context(privileged=True), 'privileged (container "c" must not set securityContext.privileged=true)'),
        (
            context(capabilities={"add": ["NET_RAW", "CHOWN"]}),
            'non-default capabilities (container "c" must not include "NET_RAW" in securityContext.capabilities.add)',
        ),
        (
            spec(volumes=[{"name": "a", "hostPath": {"path": "/"}}, {"name": "b", "hostPath": {"path": "/"}}]),
            'hostPath volumes (volumes "a", "b")',
        ),
        (
            spec(container={"ports": [{"hostPort": 80}, {"hostPort": 8}]}),
            'hostPort (container "c" uses hostPorts 8, 80)',
        ),
        (
            spec(container={"livenessProbe": {"httpGet": {"host": "10.0.0.1"}}}),
            'probe or lifecycle host (container "c" uses probe or lifecycle host "10.0.0.1")',
        ),
        (
            context(procMount="Unmasked"),
            'procMount (container "c" must not set securityContext.procMount to "Unmasked")',
        ),
        (
            spec(securityContext={"seLinuxOptions": {"type": "x", "user": "u"}}),
            'seLinuxOptions (pod set forbidden securityContext.seLinuxOptions: type "x"; user may not be set)',
        ),
        (
            spec(securityContext={"seccompProfile": {"type": "Unconfined"}}),
            'seccompProfile (pod must not set securityContext.seccompProfile.type to "Unconfined")',
        ),
        (spec(securityContext={"sysctls": [{"name": "a"}, {"name": "b"}]}), "forbidden sysctls (a, b)"),
        (
            spec(securityContext={"windowsOptions": {"hostProcess": True}}),
            "hostProcess (pod must not set securityContext.windowsOptions.hostProcess=true)",
        ),
        (
            spec(securityContext={"appArmorProfile": {"type": "Unconfined"}}),
            'forbidden AppArmor profile (pod must not set AppArmor profile type to "Unconfined")',
        ),
    ],
)
def test_baseline(body: dict[str, Any], text: str) -> None:
    assert texts("baseline", None, body) == [text]
    assert texts("privileged", None, body) == []
    assert texts("baseline", None, spec()) == []


@pytest.mark.parametrize(
    ("change", "text"),
    [
        (
            {"allowPrivilegeEscalation": None},
            'allowPrivilegeEscalation != false (container "c" must set securityContext.allowPrivilegeEscalation=false)',
        ),
        (
            {"capabilities": {"add": ["CHOWN"]}},
            'unrestricted capabilities (container "c" must set securityContext.capabilities.drop=["ALL"]; '
            'container "c" must not include "CHOWN" in securityContext.capabilities.add)',
        ),
        (
            {"runAsNonRoot": None},
            'runAsNonRoot != true (pod or container "c" must set securityContext.runAsNonRoot=true)',
        ),
        (
            {"runAsNonRoot": False},
            'runAsNonRoot != true (container "c" must not set securityContext.runAsNonRoot=false)',
        ),
        ({"runAsUser": 0}, 'runAsUser=0 (container "c" must not set runAsUser=0)'),
        (
            {"seccompProfile": None},
            'seccompProfile (pod or container "c" must set securityContext.seccompProfile.type to "RuntimeDefault" or '
            '"Localhost")',
        ),
    ],
)
def test_restricted(change: dict[str, Any], text: str) -> None:
    assert texts("restricted", None, spec(container=secure(**change))) == [text]
    assert texts("restricted", None, spec(container=secure())) == []


def test_restricted_volumes() -> None:
    body = spec(container=secure(), volumes=[{"name": "a", "nfs": {}}, {"name": "b", "emptyDir": {}}])
    assert texts("restricted", None, body) == ['restricted volume types (volume "a" uses restricted volume type "nfs")']


def test_versions_differ() -> None:
    probing = spec(container={"livenessProbe": {"tcpSocket": {"host": "h"}}})
    assert texts("baseline", 33, probing) == []
    assert texts("baseline", 99, probing) != []
    ports = spec(securityContext={"sysctls": [{"name": "net.ipv4.ip_local_reserved_ports"}]})
    assert texts("baseline", 26, ports) != []
    assert texts("baseline", 27, ports) == []
    root = spec(container=secure(runAsNonRoot=None, runAsUser=0), hostUsers=False)
    assert len(texts("restricted", 34, root)) == 2
    assert texts("restricted", 35, root) == []
    windows = spec(os={"name": "windows"}, securityContext={"runAsNonRoot": True})
    assert len(texts("restricted", 24, windows)) == 3
    assert texts("restricted", 25, windows) == []
    notes = {"seccomp.security.alpha.kubernetes.io/pod": "unconfined"}
    assert texts("baseline", 18, spec(), annotations=notes) == [
        'seccompProfile (forbidden annotation seccomp.security.alpha.kubernetes.io/pod="unconfined")'
    ]
    assert texts("baseline", 19, spec(), annotations=notes) == []


def test_labels() -> None:
    def of(**labels: str) -> Policy:
        return read({LABEL + k.replace("_", "-"): v for k, v in labels.items()}, Policy())[0]

    assert of(enforce="baseline").warn == LevelVersion("baseline", None)
    assert of(enforce="restricted", enforce_version="v1.20").warn == LevelVersion("restricted", 20)
    assert of(enforce="restricted", warn="privileged").warn.level == "privileged"
    assert of(enforce="odd") == Policy(enforce=LevelVersion("restricted", None))
    assert of(warn="odd", audit="odd") == Policy()


async def world(options: ServerOptions | None = None) -> tuple[Client, list[str]]:
    server, _ = await serve(options)
    warnings: list[str] = []
    return Client(InProcessTransport(server.handle), on_warning=warnings.append), warnings


async def label(api: Client, **labels: str) -> None:
    names = {LABEL + k.replace("_", "-"): v for k, v in labels.items()}
    await api.patch(NAMESPACES, "default", {"metadata": {"labels": names}})


async def test_pods_are_refused_and_templates_warned_of() -> None:
    api, warnings = await world()
    await label(api, enforce="baseline", warn="restricted")
    text = await refused(api.create(PODS, pod("p", hostPID=True)))
    assert text == 'pods "p" is forbidden: violates PodSecurity "baseline:latest": host namespaces (hostPID=true)'
    warnings.clear()
    await api.create(PODS, pod("p"))
    assert len(warnings) == 1
    assert warnings[0].startswith('would violate PodSecurity "restricted:latest": allowPrivilegeEscalation != false (')
    warnings.clear()
    template = {"spec": {**pod(hostPID=True)["spec"], "restartPolicy": "Never"}}
    await api.create(JOBS, thing(JOBS, "j", spec={"template": template}))
    assert 'would violate PodSecurity "restricted:latest": host namespaces (hostPID=true)' in warnings[0]


async def test_a_stricter_policy_warns_of_pods_that_are_there() -> None:
    api, warnings = await world()
    for number in range(3):
        await api.create(PODS, pod(f"a{number}", hostNetwork=True))
    await api.create(PODS, pod("b", hostPID=True))
    await label(api, enforce="baseline")
    assert warnings == [
        'existing pods in namespace "default" violate the new PodSecurity enforce level "baseline:latest"',
        "a0 (and 3 other pods): host namespaces",
    ]


async def test_wrong_labels_are_invalid() -> None:
    api, _ = await world()
    with pytest.raises(ApiError) as caught:
        await api.create(NAMESPACES, thing(NAMESPACES, "n", meta={"labels": {f"{LABEL}enforce": "odd"}}))
    assert caught.value.code == 422
    assert caught.value.message == (
        f'Namespace "n" is invalid: metadata.labels[{LABEL}enforce]: Invalid value: "odd": '
        "must be one of privileged, baseline, restricted"
    )
    with pytest.raises(ApiError, match=r'must be "latest" or "v1\.x"'):
        await label(api, enforce_version="2")


async def test_defaults_and_exemptions() -> None:
    chosen = {
        "defaults": {"enforce": "baseline"},
        "exemptions": {"namespaces": ["kube-system"], "runtimeClasses": ["vm"]},
    }
    api, warnings = await world(ServerOptions(pod_security=chosen))
    await refused(api.create(PODS, pod("p", hostPID=True)))
    await api.create(PODS, pod("p", "kube-system", hostPID=True))
    system = {"metadata": {"labels": {f"{LABEL}enforce": "restricted"}}}
    await api.patch(NAMESPACES, "kube-system", system)
    text = "the policy (enforce=restricted:latest) will be ignored"
    assert warnings == [f'namespace "kube-system" is exempt from Pod Security, and {text}']


async def test_updates_count_when_images_or_debuggers_change() -> None:
    api, _ = await world()
    await api.create(PODS, pod("p", hostPID=True))
    await label(api, enforce="baseline")
    await api.patch(PODS, "p", {"metadata": {"labels": {"a": "b"}}}, "default")
    made = await api.get(PODS, "p", "default")
    made["spec"]["containers"][0]["image"] = "other"
    assert "host namespaces" in await refused(api.update(PODS, made))
    debugger = {**container("d"), "securityContext": {"privileged": True}}
    patch = {"spec": {"ephemeralContainers": [debugger]}}
    await api.create(PODS, pod("q"))
    text = await refused(api.patch(PODS, "q", patch, "default", subresource="ephemeralcontainers", kind="strategic"))
    assert "privileged" in text
