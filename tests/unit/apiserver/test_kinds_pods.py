"""Pods: what may change on a running one, and how their generation counts."""

from __future__ import annotations

from typing import Any

import pytest

from glebe.apiserver.server import ApiServer
from glebe.apiserver.store import MemoryStore
from glebe.apiserver.strategy import strategy_for
from glebe.apiserver.types.registry import TypeRegistry, builtins
from glebe.kube.client import Client
from glebe.kube.clock import Env
from glebe.kube.errors import ApiError
from glebe.kube.inprocess import InProcessTransport
from glebe.kube.resources import PODS

SIZE = {"requests": {"cpu": "100m", "memory": "64Mi"}, "limits": {"cpu": "200m", "memory": "128Mi"}}


async def serve(**spec: Any) -> Client:
    server = ApiServer(MemoryStore(), Env.seeded(1), TypeRegistry())
    await server.start()
    client = Client(InProcessTransport(server.handle))
    body = {
        "apiVersion": "v1",
        "kind": "Pod",
        "metadata": {"name": "p", "namespace": "default"},
        "spec": {"containers": [{"name": "c", "image": "i", "resources": SIZE}], **spec},
    }
    await client.create(PODS, body)
    return client


async def resize(client: Client, resources: dict[str, Any], field: str = "containers") -> dict[str, Any]:
    body = {"spec": {field: [{"name": "c" if field == "containers" else "i", "resources": resources}]}}
    return await client.patch(PODS, "p", body, "default", kind="strategic", subresource="resize")


async def test_processor_and_memory_are_resized_and_counted() -> None:
    client = await serve()
    changed = await resize(client, {"requests": {"cpu": "150m"}, "limits": {"memory": "1024Mi"}})
    assert changed["spec"]["containers"][0]["resources"]["requests"]["cpu"] == "150m"
    assert changed["spec"]["containers"][0]["resources"]["limits"]["memory"] == "1Gi"
    assert changed["metadata"]["generation"] == 2


@pytest.mark.parametrize(
    ("resources", "why"),
    [
        ({"requests": {"cpu": "200m", "memory": "128Mi"}}, "Pod QOS Class may not change as a result of resizing"),
        ({"limits": {"cpu": None}}, "resource limits cannot be removed"),
        ({"requests": {"ephemeral-storage": "1Gi"}}, "only cpu and memory resources are mutable"),
    ],
)
async def test_other_sizes_are_refused(resources: dict[str, Any], why: str) -> None:
    client = await serve()
    with pytest.raises(ApiError, match=why):
        await resize(client, resources)


async def test_an_init_container_that_ends_is_not_resized() -> None:
    client = await serve(initContainers=[{"name": "i", "image": "i", "resources": SIZE}])
    with pytest.raises(ApiError, match="resources for non-sidecar init containers are immutable"):
        await resize(client, {"requests": {"cpu": "150m"}}, "initContainers")


async def test_the_generation_counts_the_spec_and_the_deletion() -> None:
    client = await serve(nodeName="n")
    steps = (
        ({"metadata": {"annotations": {"a": "b"}}}, 1),
        ({"metadata": {"generation": 9}}, 1),
        ({"spec": {"activeDeadlineSeconds": 5000}}, 2),
        ({"spec": {"containers": [{"name": "c", "image": "other"}]}}, 3),
    )
    for body, generation in steps:
        changed = await client.patch(PODS, "p", body, "default", kind="strategic")
        assert changed["metadata"]["generation"] == generation, body
    await client.delete(PODS, "p", "default")
    assert (await client.get(PODS, "p", "default"))["metadata"]["generation"] == 4


@pytest.mark.parametrize(
    ("spec", "wanted"),
    [
        (
            {"lifecycle": {"preStop": {}}},
            "spec.containers[0].lifecycle.preStop: Required value: must specify a handler type",
        ),
        (
            {"livenessProbe": {"httpGet": {"path": "/"}}},
            "spec.containers[0].livenessProbe.httpGet.port: Invalid value: 0: must be between 1 and 65535, inclusive",
        ),
    ],
)
async def test_handlers_of_containers(spec: dict[str, Any], wanted: str) -> None:
    with pytest.raises(ApiError) as caught:
        await serve(containers=[{"name": "c", "image": "i", **spec}])
    assert wanted in caught.value.message


@pytest.mark.parametrize(
    ("volume", "wanted"),
    [
        ({"ephemeral": {}}, "spec.volumes[0].ephemeral.volumeClaimTemplate: Required value"),
        (
            {"downwardAPI": {"items": [{"path": "a"}]}},
            "spec.volumes[0].downwardAPI: Required value: one of fieldRef and resourceFieldRef is required",
        ),
        (
            {"downwardAPI": {"items": [{"path": "a", "fieldRef": {"fieldPath": "x"}}]}},
            'fieldPath: Invalid value: "x": error converting fieldPath: field label not supported: x',
        ),
    ],
)
async def test_volumes_made_of_parts(volume: dict[str, Any], wanted: str) -> None:
    with pytest.raises(ApiError) as caught:
        await serve(volumes=[{"name": "v", **volume}])
    assert wanted in caught.value.message


async def test_invalid_sysctls_are_refused() -> None:
    names = ("foo-", "kernel.shmmax", "safe-and-unsafe", "bar..")
    context = {"sysctls": [{"name": name, "value": "1"} for name in names]}
    with pytest.raises(ApiError) as caught:
        await serve(securityContext=context)
    for name, refused in zip(names, (True, False, False, True), strict=True):
        assert (f'Invalid value: "{name}"' in caught.value.message) is refused


@pytest.mark.parametrize("path", ["metadata.labels", "metadata.annotations", "metadata.name", "metadata.labels['a']"])
async def test_files_may_hold_all_labels(path: str) -> None:
    await serve(volumes=[{"name": "v", "downwardAPI": {"items": [{"path": "f", "fieldRef": {"fieldPath": path}}]}}])


@pytest.mark.parametrize(
    ("text", "wanted"),
    [
        ("localhost/foo", {"type": "Localhost", "localhostProfile": "foo"}),
        ("unconfined", {"type": "Unconfined"}),
        ("runtime/default", {"type": "RuntimeDefault"}),
        ("localhost/", None),
        ("nonsense", None),
    ],
)
def test_annotations_of_apparmor_become_fields(text: str, wanted: dict[str, str] | None) -> None:
    info = next(i for i in builtins() if i.kind == "Pod")
    notes = {"container.apparmor.security.beta.kubernetes.io/c": text}
    pod: dict[str, Any] = {"metadata": {"annotations": notes}, "spec": {"containers": [{"name": "c"}, {"name": "d"}]}}
    strategy_for(info).prepare_create(pod, "2026-01-01T00:00:00Z")
    first, second = pod["spec"]["containers"]
    assert (first.get("securityContext") or {}).get("appArmorProfile") == wanted
    assert "securityContext" not in second
