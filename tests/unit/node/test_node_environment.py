from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest

from glebe.node.contracts import PodNetwork
from glebe.node.devices.grants import Grant
from glebe.node.network.addresses import Addresses
from glebe.node.process import launch
from glebe.node.values import environment
from glebe.node.values.environment import ConfigError
from glebe.node.volumes.rewrite import PathMap, places, replace_paths

DATA: dict[tuple[str, str], Mapping[str, str]] = {
    ("configmap", "cm"): {"a": "1", "b": "two"},
    ("secret", "s"): {"k": "v"},
}


def source(kind: str, name: str) -> Mapping[str, str] | None:
    return DATA.get((kind, name))


def pod(**spec: Any) -> dict[str, Any]:
    meta = {"name": "p", "namespace": "n", "uid": "u", "labels": {"x": "y"}, "annotations": {"g/h": "i"}}
    return {"metadata": meta, "spec": {"containers": [{"name": "c"}], "nodeName": "here", **spec}, "status": {}}


def build(container: dict[str, Any], base: dict[str, str] | None = None) -> dict[str, str]:
    return environment.build(pod(), container, base or {}, source)


@pytest.mark.parametrize(
    ("text", "expected"),
    [("$(A)", "1"), ("x$(A)y$(B)", "x1y$(B)"), ("$$(A)", "$(A)"), ("$A", "$A"), ("$$$(A)", "$1"), ("", "")],
)
def test_expansion(text: str, expected: str) -> None:
    assert environment.expand(text, {"A": "1"}) == expected


def test_env_from_comes_first_and_later_variables_see_earlier_ones() -> None:
    container = {
        "envFrom": [
            {"configMapRef": {"name": "cm"}, "prefix": "P_"},
            {"secretRef": {"name": "none", "optional": True}},
        ],
        "env": [{"name": "X", "value": "$(P_a)-$(HOME)"}, {"name": "P_b", "value": "over"}, {"name": "Y"}],
    }
    assert build(container, {"HOME": "/h"}) == {"HOME": "/h", "P_a": "1", "P_b": "over", "X": "1-/h", "Y": ""}


@pytest.mark.parametrize(
    ("value", "expected"),
    [
        ({"fieldRef": {"fieldPath": "metadata.labels['x']"}}, "y"),
        ({"fieldRef": {"fieldPath": "metadata.annotations['g/h']"}}, "i"),
        ({"fieldRef": {"fieldPath": "spec.nodeName"}}, "here"),
        ({"configMapKeyRef": {"name": "cm", "key": "b"}}, "two"),
        ({"secretKeyRef": {"name": "s", "key": "k"}}, "v"),
        ({"resourceFieldRef": {"resource": "limits.memory", "divisor": "1Mi"}}, "1026"),
        ({"resourceFieldRef": {"resource": "requests.cpu"}}, "2"),
    ],
)
def test_references(value: dict[str, Any], expected: str) -> None:
    resources = {"limits": {"memory": "1049601Ki", "cpu": "1500m"}}
    assert build({"env": [{"name": "V", "valueFrom": value}], "resources": resources}) == {"V": expected}


@pytest.mark.parametrize(
    ("value", "says"),
    [
        ({"fieldRef": {"fieldPath": "spec.nothing"}}, "unsupported fieldPath"),
        ({"configMapKeyRef": {"name": "none", "key": "b"}}, 'configmap "none" not found'),
        ({"secretKeyRef": {"name": "s", "key": "no"}}, "couldn't find key no in Secret n/s"),
        ({"resourceFieldRef": {"resource": "speed"}}, "unsupported resource"),
        ({"resourceFieldRef": {"resource": "limits.cpu", "containerName": "z"}}, "container z not found"),
    ],
)
def test_missing_references_are_named(value: dict[str, Any], says: str) -> None:
    with pytest.raises(ConfigError, match=says):
        build({"env": [{"name": "V", "valueFrom": value}]})


def test_mount_paths_are_rewritten_as_whole_paths_only(tmp_path: Path) -> None:
    v, w = tmp_path / "v", tmp_path / "w"
    w.mkdir()
    mounts = [{"name": "v", "mountPath": "/data"}, {"name": "w", "mountPath": "/data/sub", "subPath": "s"}]
    paths = PathMap({"volumeMounts": mounts}, {"v": v, "w": w})
    assert paths.apply("/data/x") == f"{v}/x"
    assert paths.apply("--dir=/data") == f"--dir={v}"
    assert paths.apply("/data/sub/x") == f"{w}/s/x"
    assert paths.apply("/database /my/data") == "/database /my/data"
    assert paths.apply("/bin:/data/bin") == f"/bin:{v}/bin"
    script = "echo a >>/data/log; cp '/data/sub/x' /data2 /data && cat </data/y|sed s/data/b/ >(tee /data)"
    assert paths.apply(script) == (f"echo a >>{v}/log; cp '{w}/s/x' /data2 {v} && cat <{v}/y|sed s/data/b/ >(tee {v})")
    assert paths.variables == {"GLEBE_VOLUME_V": str(v), "GLEBE_VOLUME_W": f"{w}/s"}
    with pytest.raises(ConfigError, match=r"must not contain '\.\.'"):
        PathMap({"volumeMounts": [{"name": "v", "mountPath": "/d", "subPath": "../x"}]}, {"v": v})


def test_commands_that_come_later_find_the_places_by_the_variables() -> None:
    mounts = [("v", "/data/", ""), ("v", "/again", ""), ("w", "/a", "x"), ("w", "/b", "y"), ("gone", "/g", "")]
    body = {"volumeMounts": [{"name": n, "mountPath": at, "subPath": part} for n, at, part in mounts]}
    where = places(body, {"GLEBE_VOLUME_V": "/real/v", "GLEBE_VOLUME_W": "/real/w/x"})
    assert where == {"/data": "/real/v", "/again": "/real/v"}
    assert replace_paths("cat /data/x /a", where) == "cat /real/v/x /a"


async def test_launch_gives_gpus_and_hosts_and_keeps_credentials_out(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "x")
    asked = []

    async def resolve(host: str, subdomain: str) -> str:
        asked.append((host, subdomain))
        return "127.9.9.9"

    container = {
        "name": "c",
        "command": ["run", "$(MASTER_ADDR)"],
        "resources": {"limits": {"nvidia.com/gpu": "2"}},
        "env": [
            {"name": "MASTER_ADDR", "value": "j-0.j"},
            {"name": "LONG", "value": "j-1.j.n.svc.cluster.local"},
            {"name": "OTHER", "value": "j-0.k"},
        ],
    }
    network = PodNetwork("127.1.1.1", env={"GLEBE_POD_IP": "127.1.1.1"})
    made = await launch.container_spec(
        pod(hostname="j-3", subdomain="j"),
        container,
        source=source,
        volumes={},
        pod_dir=tmp_path,
        sandbox=launch.Sandbox(network, Grant(containers={"c": ("4", "5")})),
        host_ip="127.0.0.1",
        resolve=resolve,
    )
    env = made.env
    assert asked == [("j-0", "j"), ("j-1", "j")]
    assert (env["MASTER_ADDR"], env["LONG"], env["OTHER"]) == ("127.9.9.9", "127.9.9.9", "j-0.k")
    assert made.argv == ["run", "127.9.9.9"]
    assert (env["CUDA_VISIBLE_DEVICES"], env["HOSTNAME"], env["GLEBE_POD_IP"]) == ("4,5", "j-3", "127.1.1.1")
    assert "AWS_SECRET_ACCESS_KEY" not in env
    assert made.cwd == str(tmp_path / "c" / "work")


def test_addresses_are_stable_and_never_shared() -> None:
    first, second = Addresses(), Addresses()
    uids = [f"uid-{i}" for i in range(2000)]
    given = [first.allocate(uid) for uid in uids]
    assert given == [second.allocate(uid) for uid in uids]
    assert len(set(given)) == 2000
    assert not any(a.startswith("127.0.") or a.endswith((".0", ".255")) for a in given)
    third = Addresses()
    third.restore("other", given[0])
    assert third.allocate(uids[0]) != given[0]
    third.release("other")
    third.release(uids[0])
    assert third.allocate(uids[0]) == given[0]
