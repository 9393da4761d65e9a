"""Streams that end the hard way: clients and platforms that are killed leave nothing behind."""

from __future__ import annotations

import json
import os
import shutil
import signal
import subprocess
from pathlib import Path

import pytest
from glebe_up import Up, until

pytestmark = [pytest.mark.realtime, pytest.mark.skipif(shutil.which("kubectl") is None, reason="needs kubectl")]
FLEET = "apiVersion: glebe.dev/v1alpha1\nkind: Fleet\npools: []\nlocal: {enabled: true, name: local}\n"
BUSY = "sleep {0} & exec sleep {0}"


def sleepers(seconds: int, program: str = "sleep") -> list[int]:
    """The processes of ``sleep SECONDS`` on this machine."""
    found = []
    for path in Path("/proc").glob("[0-9]*/cmdline"):
        try:
            if path.read_bytes() == f"{program}\0{seconds}\0".encode():
                found.append(int(path.parent.name))
        except OSError:
            continue
    return found


def start(up: Up, *arguments: str) -> subprocess.Popen[bytes]:
    null = subprocess.DEVNULL
    return subprocess.Popen(
        ["kubectl", *arguments], stdin=null, stdout=subprocess.PIPE, stderr=null, env=up.environment
    )


def test_nothing_outlives_its_client_or_the_platform(tmp_path: Path) -> None:
    (tmp_path / "fleet.yaml").write_text(FLEET)
    fleet = str(tmp_path / "fleet.yaml")
    mark = 100_000 + os.getpid()  # seconds: nobody else sleeps so long on this machine
    up = Up(tmp_path / "up", "--fleet", fleet)
    try:
        pod = {
            "apiVersion": "v1",
            "kind": "Pod",
            "metadata": {"name": "p"},
            "spec": {
                "containers": [{"name": "c", "image": "i", "command": ["sh", "-c", "while :; do sleep 1; done"]}],
                "terminationGracePeriodSeconds": 0,
            },
        }
        up.run("kubectl", "apply", "-f", "-", stdin=json.dumps(pod))
        up.run("kubectl", "wait", "--for=condition=Ready", "pod/p", "--timeout=30s")

        killed = start(up, "exec", "p", "--", "sh", "-c", BUSY.format(mark))
        until("the processes run", lambda: len(sleepers(mark)) == 2, 10)
        killed.kill()
        killed.wait()
        until("they are gone with their client", lambda: not sleepers(mark), 10)

        stuck = start(up, "exec", "p", "--", "yes", str(mark))  # nobody reads its output
        until("it runs", lambda: sleepers(mark, "yes"), 10)
        os.kill(stuck.pid, signal.SIGSTOP)
        up.run("kubectl", "exec", "p", "--", "true")  # others are served meanwhile
        stuck.kill()
        stuck.wait()
        until("it is gone, though it was stuck", lambda: not sleepers(mark, "yes"), 20)

        left = start(up, "exec", "p", "--", "sh", "-c", BUSY.format(mark + 2))
        until("the processes run", lambda: len(sleepers(mark + 2)) == 2, 10)
        up.kill()
        until("they are gone with the platform", lambda: not sleepers(mark + 2), 10)
        left.wait(20)

        up = Up(tmp_path / "up", "--fleet", fleet)
        until("the pod is taken up again", lambda: "Running" in up.run("kubectl", "get", "pod", "p"), 20)
        again = ["kubectl", "exec", "p", "--", "echo", "again"]
        until(
            "it can be talked to again",
            lambda: subprocess.run(again, env=up.environment, capture_output=True, check=False).stdout == b"again\n",
            20,
        )
        # What detached itself belongs to the container, as on any Kubernetes, and ends with it.
        up.run("kubectl", "exec", "p", "--", "sh", "-c", f"setsid sleep {mark + 3} >/dev/null 2>&1 & sleep 0.5")
        assert len(sleepers(mark + 3)) == 1
        up.run("kubectl", "delete", "pod", "p", "--now")
        until("it is gone with its container", lambda: not sleepers(mark + 3), 10)
        up.stop()
    finally:
        if up.process.poll() is None:
            up.kill()
