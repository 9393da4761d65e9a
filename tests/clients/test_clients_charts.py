"""Charts as teams bring them, with kubectl on `glebe up`: an application that is upgraded and rolled back, an operator.

``tests/unit/platform/test_platform_charts.py`` looks closer, under virtual time.
"""

from __future__ import annotations

import base64
import datetime
import hashlib
import ipaddress
import json
import os
import shutil
import signal
import socket
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from string import Template

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import NameOID
from glebe_up import Up, until

pytestmark = [
    pytest.mark.realtime,
    pytest.mark.skipif(shutil.which("kubectl") is None, reason="kubectl is not on PATH"),
]

HERE = Path(__file__).resolve().parent
CHARTS = HERE.parent / "charts"
FLEET = """\
apiVersion: glebe.dev/v1alpha1
kind: Fleet
pools:
- {name: cpu, count: 3, startDelay: 200ms}
local: {enabled: false}
"""


@pytest.fixture(scope="module")
def platform(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Up]:
    folder = Path(tmp_path_factory.mktemp("charts"))
    (folder / "fleet.yaml").write_text(FLEET)
    one = Up(folder / "data", "--fleet", str(folder / "fleet.yaml"))
    try:
        yield one
        one.stop()
    finally:
        if one.process.poll() is None:
            one.kill()


def render(chart: str, **values: str) -> str:
    text = (CHARTS / f"{chart}.yaml").read_text(encoding="utf-8")
    return Template(text).substitute(values)


def web(version: str, message: str) -> str:
    checksum = hashlib.sha256(message.encode()).hexdigest()
    return render("web", VERSION=version, MESSAGE=message, USAGE="50%", CHECKSUM=checksum)


def test_an_application_is_upgraded_twice_and_rolled_back(platform: Up) -> None:
    def kubectl(*arguments: str, stdin: str | None = None) -> str:
        return platform.run("kubectl", "--namespace=shop", *arguments, stdin=stdin)

    def image() -> str:
        return kubectl("get", "deployment/web", "-o", "jsonpath={.spec.template.spec.containers[0].image}")

    platform.run("kubectl", "create", "namespace", "shop")
    said = kubectl("apply", "-f", "-", stdin=web("1.0", "hello"))
    assert said.count(" created\n") == 7
    kubectl("rollout", "status", "deployment/web", "--timeout=60s")
    again = kubectl("apply", "-f", "-", stdin=web("1.0", "hello")).splitlines()
    # kubectl always patches a budget's selector, whose patch strategy is to replace it.
    assert [line for line in again if not line.endswith(" unchanged")] == ["poddisruptionbudget.policy/web configured"]

    kubectl("apply", "-f", "-", stdin=web("1.0", "good evening"))  # the configuration alone
    kubectl("rollout", "status", "deployment/web", "--timeout=60s")
    mine = ("--server-side", "--field-manager=helm", "--force-conflicts")
    kubectl("apply", *mine, "-f", "-", stdin=web("1.1", "good evening"))
    kubectl("rollout", "status", "deployment/web", "--timeout=60s")
    assert image().endswith(":1.1")
    history = kubectl("rollout", "history", "deployment/web").splitlines()
    assert [line.split()[0] for line in history if line[:1].isdigit()] == ["1", "2", "3"]

    kubectl("rollout", "undo", "deployment/web", "--to-revision=1")
    kubectl("rollout", "status", "deployment/web", "--timeout=60s")
    assert image().endswith(":1.0")
    pods = ("pods", "-l", "app.kubernetes.io/name=web")
    kubectl("wait", "--for=condition=Ready", *pods, "--timeout=60s")
    kubectl("wait", "--for=jsonpath={.status.desiredReplicas}=2", "hpa/web", "--timeout=60s")  # its minimum
    kubectl("rollout", "status", "deployment/web", "--timeout=60s")
    kubectl("wait", "--for=jsonpath={.status.currentHealthy}=2", "pdb/web", "--timeout=60s")
    assert "web.example.com" in kubectl("get", "ingress/web")
    assert "cpu: " in kubectl("get", "hpa/web")
    kubectl("delete", "-f", "-", stdin=web("1.0", "hello"))
    kubectl("wait", "--for=delete", *pods, "--timeout=60s")


# --- an operator


def certificate(path: Path) -> bytes:
    """Writes key and certificate for 127.0.0.1; returns the certificate."""
    key = ec.generate_private_key(ec.SECP256R1())
    name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "operator")])
    now = datetime.datetime.now(datetime.UTC)
    addresses = x509.SubjectAlternativeName([x509.IPAddress(ipaddress.ip_address("127.0.0.1"))])
    made = (
        x509.CertificateBuilder()
        .subject_name(name)
        .issuer_name(name)
        .public_key(key.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(now - datetime.timedelta(hours=1))
        .not_valid_after(now + datetime.timedelta(hours=1))
        .add_extension(addresses, critical=False)
        .add_extension(x509.BasicConstraints(ca=True, path_length=None), critical=True)
        .sign(key, hashes.SHA256())
    )
    private = key.private_bytes(
        serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
    )
    public = made.public_bytes(serialization.Encoding.PEM)
    path.write_bytes(private + public)
    return public


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


class Operator:
    """Two replicas of the operator, with the rights of its service account."""

    def __init__(self, platform: Up, folder: Path) -> None:
        self.platform, self.folder = platform, folder
        self.certificate = folder / "webhook.pem"
        ca = base64.b64encode(certificate(self.certificate)).decode()
        self.conversion, self.validation = free_port(), free_port()
        url = f"https://127.0.0.1:{self.conversion}/convert"
        parts = render("operator", CONVERSION=url, CA=ca).split("\n---\n")
        kinds = [part for part in parts if "kind: CustomResourceDefinition" in part]  # Helm installs these first
        platform.run("kubectl", "apply", "-f", "-", stdin="\n---\n".join(kinds))
        crds = ("crd/sites.charts.example.org", "crd/kopfpeerings.kopf.dev")
        platform.run("kubectl", "wait", "--for=condition=Established", *crds, "--timeout=30s")
        rest = "\n---\n".join(part for part in parts if part not in kinds)
        platform.run("kubectl", "apply", "-f", "-", stdin=rest)
        token = platform.run("kubectl", "--namespace=operator", "create", "token", "operator").strip()
        self.kubeconfig = folder / "operator.kubeconfig"
        shutil.copy(platform.kubeconfig, self.kubeconfig)
        config = f"--kubeconfig={self.kubeconfig}"
        platform.run("kubectl", config, "config", "set-credentials", "operator", f"--token={token}")
        platform.run("kubectl", config, "config", "set-context", "--current", "--user=operator")
        self.replicas: dict[str, subprocess.Popen[bytes]] = {}

    def start(self, name: str, priority: int, **more: str) -> None:
        command = [
            sys.executable, "-m", "kopf", "run", "--namespace=operator", "--peering=site-operator",
            f"--priority={priority}", str(HERE / "site_operator.py"),
        ]  # fmt: skip
        environment = {
            **os.environ, "KUBECONFIG": str(self.kubeconfig), "REPLICA": name, "CERTIFICATE": str(self.certificate),
            **more,
        }  # fmt: skip
        with (self.folder / f"{name}.log").open("wb") as log:
            self.replicas[name] = subprocess.Popen(command, stdout=log, stderr=log, env=environment)

    def stop(self) -> None:
        for process in self.replicas.values():
            process.kill()
            process.wait()


@pytest.fixture
def operator(platform: Up, tmp_path: Path) -> Iterator[Operator]:
    pytest.importorskip("kopf")
    pytest.importorskip("kubernetes")
    one = Operator(platform, tmp_path)
    try:
        yield one
    finally:
        one.stop()


def site(version: str, name: str, **spec: object) -> str:
    body = {"apiVersion": f"charts.example.org/{version}", "kind": "Site", "metadata": {"name": name}, "spec": spec}
    return json.dumps(body)


def test_an_operator_with_webhooks_rights_and_an_election(platform: Up, operator: Operator) -> None:
    def kubectl(*arguments: str, stdin: str | None = None, expect: int = 0) -> str:
        return platform.run("kubectl", "--namespace=operator", *arguments, stdin=stdin, expect=expect)

    def available(name: str, replicas: int) -> None:
        until(f"deployment {name}", lambda: f"deployment.apps/{name}" in kubectl("get", "deployments", "-o", "name"))
        want = f"--for=jsonpath={{.status.availableReplicas}}={replicas}"
        kubectl("wait", want, f"deployment/{name}", "--timeout=30s")

    hooks = {"CONVERSION": str(operator.conversion), "VALIDATION": str(operator.validation)}
    operator.start("first", 100, **hooks)
    find = ("get", "validatingwebhookconfigurations", "-o", "name")
    until("the operator registers its webhook", lambda: "sites.charts" in kubectl(*find))
    kubectl("apply", "-f", "-", stdin=site("v1", "one", replicas=2, text="a"))
    available("one", 2)
    assert kubectl("get", "site/one", "-o", "jsonpath={.status.by}") == "first"

    # What the webhooks are for: refusing, and understanding the old version.
    refused = kubectl("apply", "-f", "-", stdin=site("v1", "big", replicas=6), expect=1)
    assert "a site has at most 5 replicas" in refused
    kubectl("apply", "-f", "-", stdin=site("v1alpha1", "old", size=1))
    available("old", 1)
    assert kubectl("get", "sites.v1alpha1.charts.example.org/one", "-o", "jsonpath={.spec.size}") == "2"
    kubectl("patch", "site/one", "--type=merge", "-p", '{"spec": {"replicas": 3}}')
    available("one", 3)

    # What it may not do: its token is refused what its role does not name.
    config = f"--kubeconfig={operator.kubeconfig}"
    assert "forbidden" in kubectl(config, "get", "secrets", expect=1)

    # The second replica waits while the first one leads, and takes over when that is killed.
    operator.start("second", 50, VALIDATION=str(free_port()))

    def peers() -> int:
        return len(json.loads(kubectl("get", "kopfpeering/site-operator", "-o", "json")).get("status") or {})

    until("both replicas say that they are there", lambda: peers() == 2)
    kubectl("patch", "site/one", "--type=merge", "-p", '{"spec": {"replicas": 4}}')
    available("one", 4)
    assert kubectl("get", "site/one", "-o", "jsonpath={.status.by}") == "first"
    operator.replicas["first"].send_signal(signal.SIGKILL)
    operator.replicas["first"].wait()
    kubectl("patch", "site/one", "--type=merge", "-p", '{"spec": {"replicas": 1}}')
    available("one", 1)
    until("the second does the work", lambda: kubectl("get", "site/one", "-o", "jsonpath={.status.by}") == "second")

    # What belonged to a site goes with it.
    kubectl("delete", "sites", "--all", "--timeout=30s")
    kubectl("wait", "--for=delete", "deployments", "--all", "--timeout=30s")
