"""`glebe run` as scripts and people use it: following, detaching, exit codes, dry runs."""

from __future__ import annotations

import json
import signal
import subprocess
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
from glebe_up import GLEBE, Up, until

LOCAL = ("--queue", "local", "--cpus-per-node", "100m", "--memory", "64Mi")


@contextmanager
def running(up: Up, *arguments: str) -> Iterator[tuple[subprocess.Popen[str], list[str], list[str]]]:
    """A command in the background, with what it has printed so far."""
    process = subprocess.Popen(
        [*GLEBE, *arguments],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        env=up.environment,
        # Who runs in the background of a script is deaf to Ctrl-C, and so would be what it starts.
        preexec_fn=lambda: signal.signal(signal.SIGINT, signal.SIG_DFL),
    )
    out: list[str] = []
    err: list[str] = []
    threads = []
    for stream, lines in ((process.stdout, out), (process.stderr, err)):
        assert stream is not None
        threads.append(threading.Thread(target=lambda s=stream, into=lines: into.extend(s), daemon=True))
        threads[-1].start()
    try:
        yield process, out, err
        process.wait(timeout=60)
        for thread in threads:
            thread.join(timeout=10)
    finally:
        if process.poll() is None:
            process.kill()
            process.wait()


def test_following_shows_the_log_and_ends_with_the_job(up: Up) -> None:
    program = "import os; print('rank', os.environ['RANK'], 'of', os.environ['WORLD_SIZE'])"
    told = up.glebe("run", "--name", "ok", *LOCAL, "--nodes", "2", "--", sys.executable, "-c", program)
    assert "ok is submitted to queue local of default: 2 pods, 0 GPUs, together" in told
    assert "rank 0 of 2" in told
    assert told.splitlines()[-1].startswith("Succeeded")
    assert up.glebe("logs", "ok", "--rank", "1") == "rank 1 of 2\n"


def test_a_failed_job_is_exit_code_1(up: Up) -> None:
    told = up.glebe("run", "--name", "bad", *LOCAL, "--", "sh", "-c", "echo oh no; exit 3", expect=1)
    assert "oh no" in told
    assert "Failed" in told


def test_ctrl_c_detaches_and_says_how_to_come_back(up: Up, tmp_path: Path) -> None:
    go_on = tmp_path / "go-on"
    command = ("sh", "-c", f"echo working; while [ ! -e {go_on} ]; do sleep 0.1; done; echo done")
    with running(up, "run", "--name", "long", *LOCAL, "--", *command) as (process, out, err):
        until("its log is shown", lambda: "working\n" in out)
        process.send_signal(signal.SIGINT)
    assert process.returncode == 130
    assert any(line.startswith("detached: long goes on.") for line in err)
    assert any("glebe logs -f long -n default" in line for line in err)
    assert not any("Traceback" in line for line in err)
    go_on.touch()
    assert up.glebe("logs", "-f", "long") == "working\ndone\n"
    until("it succeeded", lambda: "Succeeded" in up.glebe("jobs"))


def test_a_waiting_job_is_followed_through_the_queue(up: Up) -> None:
    with running(up, "run", "--name", "first", "--nodes", "16", "--gpus-per-node", "8", "--expected", "1m", "--", "x"):
        until("it runs", lambda: _state(up, "first") == "Running")
        arguments = ("run", "--name", "next", "--nodes", "8", "--gpus-per-node", "8", "--", "x")
        with running(up, *arguments) as (_, out, _):
            until("its wait is told", lambda: any(line.startswith("Waiting: position 1, 0 GPUs ahead") for line in out))
            up.glebe("cancel", "first")
            until("it runs", lambda: any(line.startswith("Running: 8 pods with 64 GPUs on") for line in out))
            assert any("last forecast P50" in line for line in out)
            up.glebe("cancel", "next")


def test_never_is_said_at_once(up: Up) -> None:
    told = up.glebe("run", "--name", "huge", "--nodes", "17", "--gpus-per-node", "8", "--", "x", expect=5)
    assert "Never starts" in told
    up.glebe("cancel", "huge")
    lost = up.glebe("run", "--name", "lost", "--queue", "nosuch", "--", "x", expect=5)
    assert 'LocalQueue "nosuch" does not exist' in lost
    up.glebe("cancel", "lost")


@pytest.mark.parametrize(
    ("arguments", "code", "words"),
    [
        (("--nodes", "8", "--gpus-per-node", "8"), 0, "would start now"),
        (("--nodes", "17", "--gpus-per-node", "8"), 5, "would never start"),
        (("--nodes", "5", "--gpus-per-node", "8", "--topology", "required", "rack"), 5, "would never start"),
        (("--class", "nosuch"), 2, "nosuch"),
        (("--queue", "nosuch"), 5, "nosuch"),
    ],
)
def test_dry_runs_answer_and_leave_nothing(up: Up, arguments: tuple[str, ...], code: int, words: str) -> None:
    told = up.glebe("run", "--name", "maybe", *arguments, "--dry-run", "--", "x", expect=code)
    assert words in told
    assert "maybe" not in up.glebe("jobs")
    if code != 2:
        assert json.loads(_json(up, arguments, code))["name"] == "maybe"


def _json(up: Up, arguments: tuple[str, ...], code: int) -> str:
    done = subprocess.run(
        [*GLEBE, "run", "--name", "maybe", *arguments, "--dry-run", "-o", "json", "--", "x"],
        capture_output=True,
        text=True,
        env=up.environment,
        timeout=60,
        check=False,
    )
    assert done.returncode == code
    return done.stdout


def _state(up: Up, name: str) -> str:
    rows = json.loads(up.glebe("jobs", "-o", "json"))
    return next((row["state"] for row in rows if row["name"] == name), "")
