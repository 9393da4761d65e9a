"""/metrics: what it says, who may read it, and that nobody can make it grow."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import orjson
import pytest

from glebe.apiserver.auth.rbac import RbacAuthorizer
from glebe.apiserver.metrics.families import Families
from glebe.apiserver.server import ApiServer
from glebe.apiserver.store import MemoryStore
from glebe.apiserver.types.registry import TypeRegistry
from glebe.kube.clock import Env
from glebe.kube.transport import PLATFORM, Request, Response, User

SPACE = "/api/v1/namespaces/default/configmaps"
DOCS = Path(__file__).parents[3] / "docs" / "metrics.md"
_LINE = re.compile(r'[a-zA-Z_:][\w:]*(\{\w+="[^"]*"(,\w+="[^"]*")*\})? -?[0-9.e+-]+(Inf)?')


class Names:
    async def authenticate(self, request: Request, cluster: str) -> User | None:
        name, *groups = request.headers.get("x-user", "someone").split(" ")
        return User(name, (*groups, "system:authenticated"))


async def serve() -> ApiServer:
    server = ApiServer(MemoryStore(), Env.seeded(1), TypeRegistry(), authenticator=Names())
    await server.start()
    await server.clusters.create("a")
    return server


async def ask(server: ApiServer, path: str, method: str = "GET", **given: Any) -> Response:
    headers = {"content-type": "application/json", "x-user": given.pop("user", "someone")}
    query = list(given.pop("query", {}).items())
    return await server.handle(Request(method, path, query, headers, given.pop("body", b"")))


async def scrape(server: ApiServer) -> dict[str, float]:
    response = await server.handle(Request("GET", "/metrics", user=PLATFORM))
    assert response.status == 200
    assert response.headers["content-type"].startswith("text/plain; version=0.0.4")
    out = {}
    for line in response.body.decode().splitlines():
        if not line.startswith("#"):
            assert _LINE.fullmatch(line), line
            series, _, value = line.rpartition(" ")
            out[series] = float(value)
    return out


def config(name: str) -> bytes:
    return orjson.dumps({"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": name}})


def test_the_text_format() -> None:
    families = Families()
    families.counter("b_total", "Some \\ text.", ("x",)).add(('q"\n',), 2)
    times = families.histogram("a_seconds", "Times.", ("v",), (0.1, 1))
    times.of("get").observe(0.1)
    times.of("get").observe(0.5)
    times.of("get").observe(7)
    assert families.text().decode().splitlines() == [
        "# HELP a_seconds Times.",
        "# TYPE a_seconds histogram",
        'a_seconds_bucket{v="get",le="0.1"} 1',
        'a_seconds_bucket{v="get",le="1"} 2',
        'a_seconds_bucket{v="get",le="+Inf"} 3',
        'a_seconds_sum{v="get"} 7.6',
        'a_seconds_count{v="get"} 3',
        "# HELP b_total Some \\ text.",
        "# TYPE b_total counter",
        'b_total{x="q\\"\\n"} 2',
    ]


async def test_requests_are_counted() -> None:
    server = await serve()
    await ask(server, SPACE, "POST", body=config("x"))
    await ask(server, SPACE, "POST", body=config("y"), query={"dryRun": "All"})
    await ask(server, f"/clusters/a{SPACE}/none")
    await ask(server, SPACE)
    watch = await ask(server, SPACE, query={"watch": "1"})
    found = await scrape(server)
    start = 'apiserver_request_total{verb="%s",group="",version="v1",resource="configmaps",subresource="",scope="%s"'
    post, get = start % ("POST", "resource"), start % ("GET", "resource")
    assert found[f'{post},code="201",dry_run=""}}'] == 1
    assert found[f'{post},code="201",dry_run="All"}}'] == 1
    assert found[f'{get},code="404",dry_run=""}}'] == 1
    assert found[start % ("LIST", "namespace") + ',code="200",dry_run=""}'] == 1
    assert found[start % ("WATCH", "namespace") + ',code="200",dry_run=""}'] == 1
    kind = 'group="",version="v1",resource="configmaps"'
    assert found[f'apiserver_longrunning_requests{{verb="WATCH",{kind}}}'] == 1
    durations = f'apiserver_request_duration_seconds_count{{verb="GET",{kind},subresource="",scope="resource"}}'
    assert found[durations] == 1
    assert found['apiserver_storage_objects{resource="configmaps"}'] == 1
    assert found["glebe_logical_clusters"] == 2
    assert found['apiserver_admission_step_admission_duration_seconds_count{type="admit"}'] >= 2
    flow = (
        'apiserver_flowcontrol_dispatched_requests_total{priority_level="global-default",flow_schema="global-default"}'
    )
    assert found[flow] == 5
    await watch.close()
    assert f'apiserver_longrunning_requests{{verb="WATCH",{kind}}}' not in await scrape(server)


async def test_events_to_watchers_are_counted() -> None:
    server = await serve()
    watch = await ask(server, SPACE, query={"watch": "1"})
    assert watch.stream is not None
    await ask(server, SPACE, "POST", body=config("x"))
    await anext(watch.stream)
    found = await scrape(server)
    assert found['apiserver_watch_events_total{group="",version="v1",resource="configmaps"}'] >= 1
    await watch.close()


async def test_only_the_root_cluster_tells_and_only_whom_rbac_lets() -> None:
    server = await serve()
    server.authorizer = RbacAuthorizer(server)
    assert (await ask(server, "/metrics")).status == 403
    assert (await ask(server, "/metrics", user="prometheus system:monitoring")).status == 200
    assert (await ask(server, "/metrics", user="admin system:masters")).status == 200
    assert (await ask(server, "/clusters/a/metrics", user="admin system:masters")).status == 404


async def test_tenants_and_clients_add_no_series() -> None:
    server = await serve()

    async def usual(cluster: str) -> None:
        at = f"/clusters/{cluster}"
        await ask(server, f"{at}{SPACE}", "POST", body=config("x"))
        for path in (
            SPACE,
            f"{SPACE}/x",
            f"{SPACE}/none",
            "/api/v1/x/y/z",
            "/apis/made.up/v1/things",
            f"{SPACE}/x/made",
        ):
            await ask(server, at + path, user="someone")
        await ask(server, f"{at}{SPACE}", "BREW")
        schema = {
            "apiVersion": "flowcontrol.apiserver.k8s.io/v1",
            "kind": "FlowSchema",
            "metadata": {"name": f"of-{cluster}"},
            "spec": {"priorityLevelConfiguration": {"name": "system"}, "matchingPrecedence": 7, "rules": []},
        }
        await ask(server, f"{at}/apis/flowcontrol.apiserver.k8s.io/v1/flowschemas", "POST", body=orjson.dumps(schema))

    await usual("a")
    await usual("a")
    before = set(await scrape(server))
    for number in range(300):
        await server.clusters.create(f"c{number}")
        await usual(f"c{number}")
    for number in range(300):
        await ask(server, f"/apis/group{number}/v1/things{number}")
        await ask(server, f"/api/v1/namespaces/default/pods/x/sub{number}")
        await ask(server, f"/made/up/{number}", f"VERB{number}")
    added = set(await scrape(server)) - before
    # verbs, groups and subresources that nobody serves have one name together
    assert len(added) < 90, sorted(added)
    again = set(await scrape(server))
    for number in range(300, 400):
        await ask(server, f"/apis/group{number}/v1/things{number}")
        await ask(server, f"/made/up/{number}", f"VERB{number}")
        await usual("a")
    assert set(await scrape(server)) == again
    assert not [s for s in again if "of-c" in s or "group1" in s or "VERB" in s]


async def test_every_metric_is_documented() -> None:
    server = await serve()
    assert server.metrics is not None
    documented = set(re.findall(r"^\| `(\w+)`", DOCS.read_text(encoding="utf-8"), re.MULTILINE))
    assert documented == set(server.metrics.families.names())


@pytest.mark.parametrize("name", ["process_resident_memory_bytes", "process_cpu_seconds_total", "process_open_fds"])
async def test_the_process(name: str) -> None:
    assert (await scrape(await serve()))[name] > 0
