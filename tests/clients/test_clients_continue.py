"""`glebe up` again: after Ctrl-C, after kill -9, beside a running one, and with things it cannot use."""

from __future__ import annotations

import json
import subprocess
from pathlib import Path

from glebe_up import GLEBE, Up, until

FLEET = """\
apiVersion: glebe.dev/v1alpha1
kind: Fleet
pools:
- name: h100
  count: 4
  gpu: {model: h100-sxm5-80gb, count: 8}
  topology: {nodesPerRack: 2}
  runTime: 30m
local: {enabled: true, name: local}
"""


def states(up: Up) -> dict[str, str]:
    return {row["name"]: row["state"] for row in json.loads(up.glebe("jobs", "-o", "json"))}


def submit(up: Up, name: str, *more: str) -> None:
    up.glebe("run", "--name", name, "--nodes", "3", "--gpus-per-node", "8", "-d", *more, "--", "train")


def failing(*arguments: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run([*GLEBE, *arguments], capture_output=True, text=True, timeout=30, check=False)


def test_everything_continues_after_ctrl_c_and_after_kill_9(tmp_path: Path) -> None:
    fleet = tmp_path / "fleet.yaml"
    fleet.write_text(FLEET)
    data = tmp_path / "data"
    first = Up(data, "--fleet", str(fleet))
    try:
        submit(first, "running", "--expected", "30m")
        submit(first, "waiting", "--expected", "10m")
        until("one runs and one waits", lambda: states(first) == {"running": "Running", "waiting": "Waiting"})
        before = json.loads(first.glebe("jobs", "-o", "json"))
        first.stop()
        assert "continue with: glebe up --data-dir" in first.lines[-1]
    finally:
        if first.process.poll() is None:
            first.kill()

    second = Up(data)  # the fleet file is remembered
    try:
        assert states(second) == {"running": "Running", "waiting": "Waiting"}
        submit(second, "acknowledged")
        second.kill()
    finally:
        second.kill()

    third = Up(data)
    try:
        until("the last job is in the queue", lambda: states(third).get("acknowledged") == "Waiting")
        after = {row["name"]: row for row in json.loads(third.glebe("jobs", "-o", "json"))}
        for row in before:
            for key in ("started", "created", "nodes", "workload"):
                assert after[row["name"]][key] == row[key], key
        third.glebe("cancel", "running")
        until("the next in the queue starts", lambda: states(third).get("waiting") == "Running")
        third.stop()
    finally:
        if third.process.poll() is None:
            third.kill()


def test_a_real_process_outlives_the_platform_for_the_next_one(tmp_path: Path) -> None:
    data = tmp_path / "data"
    first = Up(data)
    try:
        first.glebe(
            "run", "--name", "slow", "--queue", "local", "--cpus-per-node", "100m", "-d", "--",
            "sh", "-c", "echo began; sleep 6; echo ended",
        )  # fmt: skip
        until("it runs", lambda: states(first).get("slow") == "Running")
    finally:
        first.kill()
    second = Up(data)
    try:
        until("it ends well", lambda: states(second).get("slow") == "Succeeded", 30)
        assert second.glebe("logs", "slow").splitlines() == ["began", "ended"], "it ran once, not twice"
        second.stop()
    finally:
        if second.process.poll() is None:
            second.kill()


def test_a_second_process_on_the_same_directory_is_refused(tmp_path: Path) -> None:
    up = Up(tmp_path / "data")
    try:
        done = failing("up", "--data-dir", str(up.data))
        assert done.returncode == 7
        assert f"is in use by process {up.process.pid}" in done.stderr
        assert "--data-dir" in done.stderr
        up.stop()
    finally:
        if up.process.poll() is None:
            up.kill()


def test_bad_starts_name_the_field_and_the_remedy(tmp_path: Path) -> None:
    broken = tmp_path / "fleet.yaml"
    broken.write_text(FLEET.replace("count: 4", "count: four"))
    done = failing("up", "--data-dir", str(tmp_path / "a"), "--fleet", str(broken))
    assert done.returncode == 2
    assert f"error: {broken}: pools[0].count: " in done.stderr
    assert "try: " in done.stderr
    missing = failing("up", "--data-dir", str(tmp_path / "a"), "--fleet", str(tmp_path / "no.yaml"))
    assert missing.returncode == 2
    assert "cannot read the fleet file" in missing.stderr
    assert failing("up", "--data-dir", str(tmp_path / "a"), "--listen", "nonsense").returncode == 2
    for listen in ("203.0.113.7:0", "nosuchhost.invalid:0"):
        unreachable = failing("up", "--data-dir", str(tmp_path / "a"), "--listen", listen)
        assert unreachable.returncode == 2
        assert unreachable.stderr.startswith(f"error: --listen: cannot listen on {listen}: "), unreachable.stderr
    damaged = tmp_path / "damaged"
    damaged.mkdir()
    (damaged / "glebe.db").write_bytes(b"this is no database" * 500)
    broken_store = failing("up", "--data-dir", str(damaged))
    assert broken_store.returncode == 2
    assert "is damaged" in broken_store.stderr
    taken = tmp_path / "file"
    taken.write_text("not a directory")
    assert failing("up", "--data-dir", str(taken)).returncode == 2


def test_without_a_platform_the_command_says_so(tmp_path: Path) -> None:
    kubeconfig = tmp_path / "kubeconfig"
    done = failing("jobs", "--kubeconfig", str(kubeconfig))
    assert done.returncode == 2
    assert str(kubeconfig) in done.stderr
    up = Up(tmp_path / "data")
    up.kill()
    gone = failing("jobs", "--kubeconfig", str(up.kubeconfig))
    assert gone.returncode == 4
    assert "is the platform running? glebe up" in gone.stderr
