"""The life of pods on a process node: probes, hooks, sidecars, restarts, ends; real processes, real API server."""

from __future__ import annotations

import asyncio
import errno
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from node_world import World, world
from test_node_process import SPEC, gone, machine, phase

from glebe.kube.clock import Env
from glebe.kube.objects import Object, condition_is_true
from glebe.kube.resources import EVENTS, PODS
from glebe.node.containers.rundir import runs_in
from glebe.node.process import runner
from glebe.node.process.node import ProcessNode

pytestmark = pytest.mark.realtime


def c(script: str, name: str = "c", **more: Any) -> dict[str, Any]:
    return {"name": name, "image": "i", "command": ["sh", "-c", script], **more}


def probe(command: str, **more: Any) -> dict[str, Any]:
    return {"exec": {"command": ["sh", "-c", command]}, "periodSeconds": 1, **more}


async def events(w: World, pod: str) -> list[tuple[str, str, str]]:
    """(reason, message, container) of the pod's events."""
    out = []
    for event in (await w.client.list(EVENTS, "default")).items:
        about = event["involvedObject"]
        if about["name"] == pod:
            part = about.get("fieldPath", "")
            out.append((event["reason"], event["message"], part.partition("{")[2].rstrip("}")))
    return out


async def until(w: World, name: str, look: Callable[[Object], Any], timeout: float = 8) -> Object:
    """The pod as soon as it looks so."""

    async def check() -> Any:
        pod = await w.get(name)
        return pod if pod.get("status") and look(pod) else None

    found: Object = await w.until(check, timeout=timeout, every=0.02)
    return found


def status_of(pod: Object, name: str = "c") -> dict[str, Any]:
    fields = ("containerStatuses", "initContainerStatuses", "ephemeralContainerStatuses")
    return next((s for f in fields for s in pod["status"].get(f) or () if s["name"] == name), {"state": {}})


def waiting(pod: Object, name: str = "c") -> str:
    return str((status_of(pod, name)["state"].get("waiting") or {}).get("reason", ""))


async def test_startup_holds_readiness_back_and_readiness_comes_and_goes(tmp_path: Path) -> None:
    async with machine(tmp_path) as (w, _):
        up, well = tmp_path / "up", tmp_path / "well"
        body = c(
            "sleep 60",
            startupProbe=probe(f"test -e {up}", failureThreshold=30),
            readinessProbe=probe(f"test -e {well}", failureThreshold=1),
        )
        await w.pod("p", "local", containers=[body])
        pod = await until(w, "p", lambda p: status_of(p)["state"].get("running"))
        assert (status_of(pod)["started"], status_of(pod)["ready"]) == (False, False)
        up.touch()
        pod = await until(w, "p", lambda p: status_of(p)["started"])
        assert not condition_is_true(pod, "Ready")
        well.touch()
        await until(w, "p", lambda p: condition_is_true(p, "Ready"))
        well.unlink()
        pod = await until(w, "p", lambda p: not condition_is_true(p, "Ready"))
        condition = next(x for x in pod["status"]["conditions"] if x["type"] == "Ready")
        assert condition["reason"] == "ContainersNotReady"
        assert condition["message"] == "containers with unready status: [c]"
        assert status_of(pod)["restartCount"] == 0
        assert ("Unhealthy", "Readiness probe failed: ", "c") in await events(w, "p")


async def test_what_fails_its_liveness_probe_is_started_again(tmp_path: Path) -> None:
    async with machine(tmp_path) as (w, node):
        sick, doomed = tmp_path / "sick", tmp_path / "doomed"

        def minded(file: Path) -> dict[str, Any]:
            look = probe(f"if test -e {file}; then echo ill; exit 1; fi", failureThreshold=1)
            return c("echo up; sleep 60", livenessProbe=look)

        await w.pod("p", "local", containers=[minded(sick)], restartPolicy="Always", terminationGracePeriodSeconds=5)
        await w.pod("once", "local", containers=[minded(doomed)], terminationGracePeriodSeconds=5)
        doomed.touch()
        await until(w, "p", lambda p: condition_is_true(p, "Ready"))
        sick.touch()
        pod = await until(w, "p", lambda p: status_of(p)["restartCount"] == 1)
        sick.unlink()
        pod = await until(w, "p", lambda p: condition_is_true(p, "Ready"))
        assert status_of(pod)["lastState"]["terminated"]["exitCode"] == 143
        said = await events(w, "p")
        assert ("Unhealthy", "Liveness probe failed: ill\n", "c") in said
        assert ("Killing", "Container c failed liveness probe, will be restarted", "c") in said
        await w.until(lambda: _logged(node, pod, "c", "up\n"), timeout=3, every=0.02)
        await phase(w, "once", "Failed")  # its policy is Never
        assert ("Killing", "Container c failed liveness probe", "c") in await events(w, "once")


async def test_sidecars_start_first_and_end_last_in_reverse(tmp_path: Path) -> None:
    diary = tmp_path / "diary"

    def sidecar(name: str, **more: Any) -> dict[str, Any]:
        script = f"trap 'echo -{name} >> {diary}; exit 0' TERM; echo +{name} >> {diary}; while :; do sleep 0.05; done"
        return c(script, name, restartPolicy="Always", **more)

    async with machine(tmp_path) as (w, _):
        gate = tmp_path / "gate"
        await w.pod(
            "p",
            "local",
            initContainers=[
                sidecar("a", startupProbe=probe(f"test -e {gate}", failureThreshold=30)),
                c(f"echo init >> {diary}", "i"),
                sidecar("b"),
            ],
            containers=[c(f"echo main >> {diary}; sleep 0.2")],
        )
        pod = await until(w, "p", lambda p: status_of(p, "a")["state"].get("running"))
        assert pod["status"]["phase"] == "Pending"
        assert (waiting(pod, "i"), waiting(pod)) == ("PodInitializing", "PodInitializing")
        gate.touch()
        pod = await phase(w, "p", "Succeeded")
        assert diary.read_text().split() == ["+a", "init", "+b", "main", "-b", "-a"]
        assert [status_of(pod, name)["state"]["terminated"]["exitCode"] for name in ("a", "b", "i", "c")] == [0] * 4
        assert ("Killing", "Stopping container a", "a") in await events(w, "p")


async def test_a_failed_init_container_fails_the_pod_and_ends_its_sidecars(tmp_path: Path) -> None:
    async with machine(tmp_path) as (w, _):
        init = [c("sleep 60", "s", restartPolicy="Always"), c("exit 7", "i")]
        await w.pod("p", "local", initContainers=init, containers=[c("echo never")], terminationGracePeriodSeconds=3)
        pod = await phase(w, "p", "Failed")
        assert status_of(pod, "i")["state"]["terminated"]["exitCode"] == 7
        assert status_of(pod, "s")["state"]["terminated"]["exitCode"] == 143
        assert waiting(pod) == "PodInitializing"  # as upstream leaves it


async def test_hooks_run_around_the_container(tmp_path: Path) -> None:
    diary = tmp_path / "diary"
    async with machine(tmp_path) as (w, _):
        script = f"trap 'echo term >> {diary}; exit 0' TERM; echo run >> {diary}; while :; do sleep 0.02; done"
        hooks = {
            "postStart": {"exec": {"command": ["sh", "-c", f"sleep 0.3; echo post >> {diary}"]}},
            "preStop": {"exec": {"command": ["sh", "-c", f"echo pre >> {diary}; sleep 0.2; echo pre2 >> {diary}"]}},
        }
        await w.pod("p", "local", containers=[c(script, lifecycle=hooks)], terminationGracePeriodSeconds=20)
        bad = {"postStart": {"exec": {"command": ["sh", "-c", "echo secret; exit 3"]}}}
        await w.pod("bad", "local", containers=[c("sleep 60", lifecycle=bad)], terminationGracePeriodSeconds=3)
        once = f"test -e {tmp_path}/once || {{ touch {tmp_path}/once; exit 1; }}"
        second = {"postStart": {"exec": {"command": ["sh", "-c", once]}}}
        await w.pod("second", "local", containers=[c("sleep 60", lifecycle=second)], restartPolicy="Always")
        slow = {"preStop": {"sleep": {"seconds": 60}}}
        await w.pod("slow", "local", containers=[c("sleep 60", lifecycle=slow)], terminationGracePeriodSeconds=1)
        await until(w, "p", lambda p: status_of(p)["state"].get("running"))
        assert diary.read_text().split() == ["run", "post"]  # not Running before the hook is done
        await w.client.delete(PODS, "p", "default")
        await gone(w, "p")
        assert diary.read_text().split() == ["run", "post", "pre", "pre2", "term"]
        await phase(w, "bad", "Failed")
        said = await events(w, "bad")
        assert ("FailedPostStartHook", "PostStartHook failed", "c") in said
        assert ("Killing", "FailedPostStartHook", "c") in said
        await until(w, "second", lambda p: status_of(p)["restartCount"] == 1 and condition_is_true(p, "Ready"))
        await until(w, "slow", lambda p: status_of(p)["state"].get("running"))
        began = asyncio.get_running_loop().time()
        await w.client.delete(PODS, "slow", "default")
        await gone(w, "slow")
        assert asyncio.get_running_loop().time() - began < 4  # the grace period bounds the hook, too


@pytest.mark.parametrize("isolate", [True, False])
async def test_crash_loops_bad_commands_and_missing_config_read_as_on_any_cluster(
    tmp_path: Path, isolate: bool
) -> None:
    async with machine(tmp_path, isolate) as (w, _):
        always = {"restartPolicy": "Always"}
        secret = [{"name": "A", "valueFrom": {"secretKeyRef": {"name": "none", "key": "k"}}}]
        rule = {"action": "Restart", "exitCodes": {"operator": "In", "values": [42]}}
        script = f"test -e {tmp_path}/r && exit 0; touch {tmp_path}/r; exit 42"
        pods: dict[str, dict[str, Any]] = {
            "crash": {"containers": [c('echo dying > "$GLEBE_TERMINATION_LOG"; exit 3')], **always},
            "command": {"containers": [{"name": "c", "image": "i", "command": ["/no/such"]}], **always},
            "config": {"containers": [c("true", env=secret)]},
            "volume": {"containers": [c("true")], "volumes": [{"name": "v", "configMap": {"name": "none"}}]},
            "big": {"containers": [c("true", resources={"requests": {"cpu": "64"}})]},
            "rules": {"containers": [c(script, restartPolicy="Never", restartPolicyRules=[rule])]},
            "root": {"containers": [c("true", securityContext={"runAsNonRoot": True, "runAsUser": 0})]},
        }
        for name, spec in pods.items():
            await w.pod(name, "local", **spec)
        crash = await until(w, "crash", lambda p: waiting(p) == "CrashLoopBackOff")
        uid = crash["metadata"]["uid"]
        message = status_of(crash)["state"]["waiting"]["message"]
        assert message == f"back-off 10s restarting failed container=c pod=crash_default({uid})"
        ended = status_of(crash)["lastState"]["terminated"]
        assert (ended["exitCode"], ended["message"], ended["containerID"][-4:]) == (3, "dying\n", "/c/1")
        assert crash["status"]["phase"] == "Running"
        back_off = f"Back-off restarting failed container c in pod crash_default({uid})"
        assert ("BackOff", back_off, "c") in await events(w, "crash")
        command = await until(w, "command", lambda p: waiting(p) == "CrashLoopBackOff")
        assert status_of(command)["lastState"]["terminated"]["reason"] == "StartError"
        config = await until(w, "config", lambda p: waiting(p) == "CreateContainerConfigError")
        assert status_of(config)["state"]["waiting"]["message"] == 'secret "none" not found'
        assert ("Failed", 'Error: secret "none" not found', "c") in await events(w, "config")
        volume = await w.get("volume")
        assert (volume["status"]["phase"], waiting(volume)) == ("Pending", "ContainerCreating")
        (mount,) = [text for reason, text, _ in await events(w, "volume") if reason == "FailedMount"]
        assert mount == 'MountVolume.SetUp failed for volume "v" : configmap "none" not found'
        big = await phase(w, "big", "Failed")
        assert big["status"]["reason"] == "OutOfcpu"
        assert big["status"]["message"].startswith(
            "Pod was rejected: Node didn't have enough resource: cpu, requested: 64000"
        )
        rules = await phase(w, "rules", "Succeeded")
        assert status_of(rules)["restartCount"] == 1
        root = await until(w, "root", lambda p: waiting(p) == "CreateContainerConfigError")
        assert "runAsUser breaks non-root policy" in status_of(root)["state"]["waiting"]["message"]


async def test_readiness_gates_are_minded_when_others_write_them(tmp_path: Path) -> None:
    async with machine(tmp_path) as (w, _):
        await w.pod("p", "local", containers=[c("sleep 60")], readinessGates=[{"conditionType": "x/a"}])
        pod = await until(w, "p", lambda p: status_of(p)["state"].get("running"))
        assert condition_is_true(pod, "ContainersReady")
        assert not condition_is_true(pod, "Ready")
        patch = {"status": {"conditions": [{"type": "x/a", "status": "True"}]}}
        await w.client.patch(PODS, "p", patch, "default", subresource="status", kind="strategic")
        await until(w, "p", lambda p: condition_is_true(p, "Ready"))


async def test_without_mounts_scripts_probes_and_hooks_name_the_mount_path(tmp_path: Path) -> None:
    place = "/glebe-is-not-here"
    body = c(
        f"echo main >> {place}/diary; sleep 60; echo said > /dev/termination-log",
        volumeMounts=[{"name": "v", "mountPath": place}],
        readinessProbe=probe(f"grep -q hook '{place}/diary'"),
        lifecycle={"postStart": {"exec": {"command": ["sh", "-c", f"echo hook >>{place}/diary"]}}},
    )
    brief = c("echo last words >/dev/termination-log; exit 3", "brief")
    async with machine(tmp_path, isolate=False) as (w, _):
        await w.pod("p", "local", containers=[body], volumes=[{"name": "v", "emptyDir": {}}])
        await w.pod("q", "local", containers=[brief], restartPolicy="Never")
        await until(w, "p", lambda p: condition_is_true(p, "Ready"))
        failed = await until(w, "q", lambda p: status_of(p, "brief")["state"].get("terminated"))
        assert status_of(failed, "brief")["state"]["terminated"]["message"] == "last words\n"


async def test_a_pod_that_others_called_not_ready_says_what_it_is(tmp_path: Path) -> None:
    async with machine(tmp_path) as (w, _):
        await w.pod("p", "local", containers=[c("sleep 60")])
        await until(w, "p", lambda p: condition_is_true(p, "Ready"))
        patch = {"status": {"conditions": [{"type": "Ready", "status": "False"}]}}
        said = await w.client.patch(PODS, "p", patch, "default", subresource="status", kind="strategic")
        assert not condition_is_true(said, "Ready")
        await until(w, "p", lambda p: condition_is_true(p, "Ready"))


async def test_a_rule_starts_the_whole_pod_again(tmp_path: Path) -> None:
    diary = tmp_path / "diary"
    rule = {"action": "RestartAllContainers", "exitCodes": {"operator": "In", "values": [88]}}
    async with machine(tmp_path) as (w, _):
        again = f"test -e {tmp_path}/flag && exit 0; touch {tmp_path}/flag; sleep 0.1; exit 88"
        await w.pod(
            "p",
            "local",
            initContainers=[
                c(f"echo side >> {diary}; sleep 60", "s", restartPolicy="Always"),
                c(f"echo init >> {diary}", "i"),
            ],
            containers=[
                c(again, restartPolicy="Never", restartPolicyRules=[rule]),
                c(f"echo other >> {diary}; test -e {tmp_path}/flag || sleep 60", "o"),
            ],
            terminationGracePeriodSeconds=3,
        )
        pod = await phase(w, "p", "Succeeded")
        assert diary.read_text().split() == ["side", "init", "other"] * 2
        assert [status_of(pod, name)["restartCount"] for name in ("s", "i", "c", "o")] == [1, 1, 1, 1]
        assert status_of(pod)["lastState"]["terminated"]["exitCode"] == 88
        conditions = {x["type"]: x["status"] for x in pod["status"]["conditions"]}
        assert conditions["AllContainersRestarting"] == "False"


async def test_resources_are_changed_in_place_or_by_a_restart_or_later(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(runner, "_RESIZE", 0.1)

    def sized(cpu: str, memory: str) -> dict[str, Any]:
        return {"requests": {"cpu": cpu, "memory": memory}, "limits": {"cpu": cpu, "memory": memory}}

    async with machine(tmp_path) as (w, _):
        policy = [{"resourceName": "memory", "restartPolicy": "RestartContainer"}]
        body = c("sleep 60", resources=sized("100m", "64Mi"), resizePolicy=policy)
        await w.pod("p", "local", containers=[body], restartPolicy="Always", terminationGracePeriodSeconds=3)
        pod = await until(w, "p", lambda p: status_of(p)["state"].get("running"))
        assert status_of(pod)["resources"] == sized("100m", "64Mi")
        assert status_of(pod)["allocatedResources"] == {"cpu": "100m", "memory": "64Mi"}

        async def ask(cpu: str, memory: str) -> None:
            patch = {"spec": {"containers": [{"name": "c", "resources": sized(cpu, memory)}]}}
            await w.client.patch(PODS, "p", patch, "default", subresource="resize", kind="strategic")

        await ask("200m", "64Mi")
        pod = await until(w, "p", lambda p: status_of(p)["resources"] == sized("200m", "64Mi"))
        assert status_of(pod)["restartCount"] == 0
        await ask("200m", "32Mi")
        pod = await until(w, "p", lambda p: status_of(p)["restartCount"] == 1 and status_of(p)["state"].get("running"))
        assert status_of(pod)["resources"] == sized("200m", "32Mi")
        await w.pod("other", "local", containers=[c("sleep 60", resources=sized("1500m", "32Mi"))])
        await until(w, "other", lambda p: status_of(p)["state"].get("running"))
        await ask("1", "32Mi")
        pod = await until(w, "p", lambda p: any(x["type"] == "PodResizePending" for x in p["status"]["conditions"]))
        pending = next(x for x in pod["status"]["conditions"] if x["type"] == "PodResizePending")
        assert pending["reason"] == "Deferred"
        text = "Node didn't have enough resource: cpu, requested: 1000, used: 1500, capacity: 2000"
        assert pending["message"] == text
        assert status_of(pod)["resources"] == sized("200m", "32Mi")
        reasons = [reason for reason, _, _ in await events(w, "p")]
        assert {"ResizeStarted", "ResizeCompleted", "ResizeDeferred"} <= set(reasons)
        assert ("Killing", "Container c resize requires restart", "c") in await events(w, "p")
        await w.client.delete(PODS, "other", "default", grace_period=0)
        pod = await until(w, "p", lambda p: status_of(p)["resources"] == sized("1", "32Mi"))
        assert not any(x["type"] == "PodResizePending" for x in pod["status"]["conditions"])


async def test_a_full_disk_is_told_and_waited_for(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    full = [True]
    mkdir = Path.mkdir

    def refuse(path: Path, *arguments: Any, **options: Any) -> None:
        if full and path.name == "0":
            raise OSError(errno.ENOSPC, "No space left on device", str(path))
        mkdir(path, *arguments, **options)

    monkeypatch.setattr(Path, "mkdir", refuse)
    async with machine(tmp_path) as (w, _):
        await w.pod("p", "local", containers=[c("true")])
        pod = await until(w, "p", lambda p: waiting(p) == "CreateContainerError")
        assert status_of(pod)["state"]["waiting"]["message"].endswith("/c/0: no space left on device")
        full.clear()
        pod = await phase(w, "p", "Succeeded")
        assert any(text.startswith("Error: /") for reason, text, _ in await events(w, "p") if reason == "Failed")


@pytest.mark.parametrize("isolate", [True, False])
async def test_an_ephemeral_container_joins_and_does_not_keep_the_pod(tmp_path: Path, isolate: bool) -> None:
    async with machine(tmp_path, isolate) as (w, node):
        await w.pod("p", "local", containers=[c(f"while ! test -e {tmp_path}/go; do sleep 0.05; done")])
        await until(w, "p", lambda p: status_of(p)["state"].get("running"))
        debug = {"spec": {"ephemeralContainers": [c("echo debugging; sleep 60", "debug")]}}
        await w.client.patch(PODS, "p", debug, "default", subresource="ephemeralcontainers")
        pod = await until(w, "p", lambda p: status_of(p, "debug")["state"].get("running"))
        await w.until(lambda: _logged(node, pod, "debug", "debugging\n"), timeout=3, every=0.02)
        (tmp_path / "go").touch()
        pod = await phase(w, "p", "Succeeded")
        assert status_of(pod, "debug")["state"]["terminated"]["exitCode"] == 143


async def _logged(node: ProcessNode, pod: Object, container: str, text: str) -> bool:
    return b"".join([chunk async for chunk in node.logs(pod, container)]).decode() == text


async def test_a_new_agent_keeps_what_probes_have_said_and_does_not_run_lost_pods_again(tmp_path: Path) -> None:
    diary = tmp_path / "diary"
    async with world(Env.system()) as w:

        def agent() -> ProcessNode:
            return ProcessNode(w.client, w.env, SPEC, tmp_path, window=10.0)

        first = agent()
        task = w.spawn(first.run())
        await first.wait_registered()
        slow = probe("true", periodSeconds=600)
        body = c(f"echo run >> {diary}; sleep 60", readinessProbe=slow, startupProbe=slow)
        await w.pod("p", "local", containers=[body])
        await w.pod("lost", "local", containers=[c(f"echo lost >> {diary}; sleep 60")])
        pod = await until(w, "p", lambda p: condition_is_true(p, "Ready"))
        since = next(x["lastTransitionTime"] for x in pod["status"]["conditions"] if x["type"] == "Ready")
        lost = await until(w, "lost", lambda p: status_of(p)["state"].get("running"))
        await w.stop(task)
        directory = tmp_path / "local" / "pods" / lost["metadata"]["uid"]
        (run,) = runs_in(directory)
        run.stop(0.0)
        await run.wait()
        shutil.rmtree(directory)
        second = agent()
        w.spawn(second.run())
        pod = await phase(w, "lost", "Failed")
        ended = status_of(pod)["state"]["terminated"]
        assert (ended["exitCode"], ended["reason"]) == (137, "ContainerStatusUnknown")
        pod = await w.get("p")
        assert condition_is_true(pod, "Ready")
        assert next(x["lastTransitionTime"] for x in pod["status"]["conditions"] if x["type"] == "Ready") == since
        assert sorted(diary.read_text().split()) == ["lost", "run"]
        await second.drain(0.0)
