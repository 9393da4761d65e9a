"""The story of one 64-GPU training job, told by running it: nothing is recorded, everything is checked.

Each scene drives the platform as a user would, through ``glebe`` commands and manifests, and ends with a check of
what the scene promises. The first promise that does not hold ends the demo with exit code 1.
"""

from __future__ import annotations

import asyncio
import contextlib
import io
import json
import re
import signal
import sys
import tempfile
import time
from pathlib import Path
from typing import TYPE_CHECKING, Any

from glebe.cli.demo.stage import DemoFailed, Stage

if TYPE_CHECKING:
    from collections.abc import Iterator

    from glebe.kube.objects import Object

JOB, TEAM = "train-64", "team-a"
REAL_JOB, RANKS = "learn", 4


def main(data_dir: str, deadline: float) -> int:
    """Tell the story; returns the exit code."""
    began = time.monotonic()
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))  # so that the platform is stopped on the way out
    with _directory(data_dir) as directory:
        stage = Stage(directory, deadline)
        try:
            _tell(stage, examples_dir())
        except DemoFailed as error:
            print(f"\nThe demo failed: {error}", file=sys.stderr)
            return 1
        finally:
            stage.abort()
    print(f"\nAll of it happened, in {time.monotonic() - began:.0f} s.")
    return 0


def examples_dir() -> Path:
    """The ``examples`` folder of the checkout that this code runs from.

    :raises DemoFailed: when there is none.
    """
    path = Path(__file__).resolve().parents[4] / "examples"
    if not (path / "training-64gpu.yaml").is_file():
        raise DemoFailed(f"there are no examples at {path}: run the demo from a checkout of the repository")
    return path


@contextlib.contextmanager
def _directory(data_dir: str) -> Iterator[Path]:
    if data_dir:
        yield Path(data_dir).absolute()
    else:
        with tempfile.TemporaryDirectory(prefix="glebe-demo-", ignore_cleanup_errors=True) as path:
            yield Path(path)


def _tell(stage: Stage, examples: Path) -> None:
    _start(stage, examples)
    _fill(stage, examples)
    promised = _submit(stage, examples)
    _gang(stage, promised)
    _learn(stage, examples)
    _account(stage)
    stage.title("The end: Ctrl-C")
    stage.stop_platform()
    stage.say("The platform has stopped cleanly; `glebe up` on its directory would continue.")


def _start(stage: Stage, examples: Path) -> None:
    stage.title("A private GPU cloud in one process")
    ready = stage.start_platform(examples / "fleet.yaml")
    stage.say(f"$ glebe up --fleet examples/fleet.yaml &\n{ready}")
    nodes = stage.wait("all nodes are ready", lambda: _all_ready(stage, 17))
    stage.glebe("nodes")
    kinds = [node["kind"] for node in nodes]
    stage.check(kinds.count("simulated") == 16 and kinds.count("process") == 1, "16 simulated nodes and a real one")
    stage.check(sum(node["gpus"] for node in nodes) >= 128, "128 GPUs")


def _fill(stage: Stage, examples: Path) -> None:
    stage.title("Two teams share one cohort, and keep the fleet busy")
    _apply(stage, examples / "queues.yaml")
    _apply(stage, examples / "background.yaml")
    stage.wait("the background work runs", lambda: _busy(stage) or None)
    stage.glebe("jobs", "-A")


def _submit(stage: Stage, examples: Path) -> dict[str, Any]:
    """Submit the 64-GPU job; returns the first forecast that the queue gave."""
    stage.title("A data scientist submits a 64-GPU training job: 8 pods that start together, or not at all")
    _apply(stage, examples / "training-64gpu.yaml")
    row = stage.wait("the job has a forecast", lambda: _forecast(stage))
    stage.glebe("queue")
    stage.glebe("why", JOB, "-n", TEAM)
    stage.check(row["position"] >= 1, "a place in the queue")
    stage.check(row["gpus_ahead"] > 0, "GPUs ahead of it in the queue")
    stage.check(bool(row["message"] and row["remedy"]), "the binding constraint, and what would help")
    stage.check(row["start_p90"] >= row["start_p50"], "a forecast with P50 and P90")
    return row


def _gang(stage: Stage, promised: dict[str, Any]) -> None:
    stage.title("It starts as a gang, on nodes that stand close together")
    job = stage.wait("the job runs", lambda: _running(stage, JOB, 8))
    nodes = {node["name"]: node for node in _rows(stage, "nodes")}
    stage.glebe("jobs", "-n", TEAM)
    racks = sorted({nodes[name]["rack"] for name in job["nodes"]})
    blocks = {nodes[name]["block"] for name in job["nodes"]}
    stage.say(f"\n8 pods on 8 nodes in {len(racks)} racks ({', '.join(racks)}) of {len(blocks)} block")
    stage.check(len(job["nodes"]) == 8, "8 nodes with 8 GPUs each")
    stage.check(len(racks) == 2 and len(blocks) == 1, "64 GPUs on the fewest racks that hold them: 2 of one block")
    first, last = _first_and_last_start(stage)
    stage.check(last - first <= 5, f"all pods start together, not over {last - first:.0f} s")
    _promise_kept(stage, promised, job)


def _promise_kept(stage: Stage, promised: dict[str, Any], job: dict[str, Any]) -> None:
    from glebe.kube.clock import parse_time

    asked, actual = parse_time(promised["computed_at"]), parse_time(job["started"])
    p50, p90 = parse_time(promised["start_p50"]), parse_time(promised["start_p90"])
    stage.say(f"\n{'start of ' + JOB:22}{'time (UTC)':24}after the forecast was made")
    for title, moment in (("predicted, P50", p50), ("predicted, P90", p90), ("actual", actual)):
        text = {p50: promised["start_p50"], p90: promised["start_p90"], actual: job["started"]}[moment]
        stage.say(f"{title:22}{text:24}{moment - asked:.0f} s")
    stage.check(actual >= asked, "the job started after its forecast was made")


def _learn(stage: Stage, examples: Path) -> None:
    stage.title("Real work on this machine: 4 processes train one network, averaging gradients around a ring")
    program = examples / "train" / "train.py"
    arguments = ["run", "--name", REAL_JOB, "-n", TEAM, "--queue", "local", "--nodes", str(RANKS)]
    arguments += ["--cpus-per-node", "250m", "--memory", "256Mi", "--expected", "5s..20s", "--detach", "--"]
    stage.glebe(*arguments, sys.executable, str(program), shown_as=" ".join([*arguments, "python", "train.py"]))
    log = stage.glebe("logs", "-f", REAL_JOB, "-n", TEAM, show=False)
    stage.say(f"\n$ glebe logs -f {REAL_JOB} -n {TEAM}\n{_shortened(log)}")
    losses = [float(loss) for loss in re.findall(r"loss (\d+\.\d+)  gradients", log)]
    stage.check(len(losses) >= 20, "a loss for every step")
    stage.check(losses[-1] < losses[0] / 10, "a loss that falls")
    ended = stage.wait("the training succeeded", lambda: _ended(stage, REAL_JOB))
    stage.check(ended["state"] == "Succeeded", f"the training succeeds, not: {ended['state']}, {ended['message']}")
    for rank in range(1, RANKS):
        other = stage.glebe("logs", REAL_JOB, "-n", TEAM, "--rank", str(rank), show=False)
        stage.check(f"rank {rank} of {RANKS}" in other, f"rank {rank} was a process of its own")


def _account(stage: Stage) -> None:
    stage.title("Who used what, and what was idle")
    ended = stage.wait(f"{JOB} has ended", lambda: _ended(stage, JOB))
    stage.check(ended["state"] == "Succeeded", f"the 64-GPU job succeeds, not: {ended['state']}, {ended['message']}")
    stage.say(f"{JOB}: {ended['state']} ({ended['message']})")
    stage.wait("the ledger has its end", lambda: all(not row["gpus"] for row in _usage(stage, "team-a")) or None)
    stage.glebe("usage")
    usage = _json(stage, "usage")
    parts = sum(usage[f"{state}_gpu_seconds"] for state in ("allocated", "idle", "unhealthy"))
    stage.check(parts == usage["owned_gpu_seconds"], "allocated + idle + unhealthy = owned, to the second")
    by_team = {row["namespace"]: row["gpu_seconds"] for row in usage["rows"]}
    stage.check(by_team.get("team-a", 0) > 0 and by_team.get("team-b", 0) > 0, "GPU-hours of both teams")


# --- looking


def _json(stage: Stage, verb: str, *arguments: str) -> Any:
    """What ``glebe VERB -o json`` prints, asked in this process: quick enough to ask often."""
    import glebe.cli.main  # noqa: F401  (registers the verbs)
    from glebe.cli.app import app

    out = io.StringIO()
    with contextlib.redirect_stdout(out):
        code = app([verb, *arguments, "-o", "json", "--kubeconfig", str(stage.kubeconfig)], standalone_mode=False)
    if code:
        raise DemoFailed(f"glebe {verb} ended with {code}")
    return json.loads(out.getvalue())


def _rows(stage: Stage, verb: str, *arguments: str) -> list[dict[str, Any]]:
    return list(_json(stage, verb, *arguments))


def _usage(stage: Stage, namespace: str) -> list[dict[str, Any]]:
    return [row for row in _json(stage, "usage")["rows"] if row["namespace"] == namespace]


def _all_ready(stage: Stage, count: int) -> list[dict[str, Any]] | None:
    nodes = _rows(stage, "nodes")
    return nodes if len(nodes) == count and all(node["state"] == "Ready" for node in nodes) else None


def _busy(stage: Stage) -> bool:
    """112 GPUs in use, 48 waiting."""
    states = {row["name"]: row["state"] for row in _rows(stage, "jobs", "-A")}
    running = all(states.get(name) == "Running" for name in ("b-pretrain", "a-sweep", "b-eval"))
    return running and states.get("a-ablation") == "Waiting"


def _forecast(stage: Stage) -> dict[str, Any] | None:
    return next((row for row in _rows(stage, "queue") if row["name"] == JOB and row["start_p50"]), None)


def _job(stage: Stage, name: str) -> dict[str, Any]:
    return next((row for row in _rows(stage, "jobs", "-n", TEAM) if row["name"] == name), {})


def _running(stage: Stage, name: str, pods: int) -> dict[str, Any] | None:
    row = _job(stage, name)
    if row.get("state") in ("Failed", "Never starts"):
        raise DemoFailed(f"{name}: {row['state']}, {row['message']}")
    return row if row.get("state") == "Running" and row.get("pods_ready") == pods else None


def _ended(stage: Stage, name: str) -> dict[str, Any] | None:
    row = _job(stage, name)
    return row if row.get("state") in ("Succeeded", "Failed") else None


def _shortened(log: str) -> str:
    """The beginning, some of the middle and the end of a long log."""
    lines = log.rstrip("\n").splitlines()
    steps = [i for i, line in enumerate(lines) if line.startswith("step")]
    hidden = {i for number, i in enumerate(steps, 1) if number > 3 and number % 10 and i != steps[-1]}
    return "\n".join(line for i, line in enumerate(lines) if i not in hidden)


# --- through the API, where there is no verb for it


def _apply(stage: Stage, path: Path) -> None:
    from glebe.platform.manifests import apply_all, read_manifests

    objects = read_manifests(path)
    stage.say(f"\nthrough the API, as kubectl apply -f examples/{path.name} does:")
    _with_client(stage, lambda client: apply_all(client, objects))
    for obj in objects:
        stage.say(
            f"  {obj['kind']} {obj['metadata'].get('namespace', '')}/{obj['metadata']['name']}".replace(" /", " ")
        )


def _first_and_last_start(stage: Stage) -> tuple[float, float]:
    from glebe.kube import resources
    from glebe.kube.clock import parse_time
    from glebe.platform.jobspec import JOB_NAME_LABEL

    async def pods(client: Any) -> list[Object]:
        return list((await client.list_all(resources.PODS, TEAM, label_selector=f"{JOB_NAME_LABEL}={JOB}")).items)

    starts = [
        parse_time(pod["status"]["containerStatuses"][0]["state"]["running"]["startedAt"])
        for pod in _with_client(stage, pods)
        if pod["status"]["phase"] == "Running"
    ]
    stage.check(len(starts) == 8, "all 8 pods run at the same time")
    return min(starts), max(starts)


def _with_client(stage: Stage, use: Any) -> Any:
    from glebe.cli.command import Session

    async def work() -> Any:
        async with Session(kubeconfig=str(stage.kubeconfig)).connect() as client:
            return await use(client)

    return asyncio.run(work())
