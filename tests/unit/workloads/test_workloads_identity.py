"""Controllers behind identities: aggregated roles, tokens in secrets, expired bootstrap tokens; over all clusters."""

from __future__ import annotations

import asyncio
from base64 import b64decode, b64encode
from typing import Any

from glebe.apiserver.server import ApiServer
from glebe.apiserver.store import MemoryStore
from glebe.apiserver.types.registry import TypeRegistry
from glebe.kube.client import Client
from glebe.kube.clock import Env, format_time
from glebe.kube.informer import Informers
from glebe.kube.inprocess import InProcessTransport
from glebe.kube.objects import EVERY, Object
from glebe.kube.resources import CLUSTER_ROLES, SECRETS, SERVICE_ACCOUNTS
from glebe.workloads import accounttokens, roles

GROUP = "rbac.authorization.k8s.io"


class World:
    """A server with cluster ``a``, and the controllers over all clusters."""

    def __init__(self) -> None:
        self.env = Env.seeded(1)
        self.server = ApiServer(MemoryStore(), self.env, TypeRegistry())
        self.root = Client(InProcessTransport(self.server.handle), cluster="root")
        self.a = self.root.for_cluster("a")
        self._tasks: list[asyncio.Task[Any]] = []

    def issue(self, cluster: str, account: Object, secret: str) -> str:
        return f"{cluster}/{account['metadata']['name']}/{secret}"

    async def __aenter__(self) -> World:
        await self.server.start()
        await self.server.clusters.create("a")
        every = Client(InProcessTransport(self.server.handle), cluster=EVERY)
        informers = Informers(every, self.env)
        controllers = [
            roles.build(every, informers, self.env),
            *accounttokens.build(every, informers, self.env, self.issue, "CA"),
        ]
        self._tasks = [asyncio.create_task(run) for run in (informers.run(), *(c.run() for c in controllers))]
        return self

    async def __aexit__(self, *_: object) -> None:
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)
        await self.server.close()


def role(name: str, labels: dict[str, str], *resources: str, selects: dict[str, str] | None = None) -> Object:
    out: Object = {"apiVersion": f"{GROUP}/v1", "kind": "ClusterRole", "metadata": {"name": name, "labels": labels}}
    if selects:
        out["aggregationRule"] = {"clusterRoleSelectors": [{"matchLabels": selects}]}
    out["rules"] = [{"apiGroups": [""], "resources": [r], "verbs": ["get"]} for r in resources]
    return out


async def shown(client: Client, name: str) -> list[str]:
    await asyncio.sleep(2)
    return [r["resources"][0] for r in (await client.get(CLUSTER_ROLES, name)).get("rules") or ()]


async def test_an_aggregated_role_shows_what_it_holds_in_its_own_cluster() -> None:
    async with World() as w:
        for client in (w.root, w.a):
            await client.create(CLUSTER_ROLES, role("all", {}, selects={"part": "yes"}))
        await w.a.create(CLUSTER_ROLES, role("two", {"part": "yes"}, "pods"))
        await w.a.create(CLUSTER_ROLES, role("one", {"part": "yes"}, "nodes"))
        await w.a.create(CLUSTER_ROLES, role("no", {"part": "no"}, "secrets"))
        assert await shown(w.a, "all") == ["nodes", "pods"]
        assert await shown(w.root, "all") == []
        await w.a.patch(CLUSTER_ROLES, "one", {"metadata": {"labels": {"part": "no"}}})
        assert await shown(w.a, "all") == ["pods"]
        await w.a.delete(CLUSTER_ROLES, "two")
        assert await shown(w.a, "all") == []
        await w.a.patch(CLUSTER_ROLES, "all", {"rules": role("x", {}, "configmaps")["rules"]})
        assert await shown(w.a, "all") == []  # by hand nothing is added


async def test_aggregates_of_aggregates_settle() -> None:
    async with World() as w:
        await w.a.create(CLUSTER_ROLES, role("outer", {}, selects={"in": "outer"}))
        await w.a.create(CLUSTER_ROLES, role("inner", {"in": "outer"}, selects={"in": "inner"}))
        await w.a.create(CLUSTER_ROLES, role("leaf", {"in": "inner"}, "pods"))
        assert await shown(w.a, "outer") == ["pods"]


async def test_a_secret_for_an_account_is_filled_and_goes_with_it() -> None:
    async with World() as w:
        for client in (w.root, w.a):
            meta = {"name": "robot", "namespace": "default"}
            await client.create(SERVICE_ACCOUNTS, {"apiVersion": "v1", "kind": "ServiceAccount", "metadata": meta})
        notes = {"kubernetes.io/service-account.name": "robot"}
        secret = {
            "apiVersion": "v1",
            "kind": "Secret",
            "type": "kubernetes.io/service-account-token",
            "metadata": {"name": "t", "namespace": "default", "annotations": notes},
        }
        await w.a.create(SECRETS, secret)
        await asyncio.sleep(2)
        found = await w.a.get(SECRETS, "t", "default")
        data = {k: b64decode(v).decode() for k, v in found["data"].items()}
        assert data == {"token": "a/robot/t", "ca.crt": "CA", "namespace": "default"}
        account = await w.a.get(SERVICE_ACCOUNTS, "robot", "default")
        assert found["metadata"]["annotations"]["kubernetes.io/service-account.uid"] == account["metadata"]["uid"]
        await w.a.delete(SERVICE_ACCOUNTS, "robot", "default")
        await asyncio.sleep(600)
        assert (await w.a.list(SECRETS, "default")).items == []


async def test_expired_bootstrap_tokens_go_and_others_stay() -> None:
    async with World() as w:
        end = w.env.clock.now() + 60
        for name, expiration in (("soon", format_time(end)), ("never", ""), ("odd", "tomorrow")):
            data = {"token-id": b64encode(b"abcdef").decode()}
            if expiration:
                data["expiration"] = b64encode(expiration.encode()).decode()
            secret = {
                "apiVersion": "v1",
                "kind": "Secret",
                "type": "bootstrap.kubernetes.io/token",
                "metadata": {"name": f"bootstrap-token-{name}", "namespace": "kube-system"},
                "data": data,
            }
            await w.a.create(SECRETS, secret)

        async def names() -> list[str]:
            return [s["metadata"]["name"].rpartition("-")[2] for s in (await w.a.list(SECRETS, "kube-system")).items]

        await asyncio.sleep(30)
        assert await names() == ["never", "soon"]
        await asyncio.sleep(31)
        assert await names() == ["never"]
