"""The audit log: what is written down about whom, and that it never holds anybody up."""

from __future__ import annotations

import asyncio
from base64 import b64encode
from pathlib import Path
from typing import Any

import orjson
import pytest

from glebe.apiserver.assembly import ServerOptions, complete
from glebe.apiserver.audit import log as auditlog
from glebe.apiserver.audit.filter import Audit
from glebe.apiserver.audit.log import AuditLog, RotatingFile
from glebe.apiserver.audit.options import AuditOptions, Rotation
from glebe.apiserver.audit.policy import Policy, PolicyError, everything_metadata, read
from glebe.apiserver.auth.assembly import secure
from glebe.apiserver.auth.options import IdentityOptions
from glebe.apiserver.auth.pki import Pki
from glebe.apiserver.request import routing
from glebe.apiserver.server import ApiServer
from glebe.apiserver.store import MemoryStore
from glebe.apiserver.types.registry import TypeRegistry
from glebe.kube.clock import Env, FixedClock, LoopClock
from glebe.kube.objects import Object
from glebe.kube.transport import Request, Response, User

BOSS = User("boss", ("system:masters", "system:authenticated"))
ANN = User("ann", ("dev", "system:authenticated"))
TOKENS = {"boss": BOSS, "ann": ANN}


class Lines:
    """A sink that keeps the events."""

    def __init__(self) -> None:
        self.events: list[Object] = []

    def take(self, line: bytes) -> None:
        assert line.endswith(b"\n")
        self.events.append(orjson.loads(line))

    def stages(self) -> list[str]:
        return [e["stage"] for e in self.events]


def policy(*rules: Object, **more: Any) -> Policy:
    return read({"apiVersion": "audit.k8s.io/v1", "kind": "Policy", "rules": list(rules), **more})


@pytest.fixture(scope="module")
def pki(tmp_path_factory: pytest.TempPathFactory) -> Pki:
    out = Pki(tmp_path_factory.mktemp("pki"))
    out.ensure([], LoopClock.EPOCH)
    return out


async def serve(pki: Pki, rules: Policy) -> tuple[ApiServer, Lines]:
    env = Env.seeded(1)
    server = ApiServer(MemoryStore(), env, TypeRegistry())
    secure(server, pki, env, IdentityOptions(static_tokens=TOKENS))
    await server.start()
    lines = Lines()
    audit = Audit(rules, lines, env)
    server.filters = (audit, *server.filters)
    server.refused = audit.refused
    return server, lines


async def ask(
    server: ApiServer, method: str, path: str, body: Object | None = None, who: str = "boss", **headers: str
) -> Response:
    path, _, query = path.partition("?")
    pairs = [tuple(p.split("=", 1)) for p in query.split("&") if p]
    given = {k.replace("_", "-"): v for k, v in headers.items()}
    sent = {"authorization": f"Bearer {who}", "content-type": "application/json", **given}
    data = orjson.dumps(body) if body is not None else b""
    return await server.handle(Request(method, path, pairs, sent, data, remote="10.0.0.9"))  # type: ignore[arg-type]


def secret(name: str = "s") -> Object:
    data = {"password": b64encode(b"hush").decode()}
    return {"apiVersion": "v1", "kind": "Secret", "metadata": {"name": name}, "data": data}


async def test_metadata_says_who_and_what_and_nothing_of_the_content(pki: Pki) -> None:
    server, lines = await serve(pki, everything_metadata())
    answer = await ask(server, "POST", "/api/v1/namespaces/default/secrets?dryRun=", secret(), user_agent="kubectl/1")
    assert answer.status == 201
    received, complete_ = lines.events
    assert (received["stage"], complete_["stage"]) == ("RequestReceived", "ResponseComplete")
    assert received["auditID"] == complete_["auditID"] == answer.headers["audit-id"]
    assert complete_["user"] == {"username": "boss", "groups": list(BOSS.groups)}
    assert complete_["sourceIPs"] == ["10.0.0.9"]
    assert complete_["userAgent"] == "kubectl/1"
    assert complete_["objectRef"] == {"resource": "secrets", "namespace": "default", "apiVersion": "v1"}
    assert complete_["responseStatus"]["code"] == 201
    assert complete_["annotations"]["glebe.dev/cluster"] == "root"
    assert complete_["annotations"]["authorization.k8s.io/decision"] == "allow"
    assert "requestObject" not in complete_
    assert "responseObject" not in complete_
    assert b64encode(b"hush").decode() not in orjson.dumps(lines.events).decode()


async def test_levels_choose_what_of_the_bodies_is_kept(pki: Pki) -> None:
    rules = policy(
        {"level": "None", "resources": [{"group": "", "resources": ["secrets"]}]},
        {"level": "Request", "verbs": ["create"]},
        {"level": "RequestResponse"},
        omitStages=["RequestReceived"],
        omitManagedFields=True,
    )
    server, lines = await serve(pki, rules)
    await ask(server, "POST", "/api/v1/namespaces/default/secrets", secret())
    assert lines.events == []
    config = {"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": "c"}, "data": {"a": "b"}}
    await ask(server, "POST", "/api/v1/namespaces/default/configmaps", config)
    assert lines.events[-1]["requestObject"] == config
    assert "responseObject" not in lines.events[-1]
    patch = {"data": {"a": "c"}}
    await ask(
        server, "PATCH", "/api/v1/namespaces/default/configmaps/c", patch, content_type="application/merge-patch+json"
    )
    assert lines.events[-1]["requestObject"] == patch
    assert lines.events[-1]["responseObject"]["data"] == {"a": "c"}
    assert "managedFields" not in lines.events[-1]["responseObject"]["metadata"]
    await ask(server, "GET", "/api/v1/namespaces/default/configmaps")
    assert all("managedFields" not in i["metadata"] for i in lines.events[-1]["responseObject"]["items"])
    assert lines.stages() == ["ResponseComplete"] * 3


async def test_refusals_are_written_with_their_reason(pki: Pki) -> None:
    server, lines = await serve(pki, everything_metadata())
    await ask(server, "GET", "/api/v1/nodes", who="ann")
    event = lines.events[-1]
    assert event["responseStatus"]["code"] == 403
    assert event["responseStatus"]["reason"] == "Forbidden"
    assert event["annotations"]["authorization.k8s.io/decision"] == "forbid"
    lines.events.clear()
    await ask(server, "GET", "/api/v1/nodes", who="nobody")
    (event,) = lines.events
    assert event["stage"] == "ResponseStarted"
    assert event["responseStatus"]["code"] == 401
    assert event["responseStatus"]["message"] == "Authentication failed, attempted: bearer"
    assert "nobody" not in orjson.dumps(event).decode()


async def test_acting_for_somebody_else_names_both(pki: Pki) -> None:
    server, lines = await serve(pki, everything_metadata())
    await ask(server, "GET", "/api/v1/nodes", impersonate_user="ann", impersonate_uid="7", impersonate_extra_team="x")
    event = lines.events[-1]
    assert event["user"]["username"] == "boss"
    assert event["impersonatedUser"] == {
        "username": "ann",
        "uid": "7",
        "groups": ["system:authenticated"],
        "extra": {"team": ["x"]},
    }
    lines.events.clear()
    await ask(server, "GET", "/api/v1/nodes", who="ann", impersonate_user="boss")
    assert lines.events[-1]["user"]["username"] == "ann"
    assert lines.events[-1]["responseStatus"]["code"] == 403


async def test_a_policy_is_about_who_really_asks(pki: Pki) -> None:
    server, lines = await serve(pki, policy({"level": "Metadata", "users": ["boss"]}))
    await ask(server, "GET", "/api/v1/nodes", impersonate_user="ann")
    assert lines.stages() == ["RequestReceived", "ResponseComplete"]


async def test_a_watch_is_written_at_its_start_and_at_its_end(pki: Pki) -> None:
    server, lines = await serve(pki, everything_metadata())
    answer = await ask(server, "GET", "/api/v1/namespaces/default/pods?watch=true&timeoutSeconds=5")
    assert lines.stages() == ["RequestReceived", "ResponseStarted"]
    assert answer.stream is not None
    async for _ in answer.stream:
        pass
    await answer.close()
    assert lines.stages() == ["RequestReceived", "ResponseStarted", "ResponseComplete"]
    answer = await ask(server, "GET", "/api/v1/namespaces/default/pods?watch=true")
    await answer.close()
    assert lines.stages()[3:] == ["RequestReceived", "ResponseStarted", "ResponseComplete"]


async def test_a_clients_audit_id_is_kept_when_it_is_one(pki: Pki) -> None:
    server, lines = await serve(pki, everything_metadata())
    await ask(server, "GET", "/api/v1/nodes", audit_id="mine-1")
    assert lines.events[-1]["auditID"] == "mine-1"
    await ask(server, "GET", "/api/v1/nodes", audit_id="x" * 65)
    assert len(lines.events[-1]["auditID"]) == 36


@pytest.mark.parametrize(
    ("rule", "method", "path", "matches"),
    [
        ({"resources": [{"group": "", "resources": ["pods"]}]}, "GET", "/api/v1/namespaces/d/pods/p", True),
        ({"resources": [{"group": "", "resources": ["pods"]}]}, "GET", "/api/v1/namespaces/d/pods/p/log", False),
        ({"resources": [{"group": "", "resources": ["pods/*"]}]}, "GET", "/api/v1/namespaces/d/pods/p/log", True),
        ({"resources": [{"group": "", "resources": ["*/log"]}]}, "GET", "/api/v1/namespaces/d/pods/p/log", True),
        ({"resources": [{"group": "apps"}]}, "GET", "/apis/apps/v1/deployments", True),
        ({"resources": [{"group": "apps"}]}, "GET", "/api/v1/pods", False),
        ({"resources": [{"resources": ["pods"], "resourceNames": ["q"]}]}, "GET", "/api/v1/namespaces/d/pods/p", False),
        ({"namespaces": ["d"]}, "GET", "/api/v1/namespaces/d/pods", True),
        ({"namespaces": ["e"]}, "GET", "/api/v1/namespaces/d/pods", False),
        ({"namespaces": ["d"]}, "GET", "/version", False),
        ({"nonResourceURLs": ["/api*"]}, "GET", "/apis/apps", True),
        ({"nonResourceURLs": ["/healthz"]}, "GET", "/version", False),
        ({"nonResourceURLs": ["/api*"]}, "GET", "/api/v1/pods", False),
        ({"userGroups": ["dev"]}, "GET", "/version", True),
        ({"userGroups": ["ops"]}, "GET", "/version", False),
        ({"verbs": ["list"]}, "GET", "/api/v1/pods", True),
        ({"verbs": ["get"]}, "GET", "/api/v1/pods", False),
    ],
)
def test_rules_choose_as_upstreams_do(rule: Object, method: str, path: str, matches: bool) -> None:
    verdict = policy({"level": "Metadata", **rule}).verdict(ANN, routing.parse(Request(method, path)))
    assert (verdict is not None) is matches


@pytest.mark.parametrize(
    ("document", "field"),
    [
        ({"kind": "Nothing"}, "kind"),
        ({"kind": "Policy", "apiVersion": "audit.k8s.io/v1alpha1"}, "apiVersion"),
        ({"kind": "Policy", "apiVersion": "audit.k8s.io/v1", "rules": []}, "rules"),
        ({"kind": "Policy", "apiVersion": "audit.k8s.io/v1", "rules": [{"level": "All"}]}, r"rules\[0\].level"),
        ({"kind": "Policy", "apiVersion": "audit.k8s.io/v1", "rules": [{"level": "None", "user": "x"}]}, "user"),
        (
            {
                "kind": "Policy",
                "apiVersion": "audit.k8s.io/v1",
                "rules": [{"level": "None", "nonResourceURLs": ["/x"], "namespaces": ["y"]}],
            },
            "nonResourceURLs",
        ),
    ],
)
def test_a_policy_that_makes_no_sense_names_the_field(document: Object, field: str) -> None:
    with pytest.raises(PolicyError, match=field):
        read(document)


def test_a_full_file_is_put_aside_and_old_ones_go(tmp_path: Path) -> None:
    clock = FixedClock()
    file = RotatingFile(str(tmp_path / "audit.log"), Rotation(max_size=1, max_backups=2), clock)
    for _ in range(5):
        clock.value += 1
        file.write(b"x" * 700_000 + b"\n")
    file.close()
    names = sorted(p.name for p in tmp_path.iterdir())
    assert names == ["audit-2026-01-01T00-00-04.000.log", "audit-2026-01-01T00-00-05.000.log", "audit.log"]
    assert (tmp_path / "audit.log").stat().st_mode & 0o777 == 0o600
    assert (tmp_path / "audit.log").stat().st_size == 700_001


@pytest.mark.realtime
async def test_a_server_writes_its_log_and_all_of_it_at_its_end(pki: Pki, tmp_path: Path) -> None:
    env = Env.system()
    server = ApiServer(MemoryStore(), env, TypeRegistry())
    secure(server, pki, env, IdentityOptions(static_tokens=TOKENS))
    path = tmp_path / "audit.log"
    complete(server, ServerOptions(audit=AuditOptions(everything_metadata(), str(path))))
    await server.start()
    for _ in range(20):
        await ask(server, "GET", "/api/v1/nodes")
    await server.close()
    events = [orjson.loads(line) for line in path.read_bytes().splitlines()]
    assert len([e for e in events if e["stage"] == "ResponseComplete"]) == 20


@pytest.mark.realtime
async def test_a_disk_that_hangs_costs_events_not_requests(monkeypatch: pytest.MonkeyPatch) -> None:
    import threading

    gate = threading.Event()

    class Stuck(RotatingFile):
        def write(self, data: bytes) -> None:
            gate.wait(5)

    monkeypatch.setattr(auditlog, "WAITING", 10)
    monkeypatch.setattr(auditlog, "FLUSH_SECONDS", 0.0)
    sink = AuditLog(Stuck("/nowhere", Rotation()))
    sink.take(b"first\n")
    await asyncio.sleep(0.01)  # it hangs now
    for _ in range(15):
        sink.take(b"event\n")
    assert sink.dropped == 5
    gate.set()
    sink.close()
    assert sink.written == 10
