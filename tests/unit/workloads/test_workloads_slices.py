"""Properties of packing, of subsets and of mirroring, which hold whatever is there already."""

from __future__ import annotations

import copy
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from glebe.kube.objects import Object, ObjectKey
from glebe.workloads.endpoints.backends import family_of, find_port, normal_address, ports_key
from glebe.workloads.endpoints.mirrored import mirror, wants_mirror
from glebe.workloads.endpoints.packing import MOST, Group, Plan, plan
from glebe.workloads.endpoints.subsets import repack, size, truncated
from glebe.workloads.endpoints.trigger import TriggerTimes

SERVICE: Object = {
    "metadata": {"name": "web", "namespace": "n", "uid": "u1", "labels": {"a": "b"}},
    "spec": {"clusterIP": "10.0.0.1", "selector": {"x": "y"}},
}
PORTS: list[list[Object]] = [[], [{"name": "a", "port": 1, "protocol": "TCP"}], [{"name": "a", "port": 2}]]


def endpoint(number: int, ready: bool = True) -> Object:
    return {"addresses": [f"10.0.{number >> 8}.{number & 255}"], "conditions": {"ready": ready}}


def apply(slices: list[Object], todo: Plan, names: list[int]) -> list[Object]:
    """The slices after the plan; asserts that it writes each at most once and changes no immutable field."""
    state = {s["metadata"]["name"]: s for s in slices}
    for one in todo.delete:
        del state[one["metadata"]["name"]]
    for one in todo.update:
        name = one["metadata"]["name"]
        assert state[name]["addressType"] == one["addressType"]
        state[name] = one
    assert len({s["metadata"]["name"] for s in todo.update}) == len(todo.update)
    for one in todo.create:
        names[0] += 1
        made = copy.deepcopy(one)
        made["metadata"]["name"] = f"s{names[0]}"
        state[made["metadata"]["name"]] = made
    return list(state.values())


def held(slices: list[Object]) -> dict[str, tuple[Any, bool]]:
    out: dict[str, tuple[Any, bool]] = {}
    for slice_ in slices:
        assert len(slice_["endpoints"]) <= MOST
        for one in slice_["endpoints"]:
            (address,) = one["addresses"]
            assert address not in out
            out[address] = ports_key(slice_["ports"]), one["conditions"]["ready"]
    return out


WANTED = st.dictionaries(st.integers(0, 400), st.tuples(st.integers(0, 2), st.booleans()), max_size=330)


@settings(max_examples=60, deadline=None)
@given(st.lists(WANTED, min_size=1, max_size=4))
def test_slices_hold_exactly_what_is_wanted_and_a_second_look_writes_nothing(
    rounds: list[dict[int, tuple[int, bool]]],
) -> None:
    slices: list[Object] = []
    names = [0]
    for wanted in rounds:
        groups = [Group(PORTS[p], [endpoint(n, r) for n, (q, r) in wanted.items() if q == p]) for p in (0, 1, 2)]
        groups = [g for g in groups if g.endpoints]
        before = copy.deepcopy(slices)
        todo = plan(SERVICE, "IPv4", groups, slices)
        assert slices == before, "what is in caches was changed"
        slices = apply(slices, todo, names)
        expected = {endpoint(n)["addresses"][0]: (ports_key(PORTS[p]), r) for n, (p, r) in wanted.items()}
        assert held(slices) == expected
        assert slices, "a Service without endpoints has an empty slice"
        assert not plan(SERVICE, "IPv4", copy.deepcopy(groups), slices)


@settings(max_examples=60, deadline=None)
@given(st.integers(0, 250), st.integers(0, 250))
def test_growth_writes_few_slices(first: int, more: int) -> None:
    names = [0]
    slices = apply([], plan(SERVICE, "IPv4", [Group(PORTS[1], [endpoint(n) for n in range(first)])], []), names)
    grown = [Group(PORTS[1], [endpoint(n) for n in range(first + more)])]
    todo = plan(SERVICE, "IPv4", grown, slices)
    assert len(todo.update) + len(todo.create) <= 1 + -(-more // MOST)
    assert not todo.delete or first == 0


def test_slices_of_a_namesake_before_are_not_kept() -> None:
    old = copy.deepcopy(SERVICE)
    old["metadata"]["uid"] = "u0"
    slices = apply([], plan(old, "IPv4", [Group(PORTS[1], [endpoint(1)])], []), [0])
    todo = plan(SERVICE, "IPv4", [Group(PORTS[1], [endpoint(1)])], slices)
    assert [len(todo.create), len(todo.update), len(todo.delete)] == [1, 0, 1]


def test_labels_of_the_service_are_followed_and_reserved_ones_are_not() -> None:
    slices = apply([], plan(SERVICE, "IPv4", [Group(PORTS[1], [endpoint(1)])], []), [0])
    changed = copy.deepcopy(SERVICE)
    changed["metadata"]["labels"] = {"new": "1", "kubernetes.io/service-name": "evil"}
    todo = plan(changed, "IPv4", [Group(PORTS[1], [endpoint(1)])], slices)
    (written,) = todo.update
    assert written["metadata"]["labels"] == {
        "new": "1",
        "kubernetes.io/service-name": "web",
        "endpointslice.kubernetes.io/managed-by": "endpointslice-controller.k8s.io",
    }


ADDRESS = st.builds(lambda n: {"ip": f"10.0.0.{n}"}, st.integers(0, 8))
SUBSET = st.fixed_dictionaries(
    {},
    optional={
        "addresses": st.lists(ADDRESS, max_size=4),
        "notReadyAddresses": st.lists(ADDRESS, max_size=4),
        "ports": st.lists(st.builds(lambda n: {"port": n}, st.integers(1, 3)), max_size=3),
    },
)


def pairs(subsets: list[Object]) -> dict[tuple[str, Any], bool]:
    """(address, port) -> ready; not ready wins."""
    out: dict[tuple[str, Any], bool] = {}
    for subset in subsets:
        for port in subset.get("ports") or [None]:
            for field, ready in (("addresses", True), ("notReadyAddresses", False)):
                for address in subset.get(field) or ():
                    key = address["ip"], port and port["port"]
                    out[key] = ready and out.get(key, True)
    return out


@given(st.lists(SUBSET, max_size=6), st.randoms())
def test_repacking_says_the_same_and_is_canonical(subsets: list[Object], rng: Any) -> None:
    packed = repack(subsets)
    assert pairs(packed) == pairs(subsets)
    assert repack(packed) == packed
    mixed = list(subsets)
    rng.shuffle(mixed)
    assert repack(mixed) == packed


@given(st.lists(st.tuples(st.integers(0, 900), st.integers(0, 900)), max_size=4))
def test_truncation_keeps_a_thousand_and_prefers_the_ready(sizes: list[tuple[int, int]]) -> None:
    subsets = []
    for ready, unready in sizes:
        subset: Object = {"ports": [{"port": 1}]}
        subset |= {"addresses": [{"ip": "a"}] * ready, "notReadyAddresses": [{"ip": "b"}] * unready}
        subsets.append({k: v for k, v in subset.items() if v})
    cut = truncated(subsets)
    assert size(cut) == min(1000, size(subsets))
    ready = sum(r for r, _ in sizes)
    assert sum(len(s.get("addresses") or ()) for s in cut) == min(1000, ready)


MIRRORED = st.lists(
    st.fixed_dictionaries(
        {"addresses": st.lists(st.sampled_from([{"ip": "10.0.0.1"}, {"ip": "::1"}, {"ip": "no"}]), max_size=4)},
        optional={"ports": st.lists(st.builds(lambda n: {"port": n}, st.integers(1, 3)), max_size=2)},
    ),
    max_size=4,
)


@given(MIRRORED, MIRRORED)
def test_a_mirror_is_right_after_one_round_and_quiet_after_it(first: list[Object], second: list[Object]) -> None:
    slices: list[Object] = []
    names = [0]
    for subsets in (first, second):
        endpoints = {"metadata": {"name": "e", "namespace": "n", "uid": "u", "labels": {"l": "1"}}, "subsets": subsets}
        slices = apply(slices, mirror(endpoints, slices).plan, names)
        said = {
            (a, p.get("port"))
            for s in slices
            for e in s["endpoints"]
            for a in e["addresses"]
            for p in s["ports"] or [{}]
        }
        expected = {key for key in pairs(subsets) if key[0] != "no"}
        assert said == expected
        assert not mirror(endpoints, slices).plan


def test_too_many_and_wrong_addresses_are_counted() -> None:
    subsets = [{"addresses": [{"ip": f"10.0.{n >> 8}.{n & 255}"} for n in range(1003)] + [{"ip": "no"}]}]
    made = mirror({"metadata": {"name": "e", "namespace": "n", "uid": "u"}, "subsets": subsets}, [])
    assert (made.invalid, made.skipped) == (1, 4)
    assert len(made.plan.create[0]["endpoints"]) == 1000
    assert not wants_mirror({"metadata": {"labels": {"endpointslice.kubernetes.io/skip-mirror": "true"}}})


@pytest.mark.parametrize(
    ("text", "normal", "family"),
    [
        ("10.0.0.01", "10.0.0.1", "IPv4"),
        ("2001:DB8::0:1", "2001:db8::1", "IPv6"),
        ("::ffff:10.0.0.1", "10.0.0.1", "IPv4"),
        ("host", "", ""),
        ("", "", ""),
    ],
)
def test_addresses_are_written_in_one_way(text: str, normal: str, family: str) -> None:
    assert (normal_address(text), family_of(text)) == (normal, family)


def test_named_ports_are_found_in_containers_and_sidecars_by_protocol() -> None:
    pod = {
        "spec": {
            "containers": [{"ports": [{"name": "dns", "containerPort": 53, "protocol": "TCP"}]}],
            "initContainers": [
                {"ports": [{"name": "init", "containerPort": 1}]},
                {"restartPolicy": "Always", "ports": [{"name": "dns", "containerPort": 54, "protocol": "UDP"}]},
            ],
        }
    }
    assert find_port(pod, {"port": 1, "targetPort": "dns", "protocol": "TCP"}) == 53
    assert find_port(pod, {"port": 1, "targetPort": "dns", "protocol": "UDP"}) == 54
    assert find_port(pod, {"port": 1, "targetPort": "init"}) is None
    assert find_port(pod, {"port": 7}) == 7
    assert find_port(pod, {"port": 7, "targetPort": 9}) == 9


def test_the_time_of_the_earliest_change_is_told_once() -> None:
    key, times = ObjectKey("", "n", "web"), TriggerTimes()
    service: Object = {"metadata": {"creationTimestamp": "t1"}}

    def pod(name: str, at: str) -> Object:
        return {"metadata": {"name": name}, "status": {"conditions": [{"type": "Ready", "lastTransitionTime": at}]}}

    assert times.changed(key, service, [pod("a", "t5")]) == "t1"
    assert times.changed(key, service, [pod("a", "t5")]) == ""
    assert times.changed(key, service, [pod("a", "t7"), pod("b", "t6")]) == "t6"
    times.forget(key)
    assert times.changed(key, service, []) == "t1"
