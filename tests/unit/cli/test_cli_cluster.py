"""``glebe cluster`` against a real API server."""

from __future__ import annotations

import base64
import json
from pathlib import Path
from typing import Any

import yaml
from cryptography import x509

from glebe.apiserver.auth.pki import Pki
from glebe.kube.clock import Env
from glebe.kube.kubeconfig import load_kubeconfig, write_kubeconfig


def test_clusters_come_are_limited_and_go(api: Any, glebe: Any) -> None:
    done = glebe("cluster", "create", "team-a", "--objects", "100")
    assert (done.exit_code, "team-a is ready" in done.output) == (0, True)
    again = glebe("cluster", "create", "team-a")
    assert (again.exit_code, "already exists" in again.output) == (7, True)
    bad = glebe("cluster", "create", "Team_A")
    assert (bad.exit_code, "DNS label" in bad.output) == (2, True)
    listed = json.loads(glebe("cluster", "list", "-o", "json").output)
    assert [(i["metadata"]["name"], i["spec"]) for i in listed] == [
        ("root", {}),
        ("team-a", {"budget": {"objects": 100}}),
    ]
    assert glebe("cluster", "list", "-o", "name").output.split() == ["root", "team-a"]
    shown = glebe("cluster", "budget", "team-a", "--objects", "none", "--bytes", "64Mi")
    assert "64Mi" in shown.output
    assert "100" not in shown.output.split("team-a")[1].split()[:4]
    assert glebe("cluster", "get", "nowhere").exit_code == 3
    assert glebe("cluster", "get").exit_code == 2
    assert glebe("cluster", "delete", "root").exit_code == 6
    assert glebe("cluster", "delete", "team-a").exit_code == 0
    assert glebe("cluster", "get", "team-a").exit_code == 3


def test_a_kubeconfig_is_for_one_cluster(api: Any, glebe: Any, tmp_path: Path) -> None:
    pki = Pki(tmp_path / "data" / "pki")
    pki.ensure(["127.0.0.1"], Env.system().clock.now())
    admin = tmp_path / "admin"
    write_kubeconfig(admin, "https://127.0.0.1:6443", ca=pki.ca_pem, token="t")
    glebe("cluster", "create", "team-a")
    common = ("--kubeconfig", str(admin), "--data-dir", str(tmp_path / "data"))
    to = tmp_path / "team-a.kubeconfig"
    done = glebe("cluster", "kubeconfig", "team-a", "--to", str(to), "--user", "ann", "--groups", "dev,ops", *common)
    assert done.exit_code == 0, done.output
    config = load_kubeconfig(to)
    assert config.server == "https://127.0.0.1:6443/clusters/team-a"
    uid = json.loads(glebe("cluster", "get", "team-a", "-o", "json").output)[0]["metadata"]["uid"]
    raw = yaml.safe_load(to.read_text(encoding="utf-8"))["users"][0]["user"]["client-certificate-data"]
    certificate = x509.load_pem_x509_certificate(base64.b64decode(raw))
    names = certificate.extensions.get_extension_for_class(x509.SubjectAlternativeName).value
    assert names.get_values_for_type(x509.UniformResourceIdentifier) == [f"urn:glebe:cluster:team-a:{uid}"]
    assert certificate.subject.rfc4514_string() in ("CN=ann,O=ops,O=dev", "CN=ann,O=ops+O=dev")
    elsewhere = glebe(
        "cluster", "kubeconfig", "team-a", "--kubeconfig", str(admin), "--data-dir", str(tmp_path / "none")
    )
    assert (elsewhere.exit_code, "--data-dir" in elsewhere.output) == (2, True)
    printed = glebe("cluster", "kubeconfig", "team-a", *common)
    assert yaml.safe_load(printed.output)["kind"] == "Config"
