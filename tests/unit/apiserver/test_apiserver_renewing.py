"""Renewals take a shorter way through the server: nobody can tell."""

from __future__ import annotations

import copy
from typing import Any

import pytest

from glebe.apiserver.admission.base import AdmissionAttributes
from glebe.apiserver.server import ApiServer
from glebe.apiserver.store.memory import MemoryStore
from glebe.apiserver.types.registry import TypeRegistry
from glebe.apiserver.verbs import renewing
from glebe.kube.client import Client
from glebe.kube.clock import Env
from glebe.kube.errors import ApiError
from glebe.kube.inprocess import InProcessTransport
from glebe.kube.objects import Object
from glebe.kube.resources import LEASES
from glebe.node.spec import lease_object

SPACE = "kube-node-lease"
AT = "2026-11-22T10:00:00.000000Z"
LATER = "2026-11-22T10:00:10.000000Z"


class Mutator:
    """Writes into leases as a webhook could."""

    name = "Mutator"

    def __init__(self) -> None:
        self.change: Object | None = None
        self.asked = 0

    async def admit(self, a: AdmissionAttributes) -> None:
        if a.info.kind == "Lease" and a.obj is not None:
            self.asked += 1
            a.obj["spec"].update(self.change or {})


async def world(monkeypatch: pytest.MonkeyPatch | None = None) -> tuple[ApiServer, Client, Mutator]:
    mutator = Mutator()
    server = ApiServer(MemoryStore(), Env.seeded(1), TypeRegistry(), admission=(mutator,))
    await server.start()
    client = Client(InProcessTransport(server.handle), cluster="root", field_manager="kubelet")
    await client.create(LEASES, lease_object("n", "u", 1_790_000_000.0, 40), SPACE)
    if monkeypatch is not None:
        monkeypatch.setattr(renewing, "is_renewal", lambda *_: False)
    return server, client, mutator


def patch(at: Any = LATER, **more: Any) -> Object:
    return {"spec": {"renewTime": at, **more}}


async def renewals(client: Client) -> list[Object]:
    """What a node, another writer and a PUT leave behind, step by step."""
    seen = [await client.patch(LEASES, "n", patch(AT), SPACE), await client.patch(LEASES, "n", patch(), SPACE)]
    other = client.with_field_manager("other")
    seen.append(await other.patch(LEASES, "n", patch(AT), SPACE))
    seen.append(await client.patch(LEASES, "n", patch(), SPACE))
    for at in (AT, LATER):
        lease = copy.deepcopy(seen[-1])
        lease["spec"]["renewTime"] = at
        seen.append(await client.update(LEASES, lease))
    seen.append(await client.patch(LEASES, "n", patch(LATER), SPACE))  # says nothing new
    return seen


async def test_the_short_way_leaves_what_the_long_way_leaves(monkeypatch: pytest.MonkeyPatch) -> None:
    short = await renewals((await world())[1])
    with monkeypatch.context() as patched:
        long = await renewals((await world(patched))[1])
    assert short == long
    assert [s["spec"]["renewTime"] for s in short] == [AT, LATER, AT, LATER, AT, LATER, LATER]
    owners = {entry["manager"] for entry in short[2]["metadata"]["managedFields"]}
    assert owners == {"kubelet", "other"}  # a new owner is written down


async def test_it_is_taken_by_those_who_renew(monkeypatch: pytest.MonkeyPatch) -> None:
    taken: list[bool] = []
    judge = renewing.is_renewal

    def noted(*what: Any) -> bool:
        taken.append(judge(*what))
        return taken[-1]

    monkeypatch.setattr(renewing, "is_renewal", noted)
    _, client, _ = await world()
    await client.patch(LEASES, "n", patch(), SPACE)
    assert taken == [True, True]
    lease = await client.get(LEASES, "n", SPACE)
    lease["spec"]["renewTime"] = AT
    await client.update(LEASES, lease)
    assert taken[2:] == [True, True]


@pytest.mark.parametrize(
    ("body", "code"),
    [
        (patch("yesterday"), 400),
        (patch(7), 400),
        (patch(LATER, leaseDurationSeconds=0), 422),
        (patch(LATER, leaseDurationSeconds=True), 400),
        ({**patch(), "metadata": {"finalizers": ["plain"]}}, 422),
        ({**patch(), "metadata": {"resourceVersion": "1"}}, 409),
        ({**patch(), "metadata": {"uid": "another"}}, 422),
    ],
)
async def test_what_is_wrong_is_refused(body: Object, code: int) -> None:
    _, client, _ = await world()
    before = await client.get(LEASES, "n", SPACE)
    with pytest.raises(ApiError) as refused:
        await client.patch(LEASES, "n", body, SPACE)
    assert refused.value.code == code
    assert await client.get(LEASES, "n", SPACE) == before


async def test_admission_is_asked_and_what_it_writes_is_checked_and_owned() -> None:
    _, client, mutator = await world()
    mutator.asked = 0
    await client.patch(LEASES, "n", patch(AT), SPACE)
    assert mutator.asked == 1
    mutator.change = {"holderIdentity": "somebody"}
    lease = await client.patch(LEASES, "n", patch(), SPACE)
    assert lease["spec"]["holderIdentity"] == "somebody"
    mutator.change = {"leaseDurationSeconds": -1}
    with pytest.raises(ApiError, match="must be greater than 0"):
        await client.patch(LEASES, "n", patch(AT), SPACE)


async def test_unknown_and_repeated_fields_are_told() -> None:
    _, client, _ = await world()
    path = f"/apis/coordination.k8s.io/v1/namespaces/{SPACE}/leases/n"
    body = b'{"spec":{"renewTime":"%s","renewTime":"%s"}}' % (AT.encode(), LATER.encode())
    answer = await client.raw("PATCH", path, body=body, content_type="application/merge-patch+json")
    assert "duplicate field" in answer.headers["warning"]
    with pytest.raises(ApiError, match="unknown field"):
        await client.raw(
            "PATCH",
            path,
            query=[("fieldValidation", "Strict")],
            body=patch(LATER, renewtime=AT),
            content_type="application/merge-patch+json",
        )
