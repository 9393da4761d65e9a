"""Who is let in, and as whom."""

from __future__ import annotations

from typing import Any

import orjson

from glebe.apiserver.server import ApiServer
from glebe.apiserver.store import MemoryStore
from glebe.apiserver.types.registry import TypeRegistry
from glebe.kube.clock import Env
from glebe.kube.transport import Request, Response, User


class ByToken:
    async def authenticate(self, request: Request, cluster: str) -> User | None:
        name = request.headers.get("authorization", "").removeprefix("Bearer ")
        return User(name, ("system:authenticated",)) if name else None


class Rules:
    """Allows (user, verb, resource) triples and remembers what was asked."""

    def __init__(self, *allowed: tuple[str, str, str]) -> None:
        self.allowed = allowed
        self.asked: list[tuple[str, ...]] = []

    async def authorize(
        self,
        user: User,
        cluster: str,
        verb: str,
        group: str,
        resource: str,
        subresource: str,
        namespace: str,
        name: str,
        path: str,
        fields: str = "",
    ) -> tuple[bool, str]:
        self.asked.append((user.name, cluster, verb, group, resource, subresource, namespace, name, path))
        return (user.name, verb, resource or path) in self.allowed, ""


async def serve(*allowed: tuple[str, str, str]) -> tuple[ApiServer, Rules]:
    rules = Rules(*allowed)
    server = ApiServer(MemoryStore(), Env.seeded(1), TypeRegistry(), authenticator=ByToken(), authorizer=rules)
    await server.start()
    return server, rules


async def ask(server: ApiServer, method: str, path: str, body: Any = None, **headers: str) -> Response:
    sent = {k.replace("_", "-"): v for k, v in headers.items()}
    data = orjson.dumps(body) if body is not None else b""
    return await server.handle(Request(method, path, [], {"content-type": "application/json", **sent}, data))


def message(response: Response) -> str:
    return str(orjson.loads(response.body)["message"])


async def test_strangers_are_turned_away() -> None:
    server, _ = await serve()
    response = await ask(server, "GET", "/api/v1/pods")
    assert (response.status, message(response)) == (401, "Unauthorized")
    assert (await ask(server, "GET", "/livez")).status == 200


async def test_a_refusal_says_what_was_refused() -> None:
    server, rules = await serve(("amy", "list", "pods"))
    assert (await ask(server, "GET", "/api/v1/pods", authorization="Bearer amy")).status == 200
    refused = await ask(server, "GET", "/api/v1/namespaces/default/pods/p/log", authorization="Bearer amy")
    assert refused.status == 403
    assert message(refused) == (
        'pods "p" is forbidden: User "amy" cannot get resource "pods/log" in API group "" in the namespace "default"'
    )
    assert rules.asked[-1] == ("amy", "root", "get", "", "pods", "log", "default", "p", "")
    refused = await ask(server, "GET", "/apis", authorization="Bearer amy")
    assert message(refused) == 'forbidden: User "amy" cannot get path "/apis"'


async def test_creating_by_put_needs_the_right_to_create() -> None:
    server, _ = await serve(("amy", "update", "leases"))
    path = "/apis/coordination.k8s.io/v1/namespaces/default/leases/l"
    lease = {"apiVersion": "coordination.k8s.io/v1", "kind": "Lease", "metadata": {"name": "l"}}
    refused = await ask(server, "PUT", path, lease, authorization="Bearer amy")
    assert refused.status == 403


async def test_impersonation_is_a_right_and_takes_all_others_away() -> None:
    server, rules = await serve(("amy", "impersonate", "users"), ("bob", "list", "pods"))
    listed = await ask(server, "GET", "/api/v1/pods", authorization="Bearer amy", impersonate_user="bob")
    assert listed.status == 200
    assert rules.asked[-1][0] == "bob"
    refused = await ask(server, "GET", "/api/v1/pods", authorization="Bearer bob", impersonate_user="amy")
    assert (refused.status, 'cannot impersonate resource "users"' in message(refused)) == (403, True)
    refused = await ask(
        server,
        "GET",
        "/api/v1/pods",
        authorization="Bearer amy",
        impersonate_user="bob",
        impersonate_group="system:masters",
    )
    assert refused.status == 403
    lonely = await ask(server, "GET", "/api/v1/pods", authorization="Bearer amy", impersonate_group="x")
    assert lonely.status == 400


async def test_every_part_of_an_identity_is_a_right_of_its_own() -> None:
    amy = {"authorization": "Bearer amy"}
    server, rules = await serve(("amy", "impersonate", "users"), ("bob", "list", "pods"))
    for header, value, resource in (
        ("impersonate_uid", "u-1", 'resource "uids"'),
        ("impersonate_extra_scopes", "all", 'resource "userextras/scopes"'),
    ):
        alone = await ask(server, "GET", "/api/v1/pods", None, **amy, **{header: value})
        assert alone.status == 400
        refused = await ask(server, "GET", "/api/v1/pods", None, **amy, impersonate_user="bob", **{header: value})
        assert (refused.status, resource in message(refused)) == (403, True)
    rules.allowed += (("amy", "impersonate", "uids"), ("amy", "impersonate", "userextras"))
    granted = await ask(
        server, "GET", "/api/v1/pods", None, **amy, impersonate_user="bob", impersonate_uid="u-1",
        impersonate_extra_scopes="all",
    )  # fmt: skip
    assert granted.status == 200


async def test_a_user_name_that_only_looks_like_a_service_account_is_a_user() -> None:
    server, rules = await serve(("amy", "impersonate", "serviceaccounts"))
    for name in ("system:serviceaccount:ns", "system:serviceaccount:ns:a:b"):
        headers = {"authorization": "Bearer amy", "impersonate_user": name}
        assert (await ask(server, "GET", "/api/v1/pods", None, **headers)).status == 403
        assert rules.asked[-1][4] == "users"


async def test_strangers_do_not_learn_which_clusters_there_are() -> None:
    server, _ = await serve()
    here = await ask(server, "GET", "/clusters/root/api/v1/pods")
    nowhere = await ask(server, "GET", "/clusters/nobody/api/v1/pods")
    assert (here.status, nowhere.status, here.body) == (401, 401, nowhere.body)
