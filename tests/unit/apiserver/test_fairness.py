"""Priority and fairness: classification, turns, seats, queues, budgets, deadlines."""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import Awaitable, Callable
from typing import Any

import orjson
import pytest

from glebe.apiserver.assembly import ServerOptions, complete
from glebe.apiserver.clusters.firstobjects import first_objects
from glebe.apiserver.fairness.buckets import Bucket
from glebe.apiserver.fairness.gate import Gate
from glebe.apiserver.fairness.options import FairnessOptions
from glebe.apiserver.fairness.schemas import compile_plan
from glebe.apiserver.flight import Flight, Onward
from glebe.apiserver.request.routing import Route
from glebe.apiserver.server import ApiServer
from glebe.apiserver.store import MemoryStore
from glebe.apiserver.types.registry import TypeRegistry
from glebe.kube.clock import Env
from glebe.kube.transport import PLATFORM, Request, Response, User

SPACE = "/api/v1/namespaces/default/configmaps"


class Names:
    """Believes whom the header names; ``-`` separates groups."""

    async def authenticate(self, request: Request, cluster: str) -> User | None:
        name, *groups = request.headers.get("x-user", "someone").split(" ")
        return User(name, (*groups, "system:authenticated"))


async def serve(**options: Any) -> ApiServer:
    server = ApiServer(MemoryStore(), Env.seeded(1), TypeRegistry(), authenticator=Names())
    complete(server, ServerOptions(fairness=FairnessOptions(**options)))
    await server.start()
    for name in ("a", "b"):
        await server.clusters.create(name)
    return server


def slow(server: ApiServer, doing: Callable[[Flight], Awaitable[None]]) -> None:
    """Have every request do something before it is answered."""

    async def wait(flight: Flight, onward: Onward) -> Response:
        await doing(flight)
        return await onward(flight)

    server.inner_filters = (wait,)


async def ask(server: ApiServer, cluster: str = "root", path: str = SPACE, **given: Any) -> Response:
    method, user, query = given.pop("method", "GET"), given.pop("user", "someone"), given.pop("query", {})
    headers = {"x-user": user, "content-type": "application/json"}
    at = f"/clusters/{cluster}{path}"
    return await server.handle(Request(method, at, list(query.items()), headers, **given))


def config(name: str) -> bytes:
    return orjson.dumps({"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": name}})


def gate_of(server: ApiServer) -> Gate:
    assert server.gate is not None
    return server.gate


def plan() -> Any:
    objects = first_objects("10.0.0.1", 443)
    schemas = [o for r, o in objects if r.startswith("flowschemas")]
    levels = [o for r, o in objects if r.startswith("prioritylevel")]
    return compile_plan(schemas, levels, 600)


@pytest.mark.parametrize(
    ("user", "groups", "route", "schema", "level"),
    [
        ("admin", ["system:masters"], Route("root", "", "get", "", "v1", "pods", "x"), "exempt", "exempt"),
        ("u", ["system:authenticated"], Route("root", "/healthz", "get"), "probes", "exempt"),
        ("u", ["system:authenticated"], Route("root", "/apis", "get"), "global-default", "global-default"),
        (
            "system:kube-scheduler",
            [],
            Route("root", "", "update", "coordination.k8s.io", "v1", "leases", "kube-system", "s"),
            "system-leader-election",
            "leader-election",
        ),
        (
            "system:node:n",
            ["system:nodes"],
            Route("root", "", "patch", "", "v1", "nodes", "", "n", "status"),
            "system-node-high",
            "node-high",
        ),
        ("system:node:n", ["system:nodes"], Route("root", "", "get", "", "v1", "pods", "x"), "system-nodes", "system"),
        (
            "system:serviceaccount:kube-system:job",
            ["system:serviceaccounts"],
            Route("root", "", "get", "", "v1", "pods", "x"),
            "kube-system-service-accounts",
            "workload-high",
        ),
        (
            "system:serviceaccount:kube-systemx:job",
            ["system:serviceaccounts"],
            Route("root", "", "get", "", "v1", "pods", "x"),
            "service-accounts",
            "workload-low",
        ),
        ("nobody", [], Route("root", "", "get", "", "v1", "pods", "x"), "catch-all", "catch-all"),
    ],
)
def test_bootstrap_schemas(user: str, groups: list[str], route: Route, schema: str, level: str) -> None:
    found, at = plan().find(User(user, tuple(groups)), route)
    assert (found.name, at.name) == (schema, level)


def test_seats_follow_shares() -> None:
    levels = plan().levels
    # 600 seats, 245 shares: upstream's nominal limits
    assert {n: levels[n].nominal for n in ("system", "workload-low", "catch-all")} == {
        "system": 74,
        "workload-low": 245,
        "catch-all": 13,
    }
    assert levels["catch-all"].rejects
    assert levels["exempt"].exempt
    assert levels["leader-election"].most > levels["leader-election"].nominal  # others lend


async def test_answers_name_schema_and_level() -> None:
    server = await serve()
    response = await ask(server, "a")
    flow = server.read("a", "flowschemas.flowcontrol.apiserver.k8s.io", "", "global-default")
    assert flow is not None
    assert response.headers["x-kubernetes-pf-flowschema-uid"] == flow["metadata"]["uid"]
    assert response.headers["x-kubernetes-pf-prioritylevel-uid"]


async def test_a_clusters_own_schema_counts() -> None:
    server = await serve()
    await ask(server, "a")
    rules = [
        {
            "subjects": [{"kind": "User", "user": {"name": "someone"}}],
            "resourceRules": [
                {"verbs": ["*"], "apiGroups": ["*"], "resources": ["*"], "namespaces": ["*"], "clusterScope": True}
            ],
        }
    ]
    spec = {"priorityLevelConfiguration": {"name": "system"}, "matchingPrecedence": 50, "rules": rules}
    obj = {"apiVersion": "flowcontrol.apiserver.k8s.io/v1", "kind": "FlowSchema", "metadata": {"name": "mine"}}
    path = "/apis/flowcontrol.apiserver.k8s.io/v1/flowschemas"
    made = await ask(server, "a", path, method="POST", body=orjson.dumps({**obj, "spec": spec}))
    assert made.status == 201
    await ask(server, "a")
    await ask(server, "b")
    assert gate_of(server).tallies["system", "other"].dispatched == 1
    gone = await ask(server, "a", f"{path}/mine", method="DELETE")
    assert gone.status == 200
    await ask(server, "a")
    assert gate_of(server).tallies["system", "other"].dispatched == 2  # the deletion itself was the last


async def test_clusters_take_turns() -> None:
    """A crowd of one cluster waits; a request of another goes before nearly all of it."""
    server = await serve(quantum=1)
    order: list[str] = []

    async def note(flight: Flight) -> None:
        order.append(flight.route.cluster)

    slow(server, note)
    crowd = [asyncio.create_task(ask(server, "a", f"{SPACE}/x")) for _ in range(200)]
    await asyncio.sleep(0)
    one = asyncio.create_task(ask(server, "b", f"{SPACE}/x"))
    await asyncio.gather(one, *crowd)
    assert order.index("b") < 12
    assert Counter(order) == {"a": 200, "b": 1}


async def test_users_of_a_cluster_take_turns() -> None:
    server = await serve(quantum=1)
    order: list[str] = []

    async def note(flight: Flight) -> None:
        order.append(flight.user.name)

    slow(server, note)
    crowd = [asyncio.create_task(ask(server, "a", f"{SPACE}/x", user="loud")) for _ in range(100)]
    await asyncio.sleep(0)
    quiet = [asyncio.create_task(ask(server, "a", f"{SPACE}/x", user="quiet")) for _ in range(10)]
    await asyncio.gather(*crowd, *quiet)
    last = max(i for i, name in enumerate(order) if name == "quiet")
    assert last < 40


async def test_queues_are_bounded_and_say_so() -> None:
    server = await serve(cluster_waiting=5)
    gate = asyncio.Event()

    async def hold(_: Flight) -> None:
        await gate.wait()

    slow(server, hold)
    tasks = [asyncio.create_task(ask(server, "a", f"{SPACE}/x")) for _ in range(300)]
    await asyncio.sleep(1)
    refused = [t.result() for t in tasks if t.done()]
    assert refused
    status = orjson.loads(refused[0].body)
    assert refused[0].status == 429
    assert refused[0].headers["retry-after"] == "1"
    assert (status["reason"], status["details"]["retryAfterSeconds"]) == ("TooManyRequests", 1)
    assert status["message"] == "Too many requests, please try again later."
    gate.set()
    await asyncio.gather(*tasks)
    assert gate_of(server).turns.used == gate_of(server).turns.waiting == 0


async def test_seats_are_bounded_and_waiting_ends() -> None:
    server = await serve(seats=20, wait_seconds=3)
    gate = asyncio.Event()
    inside = 0

    async def hold(_: Flight) -> None:
        nonlocal inside
        inside += 1
        await gate.wait()

    slow(server, hold)
    tasks = [asyncio.create_task(ask(server, "a", f"{SPACE}/x")) for _ in range(40)]
    await asyncio.sleep(1)
    assert 0 < inside <= 20
    other = asyncio.create_task(ask(server, "b", f"{SPACE}/x"))
    await asyncio.sleep(0.1)
    before = inside
    assert not other.done()
    await asyncio.sleep(3)
    assert sum(t.done() for t in tasks) == 40 - (before - 1)  # those who waited were told so
    assert {t.result().status for t in tasks if t.done()} == {429}
    gate.set()
    await asyncio.gather(*tasks, other)
    turns = gate_of(server).turns
    assert turns.used == turns.waiting == 0
    assert (await ask(server, "a")).status == 200


async def test_those_who_give_up_waiting_leave_nothing_behind() -> None:
    server = await serve(seats=20)
    gate = asyncio.Event()

    async def hold(_: Flight) -> None:
        await gate.wait()

    slow(server, hold)
    tasks = [asyncio.create_task(ask(server, "a", f"{SPACE}/x")) for _ in range(60)]
    await asyncio.sleep(1)
    for task in tasks:
        task.cancel()
    late = asyncio.create_task(ask(server, "a", f"{SPACE}/x"))
    await asyncio.gather(*tasks, return_exceptions=True)
    late.cancel()
    await asyncio.wait([late])
    turns = gate_of(server).turns
    assert turns.used == turns.waiting == 0
    gate.set()
    assert (await ask(server, "a")).status == 200


async def test_the_platform_and_the_operator_do_not_wait() -> None:
    server = await serve(seats=1, total_seats=1, cluster_requests=1)
    gate = asyncio.Event()

    async def hold(flight: Flight) -> None:
        if flight.route.cluster == "a":
            await gate.wait()

    slow(server, hold)
    blocked = asyncio.create_task(ask(server, "a"))
    await asyncio.sleep(0.1)
    for _ in range(5):
        assert (await ask(server, user="admin system:masters")).status == 200
        assert (await server.handle(Request("GET", SPACE, user=PLATFORM))).status == 200
    gate.set()
    assert (await blocked).status == 200


# -- budgets ---------------------------------------------------------------------------------------------------------


def test_a_bucket() -> None:
    bucket = Bucket(10, 2, 0.0)
    assert [bucket.take(0.0) for _ in range(3)] == [0.0, 0.0, pytest.approx(0.1)]
    assert bucket.take(0.1) == 0.0
    assert not bucket.full(0.2)
    assert bucket.full(10.0)


async def set_budget(server: ApiServer, name: str, **budget: Any) -> Response:
    body = orjson.dumps({"spec": {"budget": budget}})
    headers = {"content-type": "application/merge-patch+json"}
    return await server.handle(Request("PATCH", f"/clusters/{name}", [], headers, body, PLATFORM))


async def test_budget_of_requests() -> None:
    server = await serve()
    assert (await set_budget(server, "a", requests=2, burst=3)).status == 200
    answers = [await ask(server, "a") for _ in range(5)]
    assert [r.status for r in answers] == [200, 200, 200, 429, 429]
    message = orjson.loads(answers[-1].body)["message"]
    assert 'logical cluster "a"' in message
    assert "spec.budget.requests" in message
    assert (await ask(server, "b")).status == 200
    await asyncio.sleep(1)
    assert [(await ask(server, "a")).status for _ in range(3)] == [200, 200, 429]
    assert (await set_budget(server, "a", objects=10, requests=None, burst=None)).status == 200
    assert [(await ask(server, "a")).status for _ in range(5)] == [200] * 5


@pytest.mark.parametrize(
    "budget", [{"requests": 0}, {"requests": "fast"}, {"burst": 3}, {"watches": -1}, {"requests": 1, "burst": 0}]
)
async def test_bad_budgets_are_refused(budget: Any) -> None:
    server = await serve()
    refused = await set_budget(server, "a", **budget)
    assert refused.status == 422
    assert "spec.budget" in orjson.loads(refused.body)["message"]


async def test_budget_of_watches() -> None:
    server = await serve()
    await set_budget(server, "a", watches=2)
    answers = await asyncio.gather(*(ask(server, "a", query={"watch": "1"}) for _ in range(4)))
    assert sorted(r.status for r in answers) == [200, 200, 429, 429]
    refused = next(r for r in answers if r.status == 429)
    message = orjson.loads(refused.body)["message"]
    assert "used: watches=2, limited: watches=2" in message
    assert refused.headers["retry-after"] == "5"
    assert gate_of(server).watching.open == {("", "v1", "configmaps"): 2}
    await next(r for r in answers if r.status == 200).close()
    assert (await ask(server, "a", query={"watch": "1"})).status == 200
    assert (await ask(server, "b", query={"watch": "1"})).status == 200


async def test_budgets_of_users() -> None:
    server = await serve(user_requests=1, user_watches=1)
    assert [(await ask(server, "a", user="x")).status for _ in range(3)] == [200, 200, 429]
    assert (await ask(server, "a", user="y", query={"watch": "1"})).status == 200
    assert (await ask(server, "a", user="y", query={"watch": "1"})).status == 429
    assert (await ask(server, "a", user="z", query={"watch": "1"})).status == 200


async def test_resting_clusters_are_forgotten() -> None:
    server = await serve()
    await ask(server, "a")
    for name in ("x1", "x2", "x3"):
        assert (await ask(server, name)).status == 404
    assert set(gate_of(server).tenants) == {"a", ""}
    await asyncio.sleep(150)
    assert not gate_of(server).tenants
    await server.close()


# -- deadlines -------------------------------------------------------------------------------------------------------


async def test_reads_end_in_time() -> None:
    server = await serve()

    async def sleep(_: Flight) -> None:
        await asyncio.sleep(100)

    slow(server, sleep)
    loop = asyncio.get_running_loop()
    began = loop.time()
    response = await ask(server, "a", query={"timeout": "2s"})
    assert loop.time() - began == pytest.approx(2)
    status = orjson.loads(response.body)
    assert (response.status, status["reason"]) == (504, "Timeout")
    assert "request did not complete within the allotted timeout" in status["message"]
    began = loop.time()
    assert (await ask(server, "a")).status == 504
    assert 59 <= loop.time() - began < 62
    assert (await ask(server, "a", query={"timeout": "soon"})).status == 400
    slow(server, lambda _: asyncio.sleep(0))
    assert (await ask(server, "a", query={"timeout": "2s"})).status == 200


async def test_a_write_outlives_its_request() -> None:
    server = await serve()

    async def sleep(_: Flight) -> None:
        await asyncio.sleep(5)

    slow(server, sleep)
    response = await ask(server, "a", method="POST", body=config("x"), query={"timeout": "1s"})
    assert response.status == 504
    assert server.read("a", "configmaps", "default", "x") is None
    await asyncio.sleep(5)
    assert server.read("a", "configmaps", "default", "x") is not None
    assert gate_of(server).turns.used == 0
