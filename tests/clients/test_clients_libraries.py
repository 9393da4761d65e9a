"""Client libraries, unmodified: Python's official one, kr8s, lightkube, an operator with kopf, JavaScript's."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
import threading
from pathlib import Path
from typing import Any

import pytest
from glebe_up import Lab, until

pytestmark = pytest.mark.realtime

HERE = Path(__file__).resolve().parent
MEMO = {
    "apiVersion": "apiextensions.k8s.io/v1",
    "kind": "CustomResourceDefinition",
    "metadata": {"name": "memos.kopf.example.org"},
    "spec": {
        "group": "kopf.example.org",
        "scope": "Namespaced",
        "names": {"plural": "memos", "singular": "memo", "kind": "Memo"},
        "versions": [
            {
                "name": "v1",
                "served": True,
                "storage": True,
                "subresources": {"status": {}},
                "schema": {
                    "openAPIV3Schema": {
                        "type": "object",
                        "properties": {
                            "spec": {"type": "object", "properties": {"text": {"type": "string"}}},
                            "status": {"type": "object", "x-kubernetes-preserve-unknown-fields": True},
                        },
                    }
                },
            }
        ],
    },
}


def config_map(name: str, **data: str) -> dict[str, Any]:
    return {"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": name}, "data": data}


def test_the_official_python_client(lab: Lab) -> None:
    kubernetes = pytest.importorskip("kubernetes")
    api = kubernetes.config.new_client_from_config(config_file=str(lab.kubeconfig))
    core, ns = kubernetes.client.CoreV1Api(api), lab.namespace
    made = core.create_namespaced_config_map(ns, config_map("c", a="1"))
    watch, seen = kubernetes.watch.Watch(), []

    def change() -> None:
        core.patch_namespaced_config_map("c", ns, {"data": {"a": "2"}})
        core.replace_namespaced_config_map("c", ns, config_map("c", a="3"))
        core.delete_namespaced_config_map("c", ns)

    timer = threading.Timer(0.2, change)
    timer.start()
    version = made.metadata.resource_version
    for event in watch.stream(core.list_namespaced_config_map, ns, resource_version=version, timeout_seconds=20):
        seen.append((event["type"], event["object"].data["a"]))
        if event["type"] == "DELETED":
            watch.stop()
    timer.join()
    assert seen == [("MODIFIED", "2"), ("MODIFIED", "3"), ("DELETED", "3")]
    with pytest.raises(kubernetes.client.ApiException) as caught:
        core.read_namespaced_config_map("c", ns)
    assert caught.value.status == 404
    assert json.loads(caught.value.body)["details"] == {"name": "c", "kind": "configmaps"}
    version = kubernetes.client.VersionApi(api).get_code()
    assert int(version.minor) >= 34


def test_the_official_python_clients_dynamic_half(lab: Lab) -> None:
    kubernetes = pytest.importorskip("kubernetes")
    dynamic = pytest.importorskip("kubernetes.dynamic")
    api = kubernetes.config.new_client_from_config(config_file=str(lab.kubeconfig))
    client = dynamic.DynamicClient(api, cache_file=str(lab.server.data / f"{lab.namespace}.cache"))
    maps = client.resources.get(api_version="v1", kind="ConfigMap")
    assert client.resources.get(api_version="apps/v1", kind="Deployment").namespaced
    for number in range(5):
        maps.create(body=config_map(f"c{number}", n=str(number)), namespace=lab.namespace)
    page = maps.get(namespace=lab.namespace, limit=2)
    names = [item.metadata.name for item in page.items]
    while token := page.metadata["continue"]:
        page = maps.get(namespace=lab.namespace, limit=2, _continue=token)
        names += [item.metadata.name for item in page.items]
    assert names == ["c0", "c1", "c2", "c3", "c4", "kube-root-ca.crt"]
    applied = config_map("s", a="1")
    first = maps.server_side_apply(body=applied, namespace=lab.namespace, field_manager="ann")
    assert first.metadata.managedFields[0].manager == "ann"
    with pytest.raises(dynamic.exceptions.ConflictError) as caught:
        maps.server_side_apply(body=config_map("s", a="2"), namespace=lab.namespace, field_manager="bob")
    assert json.loads(caught.value.body)["details"]["causes"][0]["message"] == 'conflict with "ann"'
    forced = maps.server_side_apply(
        body=config_map("s", a="2"), namespace=lab.namespace, field_manager="bob", force_conflicts=True
    )
    assert forced.data.a == "2"
    maps.delete(namespace=lab.namespace, label_selector="nobody=has-it")
    assert len(maps.get(namespace=lab.namespace).items) == 7
    events = maps.watch(namespace=lab.namespace, name="s", timeout=1)
    assert next(iter(events))["type"] == "ADDED"


@pytest.mark.filterwarnings("ignore:Kubernetes version")
def test_kr8s(lab: Lab) -> None:
    kr8s = pytest.importorskip("kr8s")
    api = kr8s.api(kubeconfig=str(lab.kubeconfig), namespace=lab.namespace)
    made = kr8s.objects.ConfigMap(
        {**config_map("c", a="1"), "metadata": {"name": "c", "namespace": lab.namespace}}, api=api
    )
    made.create()
    made.patch({"data": {"b": "2"}})
    made.label(mine="yes")
    found = list(api.get("configmaps", namespace=lab.namespace, label_selector="mine=yes"))
    assert [dict(f.data) for f in found] == [{"a": "1", "b": "2"}]
    deployment = {
        "apiVersion": "apps/v1",
        "kind": "Deployment",
        "metadata": {"name": "d", "namespace": lab.namespace},
        "spec": {
            "replicas": 0,
            "selector": {"matchLabels": {"a": "b"}},
            "template": {"metadata": {"labels": {"a": "b"}}, "spec": {"containers": [{"name": "c", "image": "i"}]}},
        },
    }
    scaled = kr8s.objects.Deployment(deployment, api=api)
    scaled.create()
    scaled.annotate(why="because")
    assert lab.get("deployment/d")["metadata"]["annotations"]["why"] == "because"
    made.delete()
    made.wait("delete", timeout=10)
    assert not made.exists()


def test_lightkube(lab: Lab, monkeypatch: pytest.MonkeyPatch) -> None:
    pytest.importorskip("lightkube")
    from lightkube import ApiError, Client, KubeConfig
    from lightkube.models.meta_v1 import ObjectMeta
    from lightkube.resources.apps_v1 import Deployment
    from lightkube.resources.core_v1 import ConfigMap
    from lightkube.types import PatchType

    client = Client(config=KubeConfig.from_file(lab.kubeconfig), namespace=lab.namespace, field_manager="light")
    client.create(ConfigMap(metadata=ObjectMeta(name="c", labels={"x": "y"}), data={"a": "1"}))
    client.patch(ConfigMap, "c", {"data": {"b": "2"}})
    client.patch(ConfigMap, "c", [{"op": "remove", "path": "/data/a"}], patch_type=PatchType.JSON)
    assert client.get(ConfigMap, "c").data == {"b": "2"}
    client.apply(ConfigMap(metadata=ObjectMeta(name="s"), data={"k": "v"}))
    assert {m.metadata.name for m in client.list(ConfigMap, labels={"x": "y"})} == {"c"}
    assert list(client.list(Deployment)) == []
    for event, found in client.watch(ConfigMap, fields={"metadata.name": "s"}):
        assert (event, found.data) == ("ADDED", {"k": "v"})
        break
    client.delete(ConfigMap, "c")
    with pytest.raises(ApiError) as caught:
        client.get(ConfigMap, "c")
    assert caught.value.status.reason == "NotFound"


def test_an_operator_with_kopf(lab: Lab) -> None:
    pytest.importorskip("kopf")
    lab.kubectl("apply", "-f", "-", stdin=json.dumps(MEMO))
    lab.kubectl("wait", "--for=condition=Established", "crd/memos.kopf.example.org", "--timeout=20s")
    command = [sys.executable, "-m", "kopf", "run", "--standalone", f"--namespace={lab.namespace}"]
    environment = {**os.environ, "KUBECONFIG": str(lab.kubeconfig), "HOME": str(lab.server.data)}
    operator = subprocess.Popen([*command, str(HERE / "kopf_operator.py")], env=environment, stderr=subprocess.PIPE)
    assert operator.stderr is not None
    lines: list[bytes] = []
    threading.Thread(target=lambda: lines.extend(operator.stderr or ()), daemon=True).start()

    def names() -> str:
        assert operator.poll() is None, b"".join(lines).decode()
        return lab.kubectl("get", "cm", "-o", "jsonpath={.items[*].metadata.name}")

    try:
        memo = {"apiVersion": "kopf.example.org/v1", "kind": "Memo", "metadata": {"name": "m"}, "spec": {"text": "one"}}
        lab.kubectl("apply", "-f", "-", stdin=json.dumps(memo))
        until("it was created", lambda: "copied" in json.dumps(lab.get("memo/m").get("status", {})), 30)
        assert lab.get("cm/m-copy")["data"] == {"text": "one"}
        assert lab.get("memo/m")["metadata"]["finalizers"] == ["kopf.zalando.org/KopfFinalizerMarker"]
        lab.kubectl("apply", "-f", "-", stdin=json.dumps({**memo, "spec": {"text": "two"}}))
        until("it was updated", lambda: lab.get("memo/m").get("status", {}).get("seen") == "two", 30)
        assert lab.get("cm/m-copy")["data"] == {"text": "two"}
        lab.kubectl("delete", "memo/m", "--timeout=30s")
        assert "m-gone" in names()
        until("the copy is collected", lambda: "m-copy" not in names(), 30)
    finally:
        operator.terminate()
        operator.wait(20)


@pytest.fixture(scope="module")
def node_modules() -> Path:
    """Where npm has @kubernetes/client-node: ``GLEBE_NODE_MODULES`` names a folder `node_modules`."""
    if shutil.which("node") is None:
        pytest.skip("node is not on PATH")
    folder = Path(os.environ.get("GLEBE_NODE_MODULES", ""))
    if not (folder / "@kubernetes" / "client-node").is_dir():
        pytest.skip("set GLEBE_NODE_MODULES to a folder where `npm install @kubernetes/client-node@1` has put it")
    return folder


def test_the_javascript_client(lab: Lab, node_modules: Path, tmp_path: Path) -> None:
    (tmp_path / "node_modules").symlink_to(node_modules)
    shutil.copy(HERE / "client.mjs", tmp_path)
    done = subprocess.run(
        ["node", str(tmp_path / "client.mjs"), lab.namespace],
        env={**os.environ, "KUBECONFIG": str(lab.kubeconfig)},
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    assert done.stdout.split() == ["ADDED", "MODIFIED", "DELETED", "404", "ok"]
