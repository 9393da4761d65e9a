"""The choice of devices: what upstream's allocator does in each case, and whether the search is complete."""

from __future__ import annotations

from itertools import combinations, product
from typing import Any

import pytest
from devices_world import NODE, World, attribute, claim, device, klass, piece, wanted
from hypothesis import assume, given, settings
from hypothesis import strategies as st

from glebe.workloads.claims.pools import DeviceId
from glebe.workloads.claims.requests import AllocationError

MATCH = [{"matchAttribute": "gpu.example.com/board"}]


def test_devices_are_given_in_order_and_never_twice() -> None:
    world = World(piece("s", [device("a"), device("b"), device("c")]))
    assert world.give(claim(wanted(count=2), name="one")) == [["a", "b"]]
    assert world.give(claim(wanted(count=2), name="two")) is None
    assert world.give(claim(wanted(), name="three")) == [["c"]]
    world.taken.put("uid-one", None)
    assert world.give(claim(wanted(), name="four"), claim(wanted(), name="five")) == [["a"], ["b"]]


def test_selectors_of_class_and_request_both_count() -> None:
    devices = [device("a", size=1, ok=True), device("b", size=3, ok=False), device("c", size=3, ok=True)]
    world = World(piece("s", devices), classes=[klass("gpu", attribute("ok"))])
    assert world.give(claim(wanted("r", f"{attribute('size')} > 2"))) == [["c"]]


@pytest.mark.parametrize(
    ("asked", "classes", "why"),
    [
        (
            wanted("r", attribute("nope")),
            [klass()],
            "claim default/c: selector #0: CEL runtime error: no such key: nope",
        ),
        (wanted(), [klass("gpu", "1 +")], "class gpu: selector #0: CEL compile error: compilation failed"),
        (wanted(klass="x"), [klass()], "claim default/c, request r: could not retrieve device class x"),
        (wanted(count=33), [klass()], "number of requested devices 33 exceeds the claim limit of 32"),
    ],
)
def test_claims_that_cannot_be_tried(asked: dict[str, Any], classes: Any, why: str) -> None:
    with pytest.raises(AllocationError) as caught:
        World(piece("s", [device("a")]), classes=classes).try_(claim(asked))
    assert why in str(caught.value)


def test_the_first_alternative_that_works_is_taken() -> None:
    devices = [device("a", big=False), device("b", big=False)]
    big = {
        "name": "big",
        "deviceClassName": "gpu",
        "selectors": [{"cel": {"expression": attribute("big")}}],
        "count": 1,
    }
    two = {"name": "two", "deviceClassName": "gpu", "count": 2}
    asked = {"name": "r", "firstAvailable": [big, two]}
    found = World(piece("s", devices)).try_(claim(asked))
    assert found is not None
    assert [(r["request"], r["device"]) for r in found.allocations[0]["devices"]["results"]] == [
        ("r/two", "a"),
        ("r/two", "b"),
    ]
    better = World(piece("s", [*devices, device("c", big=True)])).try_(claim(asked))
    assert better is not None
    assert (found.score, better.score) == (7, 8)


def test_all_means_every_one_or_none() -> None:
    devices = [device("a", big=True), device("b", big=True), device("c", big=False)]
    every = wanted("r", attribute("big"), allocationMode="All")
    world = World(piece("s", devices))
    assert world.give(claim(every)) == [["a", "b"]]
    assert world.give(claim(every, name="late")) is None
    assert World(piece("s", [device("c", big=False)])).give(claim(every)) is None
    with pytest.raises(AllocationError, match=r"asks for all devices, but resource pool .* is currently being updated"):
        World(piece("s", devices, of=2)).try_(claim(every))


def test_constraints() -> None:
    devices = [device("a", board="x"), device("b", board="y"), device("c", board="x"), device("d")]
    world = World(piece("s", devices))
    assert world.give(claim(wanted(count=2), constraints=MATCH)) == [["a", "c"]]
    distinct = [{"distinctAttribute": "gpu.example.com/board"}]
    assert World(piece("s", devices)).give(claim(wanted(count=2), constraints=distinct)) == [["a", "b"]]
    assert World(piece("s", devices)).give(claim(wanted(count=3), constraints=distinct)) is None
    only = [{"matchAttribute": "gpu.example.com/board", "requests": ["q"]}]
    two = claim(wanted("p", count=1), wanted("q", count=2), constraints=only)
    assert World(piece("s", [*devices[1:], device("e", board="x")])).give(two) == [["b", "c", "e"]]


def test_taints() -> None:
    bad = {"key": "gpu.nvidia.com/xid", "value": "79", "effect": "NoSchedule"}
    world = World(piece("s", [device("a", taints=[bad]), device("b", taints=[{**bad, "effect": "None"}])]))
    assert world.give(claim(wanted(count=2))) is None
    assert world.give(claim(wanted(count=1))) == [["b"]]
    tolerant = claim(wanted(tolerations=[{"key": bad["key"], "operator": "Exists"}]), name="t")
    assert world.give(tolerant) == [["a"]]
    every = claim(wanted(allocationMode="All"))
    assert World(piece("s", [device("a", taints=[bad]), device("b")])).give(every) is None


def test_admin_access_is_beside_the_owner() -> None:
    world = World(piece("s", [device("a")]))
    admin = claim(wanted(adminAccess=True), name="admin")
    assert world.give(claim(wanted())) == [["a"]]
    assert world.give(admin) == [["a"]]
    assert world.give(claim(wanted("p", adminAccess=True), wanted("q", adminAccess=True), name="both")) is None
    world.taken.put("uid-c", None)
    assert world.give(claim(wanted(), name="again")) == [["a"]]  # the admin does not hold it


def test_pools_count_when_they_are_complete_and_new() -> None:
    world = World(piece("s1", [device("a")], of=2))
    assert world.give(claim(wanted())) is None
    world.shelf.put(piece("s2", [device("b")], of=2))
    world.shelf.put(piece("old", [device("z")], generation=0))
    assert world.give(claim(wanted(count=2))) == [["a", "b"]]
    world.shelf.put(piece("s3", [device("c")], generation=2))
    assert world.give(claim(wanted(), name="new")) == [["c"]]
    world.shelf.drop("s3")
    assert world.give(claim(wanted(), name="back")) is None  # a and b are taken


def test_where_devices_can_be_used() -> None:
    zone = {"nodeSelectorTerms": [{"matchExpressions": [{"key": "zone", "operator": "In", "values": ["a"]}]}]}
    selected = World(piece("s", [device("a")], nodeSelector=zone)).try_(claim(wanted()))
    assert selected is not None
    assert selected.allocations[0]["nodeSelector"] == zone
    elsewhere = {"metadata": {"name": "n2", "labels": {}}}
    assert World(piece("s", [device("a")], nodeSelector=zone)).try_(claim(wanted()), node=elsewhere) is None
    everywhere = World(piece("s", [device("a")], allNodes=True)).try_(claim(wanted()), node=elsewhere)
    assert everywhere is not None
    assert "nodeSelector" not in everywhere.allocations[0]
    mine = {**device("a"), "nodeName": "n2"}
    mixed = World(piece("s", [mine, {**device("b"), "allNodes": True}], perDeviceNodeSelection=True))
    assert mixed.give(claim(wanted(count=2))) is None
    found = mixed.try_(claim(wanted(count=2)), node=elsewhere)
    assert found is not None
    fields = found.allocations[0]["nodeSelector"]["nodeSelectorTerms"][0]["matchFields"]
    assert fields == [{"key": "metadata.name", "operator": "In", "values": ["n2"]}]


def test_partitions_share_counters() -> None:
    counters = {"metadata": {"name": "k"}}
    shared = piece("k", of=2, sharedCounters=[{"name": "gpu-0", "counters": {"slices": {"value": "8"}}}])
    parts = piece(
        "s",
        [
            device("whole", counters={"gpu-0": {"slices": 8}}),
            device("half-0", counters={"gpu-0": {"slices": 4}}, half=True),
            device("half-1", counters={"gpu-0": {"slices": 4}}, half=True),
        ],
        of=2,
    )
    assert counters["metadata"]["name"] == shared["metadata"]["name"]
    world = World(shared, parts)
    half = claim(wanted("r", f"has({attribute('half')})"), name="h")
    assert world.give(half) == [["half-0"]]
    assert world.give(claim(wanted(), name="next")) == [["half-1"]]
    assert world.give(claim(wanted(), name="more")) is None
    broken = World(shared, piece("s", [device("x", counters={"gpu-9": {"slices": 1}})], of=2))
    with pytest.raises(AllocationError, match="invalid resource pools were encountered"):
        broken.try_(claim(wanted()))


def test_shared_devices_have_capacity() -> None:
    body = {**device("a", capacity={"memory": "10Gi"}), "allowMultipleAllocations": True}
    body["capacity"]["memory"]["requestPolicy"] = {"default": "1Gi", "validRange": {"min": "1Gi", "step": "2Gi"}}
    world = World(piece("s", [body]))
    asked = wanted(capacity={"requests": {"memory": "4Gi"}})
    found = world.try_(claim(asked))
    assert found is not None
    (result,) = found.allocations[0]["devices"]["results"]
    assert (result["shareID"], result["consumedCapacity"]) == ("id-0", {"memory": "5Gi"})  # rounded up by the step
    assert world.give(claim(asked, name="one")) == [["a"]]
    assert world.give(claim(asked, name="two")) == [["a"]]
    assert world.give(claim(asked, name="three")) is None
    assert world.give(claim(wanted(capacity={"requests": {"cores": "1"}}), name="x")) is None


def test_configuration_says_where_it_comes_from() -> None:
    opaque = {"opaque": {"driver": "gpu.example.com", "parameters": {"a": 1}}}
    world = World(piece("s", [device("a"), device("b")]), classes=[klass("gpu", config=[opaque])])
    mine = [{"requests": ["q"], **opaque}, {"requests": ["other"], **opaque}]
    found = world.try_(claim(wanted("p"), wanted("q"), config=mine))
    assert found is not None
    assert found.allocations[0]["devices"]["config"] == [
        {"source": "FromClass", "requests": ["p", "q"], **opaque},
        {"source": "FromClaim", "requests": ["q"], **opaque},
    ]
    assert klass("gpu", config=[opaque])["spec"]["config"] == [opaque]


def test_a_search_that_takes_too_long_is_given_up() -> None:
    devices = [device(f"d{i:02}", board=f"{i % 9}", other=f"{i // 2}") for i in range(24)]
    both = [*MATCH, {"distinctAttribute": "gpu.example.com/other"}]
    with pytest.raises(AllocationError, match="node n1: timed out trying to allocate devices"):
        World(piece("s", devices)).try_(claim(wanted(count=4), wanted("q", count=4), constraints=both), steps=50)


# --- against brute force

_attribute = st.integers(0, 1)
_device = st.fixed_dictionaries({"board": _attribute, "taken": st.booleans(), "cost": st.integers(0, 2)})
_request = st.fixed_dictionaries(
    {
        "count": st.integers(1, 2),
        "every": st.booleans(),
        "board": st.sampled_from([None, None, 0, 1]),
        "admin": st.booleans(),
    }
)
_constraint = st.sampled_from([None, "match", "distinct"])


def _choices(devices: list[dict[str, Any]], request: dict[str, Any]) -> list[tuple[int, ...]]:
    fitting = [i for i, d in enumerate(devices) if request["board"] in (None, d["board"])]
    if request["every"]:
        return [tuple(fitting)] if fitting else []
    return list(combinations(fitting, request["count"]))


def _allowed(
    devices: list[dict[str, Any]], requests: list[dict[str, Any]], chosen: Any, constraint: str | None
) -> bool:
    used = [i for one in chosen for i in one]
    exclusive = [i for request, one in zip(requests, chosen, strict=True) for i in one if not request["admin"]]
    if len(set(used)) != len(used) or any(devices[i]["taken"] for i in exclusive):
        return False
    if (
        sum(devices[i]["cost"] for i in set(used) if not devices[i]["taken"])
        + sum(d["cost"] for d in devices if d["taken"])
        > 4
    ):
        return False
    boards = [devices[i]["board"] for i in used]
    if constraint == "match":
        return len(set(boards)) <= 1
    return constraint is None or len(set(boards)) == len(boards)


@settings(max_examples=250, deadline=None)
@given(st.lists(_device, min_size=1, max_size=5), st.lists(_request, min_size=1, max_size=3), _constraint)
def test_the_search_finds_what_there_is(devices: Any, requests: Any, constraint: str | None) -> None:
    assume(sum(d["cost"] for d in devices if d["taken"]) <= 4)  # as somebody could have given them
    bodies = [device(f"d{i}", board=d["board"], counters={"k": {"c": d["cost"]}}) for i, d in enumerate(devices)]
    world = World(
        piece("s", bodies, of=2), piece("k", of=2, sharedCounters=[{"name": "k", "counters": {"c": {"value": "4"}}}])
    )
    held = [{"driver": "gpu.example.com", "pool": "p", "device": f"d{i}"} for i, d in enumerate(devices) if d["taken"]]
    world.taken.put("others", {"devices": {"results": held}})
    asked = [
        wanted(
            f"r{i}",
            *([] if r["board"] is None else [f"{attribute('board')} == {r['board']}"]),
            count=r["count"],
            **({"allocationMode": "All"} if r["every"] else {}),
            **({"adminAccess": True} if r["admin"] else {}),
        )
        for i, r in enumerate(requests)
    ]
    limits = {None: [], "match": MATCH, "distinct": [{"distinctAttribute": "gpu.example.com/board"}]}[constraint]
    found = world.try_(claim(*asked, constraints=limits))
    possible = any(
        _allowed(devices, requests, chosen, constraint) for chosen in product(*(_choices(devices, r) for r in requests))
    )
    assert (found is not None) == possible
    if found is not None:
        results = found.allocations[0]["devices"]["results"]
        chosen = [tuple(int(r["device"][1:]) for r in results if r["request"] == f"r{i}") for i in range(len(requests))]
        assert all(c in _choices(devices, r) for c, r in zip(chosen, requests, strict=True))
        assert _allowed(devices, requests, chosen, constraint)


@settings(max_examples=60, deadline=None)
@given(st.lists(st.tuples(st.sampled_from(["give", "free"]), st.integers(0, 9), st.integers(1, 3)), max_size=30))
def test_no_device_is_ever_given_twice(steps: list[tuple[str, int, int]]) -> None:
    world = World(piece("s", [device(f"d{i}", board="x") for i in range(6)]))
    held: dict[str, list[str]] = {}
    for what, number, count in steps:
        name = f"c{number}"
        if what == "free":
            world.taken.put(f"uid-{name}", None)
            held.pop(name, None)
        elif name not in held and (given_ := world.give(claim(wanted(count=count), name=name))) is not None:
            held[name] = given_[0]
        everything = [d for devices in held.values() for d in devices]
        assert len(set(everything)) == len(everything)
        assert sorted(d.device for d in world.taken) == sorted(everything)
    assert all(DeviceId("gpu.example.com", "p", d) in world.taken for devices in held.values() for d in devices)
    assert NODE["metadata"]["name"] == "n1"
