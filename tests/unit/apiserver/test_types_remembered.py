"""What is remembered of pods' specs must be what would have been found out anew."""

from __future__ import annotations

import copy
import datetime
from typing import Any

import pytest
from admission_world import serve

from glebe.apiserver.types import podvalidation
from glebe.apiserver.types.remembered import Memory, digest, digest_of_spec, once
from glebe.kube.errors import ApiError
from glebe.kube.objects import Object
from glebe.kube.resources import PODS


def _pod(name: str, **spec: Any) -> Object:
    container = {
        "name": "main",
        "image": "example.org/main",
        "ports": [{"containerPort": 80}],
        "resources": {"limits": {"cpu": "1000m", "memory": "1Gi"}},
        "readinessProbe": {"httpGet": {"port": 80}},
    }
    return {
        "apiVersion": "v1",
        "kind": "Pod",
        "metadata": {"name": name, "namespace": "default"},
        "spec": {"containers": [container], **spec},
    }


def _comparable(obj: Object) -> Object:
    out = copy.deepcopy(obj)
    for field in ("name", "uid", "creationTimestamp", "resourceVersion"):
        out["metadata"].pop(field, None)
    for entry in out["metadata"]["managedFields"]:
        entry.pop("time")
    return out


async def test_every_pod_of_one_template_becomes_the_same() -> None:
    _, client = await serve()
    made = [await client.create(PODS, _pod(f"p{i}")) for i in range(4)]
    assert all(_comparable(each) == _comparable(made[0]) for each in made)
    container = made[3]["spec"]["containers"][0]
    assert container["ports"] == [{"containerPort": 80, "protocol": "TCP"}]
    assert container["resources"]["requests"] == {"cpu": "1", "memory": "1Gi"}
    fields = made[3]["metadata"]["managedFields"][0]["fieldsV1"]["f:spec"]
    assert "f:readinessProbe" in fields["f:containers"]['k:{"name":"main"}']


async def test_a_pod_owns_its_varying_fields_only_when_it_has_them() -> None:
    _, client = await serve()
    for name, spec in (("a", {}), ("b", {"hostname": "h"}), ("c", {}), ("d", {"hostname": "g"})):
        made = await client.create(PODS, _pod(name, **spec))
        fields = made["metadata"]["managedFields"][0]["fieldsV1"]["f:spec"]
        assert ("f:hostname" in fields) == bool(spec), name
        assert made["spec"].get("hostname", "") == spec.get("hostname", ""), name


async def test_a_spec_that_was_right_excuses_no_other_one() -> None:
    _, client = await serve()
    await client.create(PODS, _pod("first", hostname="one"))
    await client.create(PODS, _pod("second", hostname="two"))
    for wrong in ({"hostname": "-x-"}, {"hostname": "x" * 64}, {"restartPolicy": "Sometimes"}, {"nodeName": "A_b"}):
        with pytest.raises(ApiError) as caught:
            await client.create(PODS, _pod("third", **wrong))
        assert caught.value.code == 422, wrong
    with pytest.raises(ApiError) as caught:
        await client.create(PODS, _pod("fourth", hostname=7))
    assert caught.value.code == 400


async def test_unknown_fields_are_told_for_every_pod() -> None:
    _, client = await serve()
    for name in ("a", "b", "c"):
        with pytest.raises(ApiError, match=r'unknown field "spec\.colour"'):
            await client.create(PODS, _pod(name, colour="red"), field_validation="Strict")


async def test_ephemeral_containers_are_refused_however_often() -> None:
    _, client = await serve()
    for name in ("a", "b"):
        with pytest.raises(ApiError, match="cannot be set on create"):
            await client.create(PODS, _pod(name, ephemeralContainers=[{"name": "e", "image": "i"}]))


def test_an_update_that_asks_few_rules_is_not_remembered() -> None:
    spec = {"containers": [], "restartPolicy": "Always", "schedulerName": "never-seen-before"}
    obj = {"metadata": {"name": "old"}, "spec": spec}
    podvalidation.remember(obj, copy.deepcopy(obj))
    assert not podvalidation.is_known(obj, None)


def test_digests_tell_apart_what_json_tells_apart() -> None:
    assert digest({"a": 1}) != digest({"a": 1.0}) != digest({"a": True})
    assert digest({"a": 1, "b": 2}) != digest({"b": 2, "a": 1})
    assert digest_of_spec({"hostname": "a", "x": 1}) == digest_of_spec({"hostname": "b", "x": 1})
    assert digest_of_spec({"hostname": "a"}) == digest_of_spec({})
    assert digest_of_spec({"hostname": 1}) != digest_of_spec({"hostname": "1"})


def test_what_is_no_json_is_asked_each_time() -> None:
    asked = []

    def check(value: Any) -> bool:
        asked.append(value)
        return type(value["a"]) is str

    look = once(check)
    assert look({"a": "2026-01-01"})
    assert look({"a": "2026-01-01"})
    assert len(asked) == 1
    assert not look({"a": datetime.date(2026, 1, 1)})  # what YAML makes of the same text


def test_memory_is_bounded_and_rests_where_nothing_comes_twice() -> None:
    memory: Memory[int] = Memory(10)
    for number in range(100):
        memory.put(b"%d" % number, number)
    assert memory.get(b"99") == 99
    assert sum(memory.get(b"%d" % number) is not None for number in range(100)) <= 10
    for number in range(200, 240):
        memory.get(b"%d" % number)
    assert sum(memory.look() for _ in range(80)) == 10
    assert memory.get(b"99") == 99
    assert all(memory.look() for _ in range(10))
