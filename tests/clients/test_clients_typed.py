"""kubectl's typed commands: what it sends there is protobuf."""

from __future__ import annotations

import base64
import json
import shutil
from typing import Any

import pytest
from glebe_up import Up, until

pytestmark = pytest.mark.skipif(shutil.which("kubectl") is None, reason="kubectl is not on PATH")


def kubectl(up: Up, arguments: str, expect: int = 0) -> str:
    return up.run("kubectl", *arguments.split(), expect=expect)


def stored(up: Up, what: str) -> dict[str, Any]:
    return dict(json.loads(kubectl(up, f"get {what} -o json")))


@pytest.fixture(scope="module")
def lab(up: Up) -> Up:
    assert kubectl(up, "create namespace lab") == "namespace/lab created\n"
    kubectl(up, "config set-context --current --namespace=lab")
    return up


def test_config_maps_and_secrets(lab: Up) -> None:
    kubectl(lab, "create configmap c --from-literal=a=b --from-literal=empty=")
    assert stored(lab, "configmap/c")["data"] == {"a": "b", "empty": ""}
    kubectl(lab, "create secret generic s --from-literal=a=ü")
    assert base64.b64decode(stored(lab, "secret/s")["data"]["a"]).decode() == "ü"
    assert "already exists" in kubectl(lab, "create configmap c", expect=1)


def test_workloads(lab: Up) -> None:
    kubectl(lab, "create job j --image=unused -- run it")
    assert stored(lab, "job/j")["spec"]["template"]["spec"]["containers"][0]["command"] == ["run", "it"]
    kubectl(lab, "create deployment d --image=unused --replicas=2 --port=80")
    spec = stored(lab, "deployment/d")["spec"]
    assert spec["replicas"] == 2
    assert spec["strategy"]["rollingUpdate"]["maxSurge"] == "25%"
    assert spec["template"]["spec"]["containers"][0]["ports"] == [{"containerPort": 80, "protocol": "TCP"}]
    kubectl(lab, "scale deployment d --replicas=1")
    kubectl(lab, "scale deployment d --replicas=0 --current-replicas=1")
    assert stored(lab, "deployment/d")["spec"]["replicas"] == 0
    kubectl(lab, "create cronjob cj --image=unused --schedule=@daily")
    kubectl(lab, "create service clusterip web --tcp=80:8080")
    assert stored(lab, "service/web")["spec"]["ports"][0]["targetPort"] == 8080
    kubectl(lab, "create quota q --hard=cpu=1500m,pods=2")
    assert stored(lab, "quota/q")["spec"]["hard"] == {"cpu": "1500m", "pods": "2"}
    kubectl(lab, "create poddisruptionbudget pdb --selector=app=held --min-available=1")
    for name in ("job/j", "deployment/d", "cronjob/cj", "service/web", "quota/q"):
        kubectl(lab, f"delete {name}")


def test_rights_and_tokens(lab: Up) -> None:
    kubectl(lab, "create serviceaccount reader")
    kubectl(lab, "create role r --verb=get,list --resource=configmaps --resource-name=c")
    kubectl(lab, "create rolebinding rb --role=r --serviceaccount=lab:reader")
    kubectl(lab, "create clusterrole metrics --verb=get --non-resource-url=/metrics")
    kubectl(lab, "create clusterrolebinding crb --clusterrole=metrics --user=someone")
    assert stored(lab, "role/r")["rules"] == [
        {"verbs": ["get", "list"], "apiGroups": [""], "resources": ["configmaps"], "resourceNames": ["c"]}
    ]
    assert kubectl(lab, "auth can-i create pods") == "yes\n"
    reader = "--as=system:serviceaccount:lab:reader"
    assert kubectl(lab, f"auth can-i get configmaps/c {reader}") == "yes\n"
    assert "no" in kubectl(lab, f"auth can-i delete configmaps/c {reader}", expect=1)
    assert "configmaps" in kubectl(lab, f"auth can-i --list {reader}")
    assert "system:masters" in kubectl(lab, "auth whoami")
    token = kubectl(lab, "create token reader --duration=20m").strip()
    claims = json.loads(base64.urlsafe_b64decode(token.split(".")[1] + "=="))
    assert claims["sub"] == "system:serviceaccount:lab:reader"
    assert claims["exp"] - claims["iat"] == 1200


def test_drain_evicts(lab: Up) -> None:
    """Evictions are typed, and so are the options of deletions."""
    kubectl(lab, "run victim --image=unused --restart=Never -- train")
    node = until("it is on a node", lambda: stored(lab, "pod/victim")["spec"].get("nodeName"))
    drained = kubectl(lab, f"drain {node} --force --ignore-daemonsets --delete-emptydir-data --timeout=60s")
    assert "pod/victim evicted" in drained
    assert "victim" not in kubectl(lab, "get pods -o name")
    kubectl(lab, f"uncordon {node}")
