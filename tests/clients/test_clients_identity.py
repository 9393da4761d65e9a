"""Identity and rights with stock kubectl: who am I, what may I, tokens, certificates, roles."""

from __future__ import annotations

import json
import shutil
import ssl
import urllib.request
from base64 import b64decode, b64encode
from collections.abc import Iterator
from pathlib import Path

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import NameOID
from glebe_up import Up, until

pytestmark = pytest.mark.skipif(shutil.which("kubectl") is None, reason="kubectl is not on PATH")

ROLE = """\
apiVersion: rbac.authorization.k8s.io/v1
kind: ClusterRole
metadata:
  name: things
  labels: {rbac.authorization.k8s.io/aggregate-to-view: "true"}
rules: [{apiGroups: [example.org], resources: [things], verbs: [get]}]
"""


@pytest.fixture(scope="module")
def up(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Up]:
    data = Path(tmp_path_factory.mktemp("glebe"))
    tokens = data / "tokens.csv"
    tokens.write_text('secret-of-ann,ann,7,"dev"\n')
    platform = Up(data, "--token-auth-file", str(tokens), "--audit-log-path", str(data / "audit.log"))
    try:
        yield platform
        platform.stop()
    finally:
        if platform.process.poll() is None:
            platform.kill()


def kubectl(up: Up, *arguments: str, expect: int = 0, stdin: str | None = None) -> str:
    return up.run("kubectl", *arguments, expect=expect, stdin=stdin)


def test_who_am_i_and_what_may_i(up: Up) -> None:
    assert "glebe-admin" in kubectl(up, "auth", "whoami")
    assert kubectl(up, "auth", "can-i", "delete", "nodes").strip() == "yes"
    assert kubectl(up, "auth", "can-i", "list", "pods", "--as", "ann", expect=1).strip() == "no"
    kubectl(up, "create", "rolebinding", "ann", "--clusterrole", "view", "--user", "ann")
    assert kubectl(up, "auth", "can-i", "list", "pods", "--as", "ann").strip() == "yes"
    assert kubectl(up, "auth", "can-i", "list", "secrets", "--as", "ann", expect=1).strip() == "no"
    assert "pods" in kubectl(up, "auth", "can-i", "--list", "--as", "ann")
    assert "forbidden" in kubectl(up, "--as", "ann", "get", "nodes", expect=1)


def test_roles_are_reconciled_and_aggregated(up: Up) -> None:
    for _ in range(2):
        kubectl(up, "auth", "reconcile", "-f", "-", stdin=ROLE)
    for role in ("view", "edit", "admin"):
        until(role, lambda role=role: "example.org" in kubectl(up, "get", "clusterrole", role, "-o", "json"), 20)  # type: ignore[misc]


def test_a_token_is_good_and_is_seen_by_others(up: Up) -> None:
    kubectl(up, "create", "serviceaccount", "robot")
    token = kubectl(up, "create", "token", "robot", "--duration", "10m").strip()
    kubectl(up, "create", "secret", "generic", "anchor")
    bound = ("--bound-object-kind", "Secret", "--bound-object-name", "anchor")
    kubectl(up, "create", "token", "robot", *bound)
    config = json.loads(kubectl(up, "config", "view", "--raw", "-o", "json"))
    server = config["clusters"][0]["cluster"]
    trust = ssl.create_default_context(cadata=b64decode(server["certificate-authority-data"]).decode())

    def get(path: str) -> dict[str, object]:
        request = urllib.request.Request(server["server"] + path, headers={"authorization": f"Bearer {token}"})
        with urllib.request.urlopen(request, context=trust) as answer:
            return dict(json.load(answer))

    assert str(get("/.well-known/openid-configuration")["jwks_uri"]).endswith("/openid/v1/jwks")
    assert get("/openid/v1/jwks")["keys"]


def test_a_certificate_is_approved_and_signed(up: Up, tmp_path: Path) -> None:
    key = ec.generate_private_key(ec.SECP256R1())
    name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "eve")])
    pem = x509.CertificateSigningRequestBuilder().subject_name(name).sign(key, hashes.SHA256())
    request = {
        "apiVersion": "certificates.k8s.io/v1",
        "kind": "CertificateSigningRequest",
        "metadata": {"name": "eve"},
        "spec": {
            "request": b64encode(pem.public_bytes(serialization.Encoding.PEM)).decode(),
            "signerName": "kubernetes.io/kube-apiserver-client",
            "usages": ["client auth"],
        },
    }
    kubectl(up, "create", "-f", "-", stdin=json.dumps(request))
    kubectl(up, "certificate", "approve", "eve")
    path = "jsonpath={.status.certificate}"
    signed = until("signed", lambda: kubectl(up, "get", "csr", "eve", "-o", path), 20)
    (tmp_path / "crt").write_bytes(b64decode(signed))
    pkcs8 = serialization.PrivateFormat.PKCS8
    (tmp_path / "key").write_bytes(key.private_bytes(serialization.Encoding.PEM, pkcs8, serialization.NoEncryption()))
    kubectl(
        up, "config", "set-credentials", "eve", f"--client-certificate={tmp_path}/crt", f"--client-key={tmp_path}/key"
    )
    assert "eve" in kubectl(up, "--user", "eve", "auth", "whoami")


def test_the_audit_log_names_them(up: Up) -> None:
    log = up.data / "audit.log"
    assert "forbidden" in kubectl(up, "--as", "ann", "get", "persistentvolumes", expect=1)

    def seen() -> bool:
        events = [json.loads(line) for line in log.read_text().splitlines()]
        return any(
            e["user"].get("username") == "glebe-admin" and e.get("impersonatedUser", {}).get("username") == "ann"
            for e in events
        )

    until("ann in the log", seen, 10)
