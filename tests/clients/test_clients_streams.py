"""kubectl talks to real processes on the process node: exec, cp, attach, port-forward, logs, debug, top."""

from __future__ import annotations

import asyncio
import json
import os
import pty
import re
import shutil
import signal
import socket
import ssl
import subprocess
import time
import urllib.request
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import aiohttp
import pytest
from glebe_up import Up, until

from glebe.kube.kubeconfig import load_kubeconfig

pytestmark = [pytest.mark.realtime, pytest.mark.skipif(shutil.which("kubectl") is None, reason="needs kubectl")]
WEB = (
    "import http.server, os; http.server.HTTPServer((os.environ['POD_IP'], 8080), http.server.SimpleHTTPRequestHandler)"
)
TALK = "i=0; while true; do echo line $i; echo err $i >&2; i=$((i+1)); sleep 0.3; done"


def body(name: str, *containers: dict[str, Any], **spec: Any) -> dict[str, Any]:
    return {
        "apiVersion": "v1",
        "kind": "Pod",
        "metadata": {"name": name, "namespace": "default", "labels": {"app": name}},
        "spec": {
            "restartPolicy": "Never",
            "nodeSelector": {"glebe.dev/node-kind": "process"},
            "containers": [{"image": "i", **c} for c in containers],
            "terminationGracePeriodSeconds": 1,
            **spec,
        },
    }


@pytest.fixture(scope="module")
def pods(up: Up) -> Iterator[Up]:
    """Pods that all tests of this module talk to."""
    made = [
        body("talk", {"name": "c", "command": ["sh", "-c", TALK]}),
        body("web", {"name": "c", "command": ["python3", "-c", WEB + ".serve_forever()"], "ports": _PORTS}),
        body(
            "shell",
            {"name": "c", "command": ["sh"], "stdin": True, "tty": True},
            {"name": "plain", "command": ["sh", "-c", "while read l; do echo got $l; done"], "stdin": True},
        ),
        {
            "apiVersion": "v1",
            "kind": "Service",
            "metadata": {"name": "web", "namespace": "default"},
            "spec": {"selector": {"app": "web"}, "ports": [{"port": 80, "targetPort": "http"}]},
        },
    ]
    up.run("kubectl", "apply", "-f", "-", stdin=json.dumps({"apiVersion": "v1", "kind": "List", "items": made}))
    up.run("kubectl", "wait", "--for=condition=Ready", "pod/talk", "pod/web", "pod/shell", "--timeout=30s")
    yield up
    up.run("kubectl", "delete", "pods", "--all", "--now")


_PORTS = [{"name": "http", "containerPort": 8080}]


def exec_(up: Up, *command: str, expect: int = 0, stdin: str | None = None) -> str:
    given = ("-i",) if stdin is not None else ()
    return up.run("kubectl", "exec", *given, "talk", "--", *command, expect=expect, stdin=stdin)


def test_exec_outputs_input_and_exit_codes(pods: Up) -> None:
    assert exec_(pods, "sh", "-c", "echo out; echo err >&2") == "out\n"
    assert exec_(pods, "sort", "-r", stdin="a\nb\nc\n") == "c\nb\na\n"
    assert "command terminated with exit code 42" in exec_(pods, "sh", "-c", "exit 42", expect=42)
    assert "exit code 143" in exec_(pods, "sh", "-c", "kill -TERM $$", expect=143)
    assert "no-such-program" in exec_(pods, "no-such-program", expect=127)
    refused = pods.run("kubectl", "exec", "talk", "-c", "nope", "--", "ls", expect=1)
    assert "container nope is not valid for pod talk" in refused


def test_older_clients_speak_spdy(pods: Up) -> None:
    old = {**pods.environment, "KUBECTL_REMOTE_COMMAND_WEBSOCKETS": "false"}
    done = subprocess.run(
        ["kubectl", "exec", "-i", "talk", "--", "sh", "-c", "sort -r; echo err >&2; exit 9"],
        input="1\n2\n",
        capture_output=True,
        text=True,
        env=old,
        timeout=30,
        check=False,
    )
    assert (done.returncode, done.stdout) == (9, "2\n1\n")
    assert done.stderr.startswith("err\n")


def in_terminal(up: Up, typed: list[tuple[str, str]], *command: str) -> tuple[int, str]:
    """Run a command in a terminal of 99 columns and 44 rows: wait for a text, type another, and so on."""
    pid, master = pty.fork()
    if pid == 0:
        subprocess.run(["stty", "rows", "44", "cols", "99"], check=False)
        os.execvpe(command[0], command, up.environment)
    seen = ""
    deadline = time.monotonic() + 30
    for awaited, text in [*typed, ("\0", "")]:
        while awaited not in seen:
            assert time.monotonic() < deadline, seen
            try:
                seen += os.read(master, 4096).decode(errors="replace")
            except OSError:
                break
        if text:
            os.write(master, text.encode())
            seen = "" if awaited == "$" else seen
    os.close(master)
    return os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]), seen


def test_exec_in_a_terminal(pods: Up) -> None:
    script = "sleep 0.5; test -t 0 && stty size; read x; echo have $x; exit 5"
    code, seen = in_terminal(pods, [("44 99", "words\r")], "kubectl", "exec", "-it", "talk", "--", "sh", "-c", script)
    assert (code, "have words" in seen) == (5, True)


def test_attach(pods: Up) -> None:
    code, seen = in_terminal(
        pods, [("prompt", "echo $((6*7)); stty size\r"), ("44 99", "exit 0\r")], "kubectl", "attach", "-it", "shell"
    )
    assert (code, "42" in seen) == (0, True)
    attached = subprocess.Popen(
        ["kubectl", "attach", "-i", "shell", "-c", "plain"],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        env=pods.environment,
        text=True,
    )
    assert attached.stdin is not None
    assert attached.stdout is not None
    attached.stdin.write("something\n")
    attached.stdin.flush()
    assert attached.stdout.readline() == "got something\n"
    attached.kill()
    attached.wait()


def test_cp_both_ways(pods: Up, tmp_path: Path) -> None:
    source = tmp_path / "tree"
    (source / "deep").mkdir(parents=True)
    (source / "deep" / "big").write_bytes(os.urandom(3_000_000))
    (source / "small").write_text("text")
    there = f"{tmp_path}/there"
    pods.run("kubectl", "cp", str(source), f"talk:{there}")
    pods.run("kubectl", "cp", f"talk:{there}", str(tmp_path / "back"))
    for name in ("deep/big", "small"):
        assert (tmp_path / "back" / name).read_bytes() == (source / name).read_bytes()


class Forward:
    """A running `kubectl port-forward`."""

    def __init__(self, up: Up, *what: str, **environment: str) -> None:
        self.process = subprocess.Popen(
            ["kubectl", "port-forward", *what],
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
            env={**up.environment, **environment},
            text=True,
        )
        assert self.process.stdout is not None
        line = self.process.stdout.readline()
        found = re.search(r"127\.0\.0\.1:(\d+)", line)
        assert found is not None, line
        self.port = int(found[1])

    def __enter__(self) -> int:
        return self.port

    def __exit__(self, *_: object) -> None:
        self.process.send_signal(signal.SIGTERM)
        self.process.wait(10)


@pytest.mark.parametrize("websockets", ["true", "false"])
def test_port_forward(pods: Up, websockets: str) -> None:
    for what in ("pod/web", "service/web"):
        with Forward(
            pods, what, ":80" if "service" in what else ":8080", KUBECTL_PORT_FORWARD_WEBSOCKETS=websockets
        ) as port:
            for _ in range(3):
                with urllib.request.urlopen(f"http://127.0.0.1:{port}/", timeout=10) as answer:
                    assert answer.status == 200
    nowhere = Forward(pods, "pod/web", ":9", KUBECTL_PORT_FORWARD_WEBSOCKETS=websockets)
    with nowhere as port, socket.create_connection(("127.0.0.1", port), timeout=10) as connection:
        assert connection.recv(1) == b""


def test_logs(pods: Up) -> None:
    lines = pods.run("kubectl", "logs", "talk", "--tail=4").splitlines()
    assert 4 <= len(lines) <= 8, lines  # what is printed while it is read comes, too
    stamped = pods.run("kubectl", "logs", "-l", "app=talk", "--since=3s", "--timestamps").splitlines()
    assert 0 < len(stamped) < 40
    assert all(re.match(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d{9}Z (line|err) ", line) for line in stamped)
    follow = subprocess.Popen(
        ["kubectl", "logs", "-f", "talk", "--tail=1"], stdout=subprocess.PIPE, env=pods.environment, text=True
    )
    assert follow.stdout is not None
    assert [follow.stdout.readline().split()[0] for _ in range(5)].count("line") >= 2
    follow.kill()
    follow.wait()
    assert 'previous terminated container "c" in pod "talk" not found' in pods.run(
        "kubectl", "logs", "talk", "--previous", expect=1
    )
    errors = pods.run("kubectl", "get", "--raw", "/api/v1/namespaces/default/pods/talk/log?stream=Stderr&limitBytes=90")
    assert set(re.findall("err|line", errors)) == {"err"}


def test_logs_of_the_run_before(pods: Up) -> None:
    script = f"echo run; test -e {pods.data}/again && sleep 60; touch {pods.data}/again; exit 1"
    pods.run(
        "kubectl",
        "apply",
        "-f",
        "-",
        stdin=json.dumps(body("twice", {"name": "c", "command": ["sh", "-c", script]}, restartPolicy="OnFailure")),
    )
    until("the second run", lambda: pods.run("kubectl", "get", "pod", "twice", "-o", _RESTARTS) == "1", 30)
    until("the second run prints", lambda: pods.run("kubectl", "logs", "twice") == "run\n", 30)
    assert pods.run("kubectl", "logs", "twice", "--previous") == "run\n"
    waiting = body("waits", {"name": "c", "command": ["true"], "envFrom": [{"configMapRef": {"name": "none"}}]})
    pods.run("kubectl", "apply", "-f", "-", stdin=json.dumps(waiting))
    until("it waits", lambda: "CreateContainerConfigError" in pods.run("kubectl", "get", "pod", "waits"), 30)
    refused = pods.run("kubectl", "logs", "waits", expect=1)
    assert 'container "c" in pod "waits" is waiting to start: CreateContainerConfigError' in refused


_RESTARTS = "jsonpath={.status.containerStatuses[0].restartCount}"


def test_top(pods: Up) -> None:
    nodes = pods.run("kubectl", "top", "nodes", "--no-headers").split()
    assert nodes[0] == "h100-00"
    assert "local" in nodes
    rows = {
        line.split()[1]: line.split()
        for line in pods.run("kubectl", "top", "pods", "--containers", "--no-headers").splitlines()
        if "shell" in line
    }
    assert re.fullmatch(r"\d+m", rows["plain"][2])
    assert re.fullmatch(r"\d+Mi", rows["plain"][3])
    assert "pods.metrics.k8s.io" in pods.run("kubectl", "api-resources", "--api-group=metrics.k8s.io", "-o", "name")
    assert "PodMetrics" in pods.run("kubectl", "explain", "--api-version=metrics.k8s.io/v1beta1", "pods")
    assert "NotFound" in pods.run("kubectl", "top", "pod", "nobody", expect=1)


def test_simulated_pods_say_what_they_use_and_that_they_are_simulated(pods: Up) -> None:
    container = {"name": "c", "command": ["x"], "resources": {"requests": {"cpu": "500m", "memory": "64Mi"}}}
    pod = body("sim", container, nodeSelector={"glebe.dev/node-kind": "simulated"}, restartPolicy="Always")
    pod["metadata"]["annotations"] = {"sim.glebe.dev/cpu-usage": "50%"}
    pods.run("kubectl", "apply", "-f", "-", stdin=json.dumps(pod))
    pods.run("kubectl", "wait", "--for=condition=Ready", "pod/sim", "--timeout=30s")
    assert pods.run("kubectl", "top", "pod", "sim", "--no-headers").split() == ["sim", "250m", "64Mi"]
    pods.run("kubectl", "annotate", "pod", "sim", "--overwrite", "sim.glebe.dev/cpu-usage=70m")
    until("it uses less", lambda: "70m" in pods.run("kubectl", "top", "pod", "sim", "--no-headers"), 5)
    assert "is simulated" in pods.run("kubectl", "exec", "sim", "--", "ls", expect=1)


def test_the_node_answers_through_the_server(pods: Up) -> None:
    summary = json.loads(pods.run("kubectl", "get", "--raw", "/api/v1/nodes/local/proxy/stats/summary"))
    assert {"talk", "web"} <= {pod["podRef"]["name"] for pod in summary["pods"]}
    assert summary["node"]["memory"]["workingSetBytes"] > 0
    metrics = pods.run("kubectl", "get", "--raw", "/api/v1/nodes/local/proxy/metrics/resource")
    assert 'container_cpu_usage_seconds_total{container="c",namespace="default",pod="talk"}' in metrics
    running = json.loads(pods.run("kubectl", "get", "--raw", "/api/v1/nodes/local/proxy/runningpods/"))
    assert "web" in {pod["metadata"]["name"] for pod in running["items"]}


def test_nobody_else_may_ask_the_node(pods: Up) -> None:
    """Its port says nothing without a certificate, and nothing to a user without rights."""
    node = json.loads(pods.run("kubectl", "get", "node", "local", "-o", "json"))["status"]
    port = node["daemonEndpoints"]["kubeletEndpoint"]["Port"]
    address = next(a["address"] for a in node["addresses"] if a["type"] == "InternalIP")
    curl = ("curl", "-sk", "-o", "/dev/null", "-w", "%{http_code}", f"https://{address}:{port}/pods")
    assert pods.run(*curl) == "401"
    pods.run("kubectl", "create", "serviceaccount", "reader")
    pods.run("kubectl", "create", "clusterrole", "reads-nodes", "--verb=get", "--resource=nodes/pods")
    pods.run(
        "kubectl", "create", "clusterrolebinding", "r", "--clusterrole=reads-nodes", "--serviceaccount=default:reader"
    )
    for account, code in (("default", "403"), ("reader", "200")):
        token = pods.run("kubectl", "create", "token", account).strip()
        assert pods.run(*curl, "-H", f"Authorization: Bearer {token}") == code


def test_logs_and_exec_as_browsers_and_upstreams_specs_ask_for_them(pods: Up) -> None:
    """Bare WebSockets: logs in messages (binary.k8s.io), exec in the first protocol (channel.k8s.io)."""
    config = load_kubeconfig(pods.kubeconfig)
    context = ssl.create_default_context(cadata=config.ca.decode())
    identity = pods.data / "identity.pem"
    identity.write_bytes(config.certificate + config.key)
    context.load_cert_chain(identity)
    where = f"{config.server}/api/v1/namespaces/default/pods/talk"

    async def ask() -> tuple[bytes, bytes]:
        async with aiohttp.ClientSession(connector=aiohttp.TCPConnector(ssl=context)) as session:
            async with session.ws_connect(f"{where}/log?tailLines=2", protocols=("binary.k8s.io",)) as socket:
                lines = b"".join([message.data async for message in socket])
            url = f"{where}/exec?command=echo&command=remote%20execution%20test&stdout=1&stderr=1&container=c"
            async with session.ws_connect(url, protocols=("channel.k8s.io",)) as socket:
                said = b"".join([message.data[1:] async for message in socket if message.data[0] == 1])
        return lines, said

    lines, said = asyncio.run(ask())
    assert len(lines.splitlines()) == 2
    assert said == b"remote execution test\n"
