"""Traces, fleets and policies from files; what replays of them say."""

from __future__ import annotations

import gzip
import json
from pathlib import Path

import pytest
from typer.testing import CliRunner

from glebe.cli.main import app
from glebe.platform import replays
from glebe.scheduling.model import Backfill
from glebe.scheduling.replay.scores import percentile, scores
from glebe.scheduling.replay.trace import TraceError, read_csv, read_swf

POLICY = """
apiVersion: kueue.x-k8s.io/v1beta2
kind: ResourceFlavor
metadata: {name: any}
---
apiVersion: kueue.x-k8s.io/v1beta2
kind: ClusterQueue
metadata: {name: all, annotations: {glebe.dev/backfill: MODE}}
spec:
  resourceGroups:
  - coveredResources: [nvidia.com/gpu]
    flavors: [{name: any, resources: [{name: nvidia.com/gpu, nominalQuota: 16}]}]
---
apiVersion: kueue.x-k8s.io/v1beta2
kind: LocalQueue
metadata: {name: team, namespace: a}
spec: {clusterQueue: all}
"""
FLEET = """
apiVersion: glebe.dev/v1alpha1
kind: Fleet
pools:
- {name: h100, count: 2, gpu: {model: h100-sxm5-80gb, count: 8}}
"""
TRACE = "when,secs,gpus,who\n" + "".join(f"{60 * i},{600 + i},{(4, 4, 16)[i % 3]},u{i % 4}\n" for i in range(60))
MAP = {"submitted": "when", "duration": "secs", "user": "who", "queue": "=team"}


@pytest.fixture
def files(tmp_path: Path) -> Path:
    (tmp_path / "t.csv").write_text(TRACE)
    (tmp_path / "t.csv.gz").write_bytes(gzip.compress(TRACE.encode()))
    (tmp_path / "fleet.yaml").write_text(FLEET)
    for mode in ("Greedy", "Reserve"):
        (tmp_path / f"{mode.lower()}.yaml").write_text(POLICY.replace("MODE", mode))
    return tmp_path


def test_csv_by_mapping(files: Path) -> None:
    trace = replays.read_trace(files / "t.csv", MAP)
    assert trace == replays.read_trace(files / "t.csv.gz", MAP)
    first = trace.jobs[0]
    assert (first.submitted, first.duration, first.gpus, first.user, first.queue) == (0.0, 600.0, 4, "u0", "team")
    when = read_csv(["submitted,duration,gpus", "2017-10-09 07:01:55,1,1", "1,0,1"], {})
    assert when.jobs[0].submitted == 1507532515.0
    assert when.left_out == 1


@pytest.mark.parametrize(
    ("lines", "mapping", "says"),
    [
        (["a,b"], {}, "no column submitted"),
        (["submitted,duration,gpus", "0,x,1"], {}, "line 2"),
        (["submitted,duration,gpus"], {"colour": "x"}, "no field colour"),
    ],
)
def test_csv_that_cannot_be_read(lines: list[str], mapping: dict[str, str], says: str) -> None:
    with pytest.raises(TraceError, match=says):
        read_csv(lines, mapping)


def test_swf() -> None:
    line = "1 100 5 3600 8 -1 -1 16 7200 -1 1 3 1 9 2 -1 -1 -1"
    trace = read_swf(["; Version: 2.2", line, "2 200 5 -1 8 -1 -1 8 7200 -1 5 3 1 9 2 -1 -1 -1"])
    (job,) = trace.jobs
    assert (job.gpus, job.limit, job.user, job.queue, job.image) == (16, 7200.0, "user-3", "queue-2", "app-9")
    assert trace.left_out == 1
    with pytest.raises(TraceError, match="line 1"):
        read_swf(["nonsense"])


def test_policies_and_fleets_are_read_as_the_queue_reads_them(files: Path) -> None:
    policy = replays.read_policy(files / "reserve.yaml")
    assert policy.world.queues[0].backfill is Backfill.RESERVE
    assert policy.gpus == 16
    assert sum(n.allocatable["nvidia.com/gpu"] for n in replays.read_fleet(files / "fleet.yaml")) == 16


def test_a_policy_without_the_traces_queue_is_an_error(files: Path) -> None:
    policy = replays.read_policy(files / "greedy.yaml")
    two = replays.Policy("two", policy.world.__class__(queues=policy.world.queues * 1), {})
    assert replays._queue("whatever", two) == "all", "the only one takes everything"


@pytest.mark.parametrize("run_times", ["history", "limits", "truth"])
def test_every_job_ends_and_is_counted(files: Path, run_times: str) -> None:
    trace = replays.read_trace(files / "t.csv", MAP)
    found = replays.replay(trace, replays.read_policy(files / "greedy.yaml"), run_times=run_times)
    assert found.scores["jobs"] == 60
    assert found.scores["neverStarted"] == 0
    assert 0 < found.scores["utilisation"] <= 1
    assert 0 < found.scores["fairness"] <= 1
    running = sorted(
        [(n.started or 0.0, n.job.gpus) for n in found.lives] + [(n.ended or 0, -n.job.gpus) for n in found.lives]
    )
    used = 0
    for _, change in sorted(running):
        used += change
        assert used <= 16
    assert (found.scores["forecast"]["told"] > 0) == (run_times == "history")


def test_on_nodes_and_by_quota(files: Path) -> None:
    trace = replays.read_trace(files / "t.csv", MAP)
    policy = replays.read_policy(files / "greedy.yaml")
    by_quota = replays.replay(trace, policy)
    on_nodes = replays.replay(trace, policy, replays.read_fleet(files / "fleet.yaml"))
    assert on_nodes.gpus == by_quota.gpus == 16
    assert on_nodes.scores["neverStarted"] == 0


def test_with_reservations_large_jobs_are_not_overtaken(files: Path) -> None:
    """Run times are unknown and unlimited: nobody who comes later starts before the large job that waits."""
    trace = replays.read_trace(files / "t.csv", MAP)

    def overtaken(name: str) -> int:
        lives = replays.replay(trace, replays.read_policy(files / f"{name}.yaml")).lives
        return sum(
            (later.started or 0.0) < (life.started or 0.0)
            for i, life in enumerate(lives)
            if life.job.gpus == 16
            for later in lives[i + 1 :]
        )

    assert overtaken("reserve") == 0 < overtaken("greedy")


def test_nothing_to_score() -> None:
    assert percentile([], 50) == 0.0
    assert scores([], 8)["wait"]["p99"] == 0.0


def run(files: Path, *more: str) -> tuple[int, str]:
    args = ["simulate", "--trace", str(files / "t.csv"), "--map", "submitted=when", "--map", "duration=secs"]
    done = CliRunner().invoke(app, [*args, "--map", "queue==team", "--map", "user=who", *more])
    return done.exit_code, done.output


def test_the_verb_compares_policies_and_fleets(files: Path) -> None:
    pytest.importorskip("matplotlib")
    paths = [str(files / f"{name}.yaml") for name in ("greedy", "reserve")]
    out, plot = files / "out.json", files / "plots"
    code, said = run(
        files, "--policy", paths[0], "--policy", paths[1], "--fleet", str(files / "fleet.yaml"),
        "--json", str(out), "--plot", str(plot),
    )  # fmt: skip
    assert code == 0, said
    assert "greedy on fleet" in said
    document = json.loads(out.read_text())
    assert set(document["replays"]) == {"greedy on fleet", "reserve on fleet"}
    assert document["replays"]["reserve on fleet"]["reservedStarts"] > 0
    assert (files / "plots.png").read_bytes().startswith(b"\x89PNG")
    assert "<svg" in (files / "plots.svg").read_text()


@pytest.mark.parametrize(
    ("more", "says"),
    [
        ((), "--policy"),
        (("--policy", "greedy.yaml", "--run-times", "tarot"), "tarot"),
        (("--policy", "fleet.yaml"), "ClusterQueue"),
    ],
)
def test_what_is_missing_is_said(files: Path, more: tuple[str, ...], says: str) -> None:
    code, said = run(files, *(str(files / m) if m.endswith(".yaml") else m for m in more))
    assert code == 2
    assert says in said


def test_a_policy_without_its_flavors_is_refused(tmp_path: Path) -> None:
    text = """
apiVersion: kueue.x-k8s.io/v1beta2
kind: ClusterQueue
metadata: {name: q}
spec:
  resourceGroups:
  - coveredResources: [nvidia.com/gpu]
    flavors: [{name: h100, resources: [{name: nvidia.com/gpu, nominalQuota: 8}]}]
"""
    (tmp_path / "p.yaml").write_text(text)
    (tmp_path / "t.csv").write_text("submitted,duration,gpus\n0,5,1\n")
    jobs = replays.read_trace(tmp_path / "t.csv", {})
    with pytest.raises(TraceError, match="policy p: queue q: flavor h100 does not exist; its flavors"):
        replays.replay(jobs, replays.read_policy(tmp_path / "p.yaml"))
