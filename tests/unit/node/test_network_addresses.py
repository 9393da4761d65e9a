from __future__ import annotations

from ipaddress import IPv4Address, IPv4Network

import pytest
from hypothesis import given
from hypothesis import strategies as st

from glebe.node.network.addresses import Addresses, NoAddressLeft, free_network

UIDS = st.lists(st.uuids().map(str), unique=True, min_size=1, max_size=40)
NETWORKS = st.integers(0, 2**24 - 1).map(lambda n: IPv4Network((10 << 24 | n & 0xFFFF00, 24)))


@given(UIDS)
def test_everybody_has_an_address_of_his_own(uids: list[str]) -> None:
    pool = Addresses()
    given_out = [pool.allocate(uid) for uid in uids]
    assert len(set(given_out)) == len(uids)
    assert all(IPv4Address(a) in IPv4Network("127.0.0.0/8") and not a.startswith("127.0.") for a in given_out)
    assert [pool.allocate(uid) for uid in uids] == given_out


@given(UIDS, st.data())
def test_the_machines_own_addresses_are_not_given_out(uids: list[str], data: st.DataObject) -> None:
    network = data.draw(NETWORKS)
    pool = Addresses(network)
    found = {pool.allocate(uid) for uid in uids}
    assert len(found) == len(uids)
    assert found.isdisjoint({str(network[0]), str(network[1]), str(network[-1])})
    assert all(IPv4Address(a) in network for a in found)


@given(UIDS, st.data())
def test_what_an_earlier_process_gave_is_not_given_again(uids: list[str], data: st.DataObject) -> None:
    first = Addresses(IPv4Network("10.1.2.0/24"))
    known = {uid: first.allocate(uid) for uid in uids}
    second = Addresses(IPv4Network("10.1.2.0/24"))
    kept = data.draw(st.sets(st.sampled_from(uids)))
    for uid in sorted(kept):
        second.restore(uid, known[uid])
    for uid in uids:
        second.allocate(uid)
    assert {uid: second.get(uid) for uid in kept} == {uid: known[uid] for uid in kept}
    assert len({address for _, address in second.all()}) == len(uids)


def test_a_full_network_says_so_and_what_is_released_is_free_again() -> None:
    pool = Addresses(IPv4Network("10.1.2.0/28"))
    for n in range(13):
        pool.allocate(f"pod-{n}")
    with pytest.raises(NoAddressLeft):
        pool.allocate("one too many")
    freed = pool.get("pod-7")
    pool.release("pod-7")
    assert pool.allocate("one too many") == freed


@given(st.lists(NETWORKS, max_size=20))
def test_the_chosen_network_overlaps_no_route(used: list[IPv4Network]) -> None:
    found = free_network(IPv4Network("10.244.0.0/16"), [IPv4Network("0.0.0.0/0"), *used])
    assert found.prefixlen == 24
    assert not any(found.overlaps(network) for network in used)


def test_the_network_of_last_time_is_kept_while_it_will_do() -> None:
    wanted, before = IPv4Network("10.244.0.0/16"), IPv4Network("10.244.7.0/24")
    assert free_network(wanted, [], before) == before
    assert free_network(wanted, [IPv4Network("10.244.7.128/25")], before) == IPv4Network("10.244.0.0/24")
    with pytest.raises(NoAddressLeft, match="overlaps a route"):
        free_network(wanted, [IPv4Network("10.0.0.0/8")], before)
