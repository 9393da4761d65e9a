"""Who may do what, and who may give it away; on the real server."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from glebe.apiserver.auth.assembly import secure
from glebe.apiserver.auth.pki import Pki
from glebe.apiserver.auth.rules import Attributes, allows, uncovered
from glebe.apiserver.server import ApiServer
from glebe.apiserver.store import MemoryStore
from glebe.apiserver.types.registry import TypeRegistry
from glebe.kube.client import Client
from glebe.kube.clock import Env, LoopClock
from glebe.kube.errors import ApiError
from glebe.kube.inprocess import InProcessTransport
from glebe.kube.objects import Object
from glebe.kube.resources import (
    CLUSTER_ROLE_BINDINGS,
    CLUSTER_ROLES,
    NODES,
    PODS,
    ROLE_BINDINGS,
    ROLES,
    SECRETS,
    SERVICE_ACCOUNTS,
    Resource,
)
from glebe.kube.transport import Request, Response, User

ANN = User("ann", ("system:authenticated",))
NOBODY = User("system:anonymous", ("system:unauthenticated",))
GROUP = "rbac.authorization.k8s.io"


def rule(verbs: str, resources: str = "", groups: str = "", names: str = "", urls: str = "") -> Object:
    out: Object = {"verbs": verbs.split(",")}
    if urls:
        return {**out, "nonResourceURLs": urls.split(",")}
    out |= {"apiGroups": groups.split(","), "resources": resources.split(",")}
    return {**out, "resourceNames": names.split(",")} if names else out


@pytest.mark.parametrize(
    ("given_rule", "asked", "allowed"),
    [
        (rule("get", "pods"), Attributes("get", resource="pods"), True),
        (rule("get", "pods"), Attributes("list", resource="pods"), False),
        (rule("*", "*", "*"), Attributes("delete", "batch", "jobs"), True),
        (rule("get", "pods"), Attributes("get", resource="pods", subresource="log"), False),
        (rule("get", "pods/log"), Attributes("get", resource="pods", subresource="log"), True),
        (rule("get", "*/log"), Attributes("get", resource="pods", subresource="log"), True),
        (rule("get", "*"), Attributes("get", resource="pods", subresource="log"), True),
        (rule("get", "pods"), Attributes("get", "metrics.k8s.io", "pods"), False),
        (rule("get", "secrets", names="a,b"), Attributes("get", resource="secrets", name="b"), True),
        (rule("get", "secrets", names="a,b"), Attributes("get", resource="secrets", name="c"), False),
        (rule("get", "secrets", names="a"), Attributes("list", resource="secrets"), False),
        (rule("get", urls="/healthz*"), Attributes("get", path="/healthz/etcd"), True),
        (rule("get", urls="/healthz"), Attributes("get", path="/healthz/etcd"), False),
    ],
)
def test_rules(given_rule: Object, asked: Attributes, allowed: bool) -> None:
    assert allows(given_rule, asked) is allowed


WORDS = st.lists(st.sampled_from(["a", "b", "*"]), min_size=1, max_size=2, unique=True)
RULES = st.builds(
    lambda v, g, r, n: {"verbs": v, "apiGroups": g, "resources": r, **({"resourceNames": n} if n else {})},
    WORDS,
    WORDS,
    WORDS,
    st.lists(st.sampled_from(["x", "y"]), max_size=1),
)


@given(st.lists(RULES, max_size=3), RULES)
def test_covered_rules_allow_nothing_that_the_owner_may_not(owned: list[Object], wanted: Object) -> None:
    if uncovered(owned, [wanted]):
        return
    for verb in "abc":
        for group in "abc":
            for resource in "abc":
                for name in ("", "x", "y", "z"):
                    asked = Attributes(verb, group, resource, name=name)
                    assert not allows(wanted, asked) or any(allows(o, asked) for o in owned)


class As:
    """Sends requests as whoever the test says, past no trusted door."""

    def __init__(self, server: ApiServer, user: User) -> None:
        self._server, self._user = server, user

    async def send(self, request: Request) -> Response:
        request.user = self._user
        return await self._server.handle(request)

    async def close(self) -> None:
        return None


@pytest.fixture(scope="module")
def pki(tmp_path_factory: pytest.TempPathFactory) -> Pki:
    out = Pki(tmp_path_factory.mktemp("pki"))
    out.ensure([], LoopClock.EPOCH)
    return out


async def serve(pki: Pki) -> tuple[ApiServer, Client]:
    env = Env.seeded(1)
    server = ApiServer(MemoryStore(), env, TypeRegistry())
    secure(server, pki, env)
    await server.start()
    return server, Client(InProcessTransport(server.handle))


def as_user(server: ApiServer, user: User = ANN) -> Client:
    return Client(As(server, user))


def role(name: str, *rules: Object, cluster: bool = False) -> Object:
    meta = {"name": name} if cluster else {"name": name, "namespace": "default"}
    kind = "ClusterRole" if cluster else "Role"
    return {"apiVersion": f"{GROUP}/v1", "kind": kind, "metadata": meta, "rules": list(rules)}


def binding(name: str, role_kind: str, role_name: str, subject: Object, *, cluster: bool = False) -> Object:
    meta = {"name": name} if cluster else {"name": name, "namespace": "default"}
    return {
        "apiVersion": f"{GROUP}/v1",
        "kind": "ClusterRoleBinding" if cluster else "RoleBinding",
        "metadata": meta,
        "roleRef": {"apiGroup": GROUP, "kind": role_kind, "name": role_name},
        "subjects": [subject],
    }


def subject(name: str = "ann", kind: str = "User", **more: Any) -> Object:
    return {"kind": kind, "name": name, **({"apiGroup": GROUP} if kind != "ServiceAccount" else {}), **more}


async def refused(call: Any) -> ApiError:
    with pytest.raises(ApiError) as caught:
        await call
    assert caught.value.code == 403
    return caught.value


async def test_without_a_binding_nothing_is_allowed_in_upstreams_words(pki: Pki) -> None:
    server, _ = await serve(pki)
    error = await refused(as_user(server).get(PODS, "web", "default"))
    assert error.message == (
        'pods "web" is forbidden: User "ann" cannot get resource "pods" in API group "" in the namespace "default"'
    )
    error = await refused(as_user(server).list(NODES))
    assert error.message == (
        'nodes is forbidden: User "ann" cannot list resource "nodes" in API group "" at the cluster scope'
    )


async def test_a_role_holds_in_its_namespace_and_from_the_next_request(pki: Pki) -> None:
    server, admin = await serve(pki)
    ann = as_user(server)
    await admin.create(ROLES, role("reader", rule("get,list", "pods")))
    await admin.create(ROLE_BINDINGS, binding("ann", "Role", "reader", subject()))
    assert (await ann.list(PODS, "default")).items == []
    await refused(ann.list(PODS, "kube-system"))
    await refused(ann.list(SECRETS, "default"))
    await admin.delete(ROLE_BINDINGS, "ann", "default")
    await refused(ann.list(PODS, "default"))


async def test_bootstrap_roles_aggregate(pki: Pki) -> None:
    server, admin = await serve(pki)
    ann = as_user(server)
    await admin.create(CLUSTER_ROLE_BINDINGS, binding("v", "ClusterRole", "view", subject(), cluster=True))
    await ann.list(PODS, "default")
    await refused(ann.list(SECRETS, "default"))
    jobs = Resource("example.org", "v1", "things", "Thing")
    await refused(ann.list(jobs, "default"))
    extra = role("things", rule("list", "things", "example.org"), cluster=True)
    extra["metadata"]["labels"] = {f"{GROUP}/aggregate-to-view": "true"}
    await admin.create(CLUSTER_ROLES, extra)
    with pytest.raises(ApiError) as caught:
        await ann.list(jobs, "default")
    assert caught.value.code == 404  # allowed now, but there is no such kind


async def test_a_service_account_is_a_subject(pki: Pki) -> None:
    server, admin = await serve(pki)
    meta = {"name": "robot", "namespace": "default"}
    await admin.create(SERVICE_ACCOUNTS, {"apiVersion": "v1", "kind": "ServiceAccount", "metadata": meta})
    who = subject("robot", "ServiceAccount", namespace="default")
    await admin.create(CLUSTER_ROLE_BINDINGS, binding("r", "ClusterRole", "view", who, cluster=True))
    request = {"apiVersion": "authentication.k8s.io/v1", "kind": "TokenRequest", "metadata": {}, "spec": {}}
    answer = await admin.create(SERVICE_ACCOUNTS, request, "default", name="robot", subresource="token")
    token = answer["status"]["token"]
    headers = {"authorization": f"Bearer {token}"}
    ok = await server.handle(Request("GET", "/api/v1/namespaces/default/pods", headers=headers))
    assert ok.status == 200
    wrong = await server.handle(Request("GET", "/api/v1/pods", headers={"authorization": f"Bearer {token}x"}))
    assert wrong.status == 401


async def test_nobody_gives_what_they_have_not(pki: Pki) -> None:
    server, admin = await serve(pki)
    ann = as_user(server)
    await admin.create(ROLES, role("manager", rule("*", "roles,rolebindings", GROUP), rule("get", "pods")))
    # Verbs are "*", so escalate and bind are in it: take them away to see the check.
    narrow = role("clerk", rule("get,create,update", "roles,rolebindings", GROUP), rule("get", "pods"))
    await admin.create(ROLES, narrow)
    await admin.create(ROLE_BINDINGS, binding("clerk", "Role", "clerk", subject()))
    await ann.create(ROLES, role("same", rule("get", "pods")))
    error = await refused(ann.create(ROLES, role("more", rule("get,delete", "pods,secrets"))))
    assert "is attempting to grant RBAC permissions not currently held" in error.message
    assert '{APIGroups:[""], Resources:["secrets"], Verbs:["get" "delete"]}' in error.message
    await refused(ann.create(ROLE_BINDINGS, binding("self", "ClusterRole", "cluster-admin", subject())))
    await ann.create(ROLE_BINDINGS, binding("bob", "Role", "same", subject("bob")))
    await admin.create(ROLE_BINDINGS, binding("manager", "Role", "manager", subject()))
    await ann.create(ROLES, role("more", rule("get,delete", "pods,secrets")))


async def test_a_role_too_big_to_look_at_is_refused_at_once(pki: Pki) -> None:
    server, admin = await serve(pki)
    ann = as_user(server)
    await admin.create(ROLES, role("clerk", rule("create", "roles", GROUP), rule("get", "pods")))
    await admin.create(ROLE_BINDINGS, binding("clerk", "Role", "clerk", subject()))
    many = {"verbs": [f"v{i}" for i in range(500)], "apiGroups": [""], "resources": [f"r{i}" for i in range(500)]}
    error = await refused(ann.create(ROLES, role("huge", many)))
    assert "more than 20000 combinations" in error.message
    with pytest.raises(ApiError) as caught:
        await ann.create(ROLES, role("odd", {"verbs": [{"a": 1}], "apiGroups": [""], "resources": ["pods"]}))
    assert caught.value.code in (400, 422)


async def test_a_label_may_not_pour_rights_into_an_aggregate(pki: Pki) -> None:
    server, admin = await serve(pki)
    ann = as_user(server)
    clerk = role("clerk", rule("get,create,update,patch", "clusterroles", GROUP), cluster=True)
    await admin.create(CLUSTER_ROLES, clerk)
    await admin.create(CLUSTER_ROLE_BINDINGS, binding("clerk", "ClusterRole", "clerk", subject(), cluster=True))
    await admin.create(CLUSTER_ROLES, role("strong", rule("*", "*", "*"), cluster=True))
    label = {"metadata": {"labels": {f"{GROUP}/aggregate-to-view": "true"}}}
    await refused(ann.patch(CLUSTER_ROLES, "strong", label))
    await ann.patch(CLUSTER_ROLES, "strong", {"metadata": {"finalizers": ["example.org/x"]}})
    error = await refused(ann.patch(CLUSTER_ROLES, "view", {"aggregationRule": None}))
    assert "is attempting to grant RBAC permissions not currently held" in error.message


async def test_a_list_of_one_name_needs_the_right_to_that_name(pki: Pki) -> None:
    server, admin = await serve(pki)
    await admin.create(ROLES, role("one", rule("get,list,watch", "secrets", names="mine")))
    await admin.create(ROLE_BINDINGS, binding("ann", "Role", "one", subject()))
    token = User("ann", ("system:authenticated",))

    async def status(query: str) -> int:
        request = Request("GET", "/api/v1/namespaces/default/secrets", [("fieldSelector", query)] if query else [])
        request.user = token
        response = await server.handle(request)
        return response.status

    assert await status("metadata.name=mine") == 200
    assert await status("metadata.name=other") == 403
    assert await status("metadata.name!=mine") == 403
    assert await status("type=x") == 403
    assert await status("") == 403
    # whatever is named second, only the first one's objects come
    assert await status("metadata.name=mine,metadata.name=other") == 200


async def test_bindings_of_one_cluster_count_for_nothing_in_all_of_them(pki: Pki) -> None:
    server, admin = await serve(pki)
    await server.clusters.create("a")
    everything = binding("all", "ClusterRole", "cluster-admin", subject(), cluster=True)
    await admin.for_cluster("a").create(CLUSTER_ROLE_BINDINGS, everything)
    authorizer = server.authorizer
    assert authorizer is not None
    for cluster, allowed in (("a", True), ("root", False), ("*", False), ("", False)):
        assert (await authorizer.authorize(ANN, cluster, "get", "", "pods", "", "", "", ""))[0] is allowed, cluster


async def test_a_clusters_roles_are_objects_once_somebody_looks(pki: Pki) -> None:
    server, admin = await serve(pki)
    await server.clusters.create("a")
    ann = Client(As(server, ANN), cluster="a")
    tenant = admin.for_cluster("a")
    await tenant.create(CLUSTER_ROLE_BINDINGS, binding("v", "ClusterRole", "view", subject(), cluster=True))
    assert "clusterroles.rbac.authorization.k8s.io" not in server.store.resources("a")
    await ann.list(PODS, "default")  # the roles hold all the same
    view = await tenant.get(CLUSTER_ROLES, "view")
    assert view["rules"]
    await tenant.delete(CLUSTER_ROLES, "view")
    await refused(ann.list(PODS, "default"))  # and now they are what the objects say


async def test_reviews(pki: Pki) -> None:
    server, admin = await serve(pki)
    group = "authorization.k8s.io"
    await admin.create(ROLES, role("reader", rule("get", "pods")))
    await admin.create(ROLE_BINDINGS, binding("ann", "Role", "reader", subject()))
    ann = as_user(server)

    def review(kind: str, plural: str, spec: Object, review_group: str = group) -> tuple[Resource, Object]:
        resource = Resource(review_group, "v1", plural, kind, namespaced=False)
        return resource, {"apiVersion": f"{review_group}/v1", "kind": kind, "metadata": {}, "spec": spec}

    asked = {"verb": "get", "resource": "pods", "namespace": "default"}
    own = review("SelfSubjectAccessReview", "selfsubjectaccessreviews", {"resourceAttributes": asked})
    answer = await ann.create(*own)
    assert answer["status"]["allowed"] is True
    assert answer["status"]["reason"] == 'RBAC: allowed by RoleBinding "ann/default" of Role "reader" to User "ann"'
    other = review("SubjectAccessReview", "subjectaccessreviews", {"resourceAttributes": asked, "user": "bob"})
    assert (await admin.create(*other))["status"] == {"allowed": False}
    await refused(ann.create(*other))
    rules = await ann.create(*review("SelfSubjectRulesReview", "selfsubjectrulesreviews", {"namespace": "default"}))
    assert {"verbs": ["get"], "apiGroups": [""], "resources": ["pods"]} in rules["status"]["resourceRules"]
    who = await ann.create(*review("SelfSubjectReview", "selfsubjectreviews", {}, "authentication.k8s.io"))
    assert who["status"]["userInfo"]["username"] == "ann"


async def test_anonymous_sees_health_and_version_only(pki: Pki) -> None:
    server, _ = await serve(pki)
    assert (await server.handle(Request("GET", "/readyz"))).status == 200
    assert (await server.handle(Request("GET", "/api/v1/pods"))).status == 403
    assert (await server.handle(Request("GET", "/api"))).status == 403
    await refused(as_user(server, NOBODY).list(PODS, "default"))


async def test_the_bootstrap_policy_is_seen_by_who_looks(pki: Pki) -> None:
    _, admin = await serve(pki)
    names = {o["metadata"]["name"] for o in (await admin.list(CLUSTER_ROLES)).items}
    assert {"cluster-admin", "admin", "edit", "view", "system:basic-user", "system:discovery"} <= names
