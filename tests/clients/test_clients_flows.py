"""kubectl as people use it: apply in all its forms, diff, replace, edit, explain, wait, watch, tables, deletion."""

from __future__ import annotations

import json
import shutil
import subprocess
from pathlib import Path
from typing import Any

import pytest
from glebe_up import Lab, until

pytestmark = [
    pytest.mark.realtime,
    pytest.mark.skipif(shutil.which("kubectl") is None, reason="kubectl is not on PATH"),
]

DEPLOYMENT = """\
apiVersion: apps/v1
kind: Deployment
metadata: {name: web, labels: {app: web}}
spec:
  replicas: 2
  selector: {matchLabels: {app: web}}
  template:
    metadata: {labels: {app: web}}
    spec:
      containers:
      - {name: main, image: "web:1", ports: [{containerPort: 80}], env: [{name: A, value: a}]}
"""
DEFINITION = """\
apiVersion: apiextensions.k8s.io/v1
kind: CustomResourceDefinition
metadata: {name: GROUP}
spec:
  group: flows.example.org
  scope: Namespaced
  names: {plural: PLURAL, singular: SINGULAR, kind: KIND, shortNames: [SHORT], categories: [all]}
  versions:
  - name: v1
    served: true
    storage: true
    subresources: {status: {}, scale: {specReplicasPath: .spec.size, statusReplicasPath: .status.size}}
    additionalPrinterColumns: [{name: Size, type: integer, jsonPath: .spec.size}]
    schema:
      openAPIV3Schema:
        type: object
        description: Something that flows.
        properties:
          spec:
            type: object
            required: [size]
            properties:
              size: {type: integer, minimum: 1, description: How much of it.}
              parts: {type: array, items: {type: object, properties: {name: {type: string}}}}
          status: {type: object, properties: {size: {type: integer}, conditions: {type: array, items: {type: object,
            x-kubernetes-preserve-unknown-fields: true}}}}
"""


def config_map(name: str, **data: str) -> str:
    return json.dumps({"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": name}, "data": data})


def test_apply_and_diff(lab: Lab) -> None:
    assert lab.kubectl("apply", "-f", "-", stdin=DEPLOYMENT) == "deployment.apps/web created\n"
    assert lab.kubectl("apply", "-f", "-", stdin=DEPLOYMENT) == "deployment.apps/web unchanged\n"
    assert lab.kubectl("diff", "-f", "-", stdin=DEPLOYMENT) == ""
    changed = DEPLOYMENT.replace("web:1", "web:2").replace("replicas: 2", "replicas: 3")
    shown = lab.kubectl("diff", "-f", "-", expect=1, stdin=changed)
    assert "-      - env:" not in shown
    assert "+        image: web:2" in "\n".join(line.rstrip() for line in shown.splitlines()), shown
    assert lab.get("deployment/web")["spec"]["replicas"] == 2
    lab.kubectl("scale", "deployment/web", "--replicas=5")
    lab.kubectl("apply", "-f", "-", stdin=changed.replace("  replicas: 3\n", ""))
    spec = lab.get("deployment/web")["spec"]
    assert spec["replicas"] == 1, "a field taken out of the configuration has its default again"
    assert spec["template"]["spec"]["containers"][0]["image"] == "web:2"
    assert "env" not in lab.kubectl("apply", "view-last-applied", "deployment/web").split("template")[0]
    pruned = changed.replace(", env: [{name: A, value: a}]", "")
    assert "configured" in lab.kubectl("apply", "-f", "-", stdin=pruned)
    assert "env" not in lab.get("deployment/web")["spec"]["template"]["spec"]["containers"][0]
    assert "(server dry run)" in lab.kubectl("apply", "--dry-run=server", "-f", "-", stdin=DEPLOYMENT)


def test_server_side_apply(lab: Lab) -> None:
    apply = ("apply", "--server-side", "-f", "-")
    assert "serverside-applied" in lab.kubectl(*apply, stdin=DEPLOYMENT)
    first = lab.get("deployment/web", "--show-managed-fields")
    lab.kubectl(*apply, stdin=DEPLOYMENT)
    second = lab.get("deployment/web", "--show-managed-fields")
    mine = lambda obj: [m for m in obj["metadata"]["managedFields"] if m["operation"] == "Apply"]  # noqa: E731
    assert mine(first) == mine(second)
    other = DEPLOYMENT.replace("web:1", "web:9")
    said = lab.kubectl(*apply, "--field-manager=ci", expect=1, stdin=other)
    assert 'conflict with "kubectl"' in said, said
    assert '.spec.template.spec.containers[name="main"].image' in said
    lab.kubectl(*apply, "--field-manager=ci", "--force-conflicts", stdin=other)
    assert lab.get("deployment/web")["spec"]["template"]["spec"]["containers"][0]["image"] == "web:9"
    said = lab.kubectl(*apply, expect=1, stdin=DEPLOYMENT)
    assert 'conflict with "ci"' in said
    assert "serverside-applied" in lab.kubectl(*apply, stdin=DEPLOYMENT.replace('image: "web:1"', 'image: "web:9"'))
    diff = lab.kubectl("diff", "--server-side", "--force-conflicts", "-f", "-", expect=1, stdin=DEPLOYMENT)
    assert "web:1" in diff


def test_from_client_side_to_server_side_apply(lab: Lab) -> None:
    lab.kubectl("apply", "-f", "-", stdin=config_map("c", a="1", b="2"))
    lab.kubectl("apply", "--server-side", "-f", "-", stdin=config_map("c", a="1"))
    assert lab.get("cm/c")["data"] == {"a": "1"}, "kubectl moves the ownership over"


def test_replace_and_edit(lab: Lab, tmp_path: Path) -> None:
    lab.kubectl("create", "-f", "-", stdin=config_map("c", a="1"))
    lab.kubectl("replace", "-f", "-", stdin=config_map("c", a="2"))
    assert lab.get("cm/c")["data"] == {"a": "2"}
    uid = lab.get("cm/c")["metadata"]["uid"]
    lab.kubectl("replace", "--force", "-f", "-", stdin=config_map("c", a="3"))
    assert lab.get("cm/c")["metadata"]["uid"] != uid
    assert "NotFound" in lab.kubectl("replace", "-f", "-", expect=1, stdin=config_map("d"))
    script = tmp_path / "edit"
    script.write_text("""#!/bin/sh\nsed -i 's/a: "3"/a: "4"/' "$1"\n""")
    script.chmod(0o755)
    assert lab.kubectl("edit", "cm/c", editor=str(script)) == "configmap/c edited\n"
    assert lab.get("cm/c")["data"] == {"a": "4"}
    assert lab.kubectl("edit", "cm/c", editor=str(script)) == "", "no changes, nothing to do"
    lab.kubectl("set", "data", "cm/c", expect=1)


def test_patches(lab: Lab) -> None:
    lab.kubectl("create", "-f", "-", stdin=DEPLOYMENT)
    containers = '{"spec":{"template":{"spec":{"containers":[{"name":"side","image":"side:1"}]}}}}'
    lab.kubectl("patch", "deployment/web", "-p", containers)
    spec = lab.get("deployment/web")["spec"]["template"]["spec"]
    assert [c["name"] for c in spec["containers"]] == ["side", "main"]
    lab.kubectl(
        "patch", "deployment/web", "--type=json", "-p", '[{"op":"remove","path":"/spec/template/spec/containers/1"}]'
    )
    lab.kubectl("patch", "deployment/web", "--type=merge", "-p", '{"metadata":{"labels":{"app":null,"new":"x"}}}')
    found = lab.get("deployment/web")
    assert [c["name"] for c in found["spec"]["template"]["spec"]["containers"]] == ["side"]
    assert found["metadata"]["labels"] == {"new": "x"}
    status = '{"status":{"observedGeneration":77}}'
    assert lab.kubectl("patch", "deployment/web", "--subresource=status", "--type=merge", "-p", status)
    lab.kubectl("label", "deployment/web", "tier=back", "new-")
    lab.kubectl("annotate", "deployment/web", "why=because")
    lab.kubectl("set", "image", "deployment/web", "side=side:2")
    lab.kubectl("set", "env", "deployment/web", "LEVEL=debug")
    found = lab.get("deployment/web")
    assert found["metadata"]["labels"] == {"tier": "back"}
    assert found["metadata"]["annotations"]["why"] == "because"
    container = found["spec"]["template"]["spec"]["containers"][0]
    assert (container["image"], container["env"]) == ("side:2", [{"name": "LEVEL", "value": "debug"}])
    assert "already has a value" in lab.kubectl("label", "deployment/web", "tier=front", expect=1)


def define(lab: Lab, plural: str) -> str:
    """A custom kind of its own; returns the kind."""
    kind = plural[:-1].capitalize()
    text = DEFINITION.replace("GROUP", f"{plural}.flows.example.org").replace("PLURAL", plural)
    text = text.replace("SINGULAR", plural[:-1]).replace("KIND", kind).replace("SHORT", plural[:3])
    assert "created" in lab.kubectl("apply", "-f", "-", stdin=text)
    lab.kubectl("wait", "--for=condition=Established", f"crd/{plural}.flows.example.org", "--timeout=20s")
    return kind


def test_custom_kinds(lab: Lab) -> None:
    kind = define(lab, "rivers")
    row = [line for line in lab.kubectl("api-resources", "--api-group=flows.example.org").splitlines() if kind in line]
    assert row[0].split() == ["rivers", "riv", "flows.example.org/v1", "true", kind]
    assert "How much of it." in lab.kubectl("explain", "rivers.spec")
    recursive = lab.kubectl("explain", "rivers", "--recursive")
    assert "parts\t<[]Object>\n      name\t<string>" in recursive
    head = f"apiVersion: flows.example.org/v1\nkind: {kind}\nmetadata: {{name: a}}\n"
    thing = head + "spec: {size: 3, parts: [{name: p}]}\n"
    lab.kubectl("apply", "-f", "-", stdin=thing)
    assert "unchanged" in lab.kubectl("apply", "-f", "-", stdin=thing)
    assert "greater than or equal to 1" in lab.kubectl(
        "apply", "-f", "-", expect=1, stdin=thing.replace("size: 3", "size: 0")
    )
    assert 'unknown field "spec.sise"' in lab.kubectl(
        "apply", "-f", "-", expect=1, stdin=thing.replace("size: 3", "size: 3, sise: 4")
    )
    lab.kubectl("scale", "riv/a", "--replicas=4")
    assert lab.kubectl("get", "riv", "--no-headers").split()[:2] == ["a", "4"]
    assert "river.flows.example.org/a" in lab.kubectl("get", "all", "-o", "name")
    lab.kubectl("patch", "riv/a", "--subresource=status", "--type=merge", "-p", READY)
    lab.kubectl("wait", "riv/a", "--for=condition=Ready", "--timeout=10s")
    lab.kubectl("wait", "riv/a", "--for=jsonpath={.spec.size}=4", "--timeout=10s")
    lab.kubectl("label", "riv/a", "x=y")
    lab.kubectl("delete", "crd/rivers.flows.example.org", "--timeout=20s")
    assert "could not find the requested resource" in lab.kubectl("get", "rivers", expect=1)


READY = '{"status":{"conditions":[{"type":"Ready","status":"True"}]}}'


def test_explain_of_built_in_kinds(lab: Lab) -> None:
    assert "restartPolicy\t<string>" in lab.kubectl("explain", "pod.spec", "--recursive")
    said = lab.kubectl("explain", "deployment.spec.strategy.rollingUpdate.maxSurge")
    assert "FIELD: maxSurge <IntOrString>" in said
    assert "VERSION:    v2" in lab.kubectl("explain", "hpa", "--api-version=autoscaling/v2")
    assert 'field "nosuch" does not exist' in lab.kubectl("explain", "pod.spec.nosuch", expect=1)


def test_rows_orders_and_columns(lab: Lab) -> None:
    for name, size in (("a", "9"), ("b", "10"), ("c", "1")):
        lab.kubectl("create", "-f", "-", stdin=config_map(name, size=size))
        lab.kubectl("label", f"cm/{name}", f"rank={size}", "mine=yes")
    names = lab.kubectl(
        "get", "cm", "-l", "mine", "--sort-by=.data.size", "-o", "custom-columns=N:.metadata.name,S:.data.size"
    )
    assert [line.split() for line in names.splitlines()] == [["N", "S"], ["c", "1"], ["a", "9"], ["b", "10"]]
    assert lab.kubectl("get", "cm", "-l", "rank in (9,10)", "-o", "name").split() == ["configmap/a", "configmap/b"]
    assert lab.kubectl("get", "cm", "-l", "mine,rank!=9", "-o", "jsonpath={.items[*].metadata.name}") == "b c"
    assert "RANK" in lab.kubectl("get", "cm", "-L", "rank")
    only = lab.kubectl(
        "get", "cm", "--field-selector=metadata.name=b", "-o", "go-template={{range .items}}{{.data.size}}{{end}}"
    )
    assert only == "10"
    assert '"data.size" is not a known field selector' in lab.kubectl(
        "get", "cm", "--field-selector=data.size=1", expect=1
    )
    assert lab.kubectl("get", "cm", "-l", "mine", "--chunk-size=1", "-o", "name").count("configmap/") == 3
    assert "mine=yes" in lab.kubectl("describe", "cm/a")


def test_watch(lab: Lab) -> None:
    lab.kubectl("create", "-f", "-", stdin=config_map("c", a="1"))
    command = ["kubectl", f"--kubeconfig={lab.kubeconfig}", "-n", lab.namespace, "get", "cm/c", "-w"]
    command += ["-L", "step", "--no-headers", "--output-watch-events"]
    watcher = subprocess.Popen(command, stdout=subprocess.PIPE, text=True, env=lab.server.environment)
    try:
        assert watcher.stdout is not None
        assert watcher.stdout.readline().split()[:3] == ["ADDED", "c", "1"]
        lab.kubectl("label", "cm/c", "step=1")
        lab.kubectl("label", "cm/c", "step=2", "--overwrite")
        lab.kubectl("delete", "cm/c")
        rows = [watcher.stdout.readline().split() for _ in range(3)]
        seen = [[row[0], row[-1]] for row in rows]
        assert seen == [["MODIFIED", "1"], ["MODIFIED", "2"], ["DELETED", "2"]]
    finally:
        watcher.kill()
        watcher.wait()


def owned(lab: Lab, name: str) -> dict[str, Any]:
    """A replica set's pods by their names."""
    return {p["metadata"]["name"]: p for p in lab.get("pods", "-l", f"app={name}")["items"]}


REPLICAS = """\
apiVersion: apps/v1
kind: ReplicaSet
metadata: {name: NAME}
spec:
  replicas: 2
  selector: {matchLabels: {app: NAME}}
  template: {metadata: {labels: {app: NAME}}, spec: {containers: [{name: main, image: unused}]}}
"""


@pytest.mark.parametrize("cascade", ["background", "foreground", "orphan"])
def test_deletion_cascades(lab: Lab, cascade: str) -> None:
    lab.kubectl("create", "-f", "-", stdin=REPLICAS.replace("NAME", "rs"))
    until("two pods", lambda: len(owned(lab, "rs")) == 2, 20)
    lab.kubectl("delete", "rs/rs", f"--cascade={cascade}", "--timeout=30s")
    if cascade == "orphan":
        pods = owned(lab, "rs")
        assert len(pods) == 2
        assert not any(p["metadata"].get("ownerReferences") for p in pods.values())
    elif cascade == "foreground":
        assert not owned(lab, "rs")
    else:
        until("no pods", lambda: not owned(lab, "rs"), 20)


def test_rights_and_tokens(lab: Lab) -> None:
    lab.kubectl("create", "serviceaccount", "robot")
    lab.kubectl("create", "role", "reader", "--verb=get,list", "--resource=configmaps")
    lab.kubectl("create", "rolebinding", "rb", "--role=reader", f"--serviceaccount={lab.namespace}:robot")
    robot = f"--as=system:serviceaccount:{lab.namespace}:robot"
    assert lab.kubectl("auth", "can-i", "list", "configmaps", robot) == "yes\n"
    assert lab.kubectl("auth", "can-i", "create", "configmaps", robot, expect=1).startswith("no")
    token = lab.kubectl("create", "token", "robot").strip()
    raw = lab.server.run(
        "kubectl", f"--kubeconfig={lab.kubeconfig}", "config", "view", "--raw", "--minify", "--flatten", "-o", "json"
    )
    config = json.loads(raw)
    config["users"] = [{"name": config["users"][0]["name"], "user": {"token": token}}]
    path = lab.server.data / f"{lab.namespace}.kubeconfig"
    path.write_text(json.dumps(config))
    theirs = Lab(lab.server, lab.namespace, path)
    assert "kube-root-ca.crt" in theirs.kubectl("get", "cm", "-o", "name")
    assert "Forbidden" in theirs.kubectl("create", "-f", "-", expect=1, stdin=config_map("x"))
    assert f"{lab.namespace}:robot" in theirs.kubectl("auth", "whoami")


def test_kustomize(lab: Lab, tmp_path: Path) -> None:
    (tmp_path / "deployment.yaml").write_text(DEPLOYMENT)
    (tmp_path / "kustomization.yaml").write_text(
        "resources: [deployment.yaml]\nnamePrefix: pre-\nimages: [{name: web, newTag: '7'}]\n"
        "configMapGenerator: [{name: settings, literals: [a=b]}]\n"
    )
    lab.kubectl("apply", "-k", str(tmp_path))
    found = lab.get("deployment/pre-web")
    assert found["spec"]["template"]["spec"]["containers"][0]["image"] == "web:7"
    assert "pre-settings-" in lab.kubectl("get", "cm", "-o", "name")
    assert "unchanged" in lab.kubectl("apply", "-k", str(tmp_path))
    lab.kubectl("delete", "-k", str(tmp_path), "--wait=false")
    assert "NotFound" in lab.kubectl("get", "deployment/pre-web", expect=1)


def test_rollouts_and_waiting(lab: Lab) -> None:
    lab.kubectl("create", "-f", "-", stdin=DEPLOYMENT)
    lab.kubectl("set", "image", "deployment/web", "main=web:2")
    assert "timed out" in lab.kubectl("wait", "deployment/web", "--for=condition=Available", "--timeout=1s", expect=1)
    lab.kubectl("rollout", "pause", "deployment/web")
    assert lab.get("deployment/web")["spec"]["paused"] is True
    lab.kubectl("rollout", "resume", "deployment/web")
    lab.kubectl("rollout", "restart", "deployment/web")
    assert "kubectl.kubernetes.io/restartedAt" in str(lab.get("deployment/web")["spec"]["template"]["metadata"])
    lab.kubectl("delete", "deployment/web", "--wait=false")
    lab.kubectl("wait", "deployment/web", "--for=delete", "--timeout=20s")
