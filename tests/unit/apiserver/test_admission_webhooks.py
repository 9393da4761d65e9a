"""Admission webhooks against a real TLS server."""

from __future__ import annotations

import ipaddress
from pathlib import Path
from typing import Any

import orjson
import pytest
from webhook_peer import WebhookPeer, denying, patching, webhook_peer

from glebe.apiserver.assembly import ServerOptions, complete
from glebe.apiserver.dialing import DialRules
from glebe.apiserver.server import ApiServer
from glebe.apiserver.store import MemoryStore
from glebe.apiserver.types.registry import TypeRegistry
from glebe.kube.client import Client
from glebe.kube.clock import Env
from glebe.kube.errors import ApiError
from glebe.kube.inprocess import InProcessTransport
from glebe.kube.resources import CONFIGMAPS, CUSTOM_RESOURCE_DEFINITIONS, NAMESPACES, PODS, Resource
from glebe.kube.transport import PLATFORM, Request

GROUP = "admissionregistration.k8s.io"
MUTATING = Resource(GROUP, "v1", "mutatingwebhookconfigurations", "MutatingWebhookConfiguration", False)
VALIDATING = Resource(GROUP, "v1", "validatingwebhookconfigurations", "ValidatingWebhookConfiguration", False)
WIDGETS = Resource("example.org", "v1", "widgets", "Widget")

pytestmark = pytest.mark.realtime


async def serve() -> tuple[ApiServer, Client]:
    server = ApiServer(MemoryStore(), Env.seeded(1), TypeRegistry())
    await server.start()
    return server, Client(InProcessTransport(server.handle))


def rule(resources: str, *operations: str, group: str = "", version: str = "v1") -> dict[str, Any]:
    return {
        "apiGroups": [group],
        "apiVersions": [version],
        "resources": resources.split(),
        "operations": list(operations or ("CREATE",)),
    }


def hook(peer: WebhookPeer, name: str = "check.example.org", **more: Any) -> dict[str, Any]:
    return {
        "name": name,
        "clientConfig": peer.config(),
        "rules": [rule("configmaps")],
        "sideEffects": "None",
        "admissionReviewVersions": ["v1"],
        **more,
    }


def configuration(resource: Resource, *hooks: dict[str, Any], name: str = "config") -> dict[str, Any]:
    return {
        "apiVersion": f"{GROUP}/v1",
        "kind": resource.kind,
        "metadata": {"name": name},
        "webhooks": list(hooks),
    }


def config_map(name: str, **meta: Any) -> dict[str, Any]:
    return {"metadata": {"name": name, "namespace": "default", **meta}, "data": {"start": "yes"}}


async def refusal(action: Any) -> ApiError:
    with pytest.raises(ApiError) as caught:
        await action
    return caught.value


async def test_a_validating_webhook_is_told_everything_and_refuses(tmp_path: Path) -> None:
    server, client = await serve()
    async with webhook_peer(tmp_path) as peer:
        await client.create(VALIDATING, configuration(VALIDATING, hook(peer)))
        peer.answer = lambda request: denying("no such data", 403, "Forbidden")
        error = await refusal(client.create(CONFIGMAPS, config_map("a")))
        assert (error.code, error.reason) == (403, "Forbidden")
        assert error.message == 'admission webhook "check.example.org" denied the request: no such data'
        seen = peer.reviews[0]
        assert seen["kind"] == {"group": "", "version": "v1", "kind": "ConfigMap"}
        assert seen["resource"] == {"group": "", "version": "v1", "resource": "configmaps"}
        assert (seen["name"], seen["namespace"], seen["operation"]) == ("a", "default", "CREATE")
        assert seen["object"]["data"] == {"start": "yes"}
        assert seen["oldObject"] is None
        assert seen["userInfo"]["username"] == PLATFORM.name
        assert seen["options"]["kind"] == "CreateOptions"
        assert peer.paths == ["/hook?timeout=10s"]
        peer.answer = lambda request: denying()
        error = await refusal(client.create(CONFIGMAPS, config_map("a")))
        assert (error.code, error.message) == (
            400,
            'admission webhook "check.example.org" denied the request without explanation',
        )
        peer.answer = lambda request: {"allowed": True}
        await client.create(CONFIGMAPS, config_map("a"))
        assert len(peer.reviews) == 3
    await server.close()


async def test_webhooks_change_one_after_the_other_and_defaults_follow(tmp_path: Path) -> None:
    server, client = await serve()
    container = {"name": "added", "image": "x"}

    def answer(request: dict[str, Any]) -> dict[str, Any]:
        if request["kind"]["kind"] == "Pod":
            return patching({"op": "add", "path": "/spec/initContainers", "value": [container]})
        step = "stage-2" if "stage-1" in request["object"]["data"] else "stage-1"
        return patching({"op": "add", "path": f"/data/{step}", "value": "yes"})

    async with webhook_peer(tmp_path) as peer:
        peer.answer = answer
        rules = [rule("configmaps pods")]
        first = configuration(MUTATING, hook(peer, "a.example.org", rules=rules), name="one")
        second = configuration(MUTATING, hook(peer, "b.example.org", rules=[rule("configmaps")]), name="two")
        await client.create(MUTATING, first)
        await client.create(MUTATING, second)
        made = await client.create(CONFIGMAPS, config_map("a"))
        assert made["data"] == {"start": "yes", "stage-1": "yes", "stage-2": "yes"}
        pod = {"metadata": {"name": "p", "namespace": "default"}, "spec": {"containers": [{"name": "c", "image": "y"}]}}
        made = await client.create(PODS, pod)
        assert made["spec"]["initContainers"][0]["terminationMessagePolicy"] == "File"
    await server.close()


async def test_reinvocation_happens_once_and_only_for_who_wants_it(tmp_path: Path) -> None:
    server, client = await serve()
    calls: list[str] = []

    def answer(request: dict[str, Any]) -> dict[str, Any]:
        calls.append(request["uid"])
        count = len(calls)
        return patching({"op": "add", "path": f"/data/call-{count}", "value": "x"})

    async with webhook_peer(tmp_path) as peer:
        peer.answer = answer
        await client.create(
            MUTATING,
            configuration(
                MUTATING,
                hook(peer, "a.example.org", reinvocationPolicy="IfNeeded"),
                hook(peer, "b.example.org", reinvocationPolicy="Never"),
            ),
        )
        made = await client.create(CONFIGMAPS, config_map("a"))
        assert sorted(made["data"]) == ["call-1", "call-2", "call-3", "start"]
    await server.close()


async def test_selectors_scope_and_operations_choose(tmp_path: Path) -> None:
    server, client = await serve()
    async with webhook_peer(tmp_path) as peer:
        peer.answer = lambda request: denying("no")
        await client.create(NAMESPACES, {"metadata": {"name": "other", "labels": {"team": "a"}}})
        chosen = hook(
            peer,
            namespaceSelector={"matchLabels": {"team": "a"}},
            objectSelector={"matchExpressions": [{"key": "skip", "operator": "DoesNotExist"}]},
            rules=[rule("*", "*")],
        )
        await client.create(VALIDATING, configuration(VALIDATING, chosen))
        await client.create(CONFIGMAPS, config_map("free"))
        other = config_map("a")
        other["metadata"]["namespace"] = "other"
        await refusal(client.create(CONFIGMAPS, other))
        other["metadata"]["labels"] = {"skip": "me"}
        await client.create(CONFIGMAPS, other)
        await client.delete(CONFIGMAPS, "a", "other")  # the label is still on the old object
        assert [r["operation"] for r in peer.reviews] == ["CREATE"]
        # the namespace itself is judged by its own labels
        error = await refusal(client.patch(NAMESPACES, "other", {"metadata": {"annotations": {"a": "b"}}}))
        assert 'webhook "check.example.org" denied' in error.message
    await server.close()


async def test_match_conditions(tmp_path: Path) -> None:
    server, client = await serve()
    async with webhook_peer(tmp_path) as peer:
        peer.answer = lambda request: denying("no")
        conditions = [
            {"name": "not-free", "expression": "!object.metadata.name.startsWith('free')"},
            {"name": "has-data", "expression": "object.data['start'] == 'yes'"},
        ]
        await client.create(VALIDATING, configuration(VALIDATING, hook(peer, matchConditions=conditions)))
        await client.create(CONFIGMAPS, config_map("free"))
        await refusal(client.create(CONFIGMAPS, config_map("bound")))
        without = config_map("bound")
        without["data"] = {"other": "x"}
        error = await refusal(client.create(CONFIGMAPS, without))
        assert error.code == 403
        assert "resulted in error: no such key: start" in error.message
        without["metadata"]["name"] = "free-as-well"  # one that is false decides
        await client.create(CONFIGMAPS, without)
        assert len(peer.reviews) == 1
    await server.close()


async def test_invalid_configurations_are_refused(tmp_path: Path) -> None:
    server, client = await serve()
    async with webhook_peer(tmp_path) as peer:
        conditions = [{"name": "bad", "expression": "...bad expression"}]
        error = await refusal(
            client.create(VALIDATING, configuration(VALIDATING, hook(peer, matchConditions=conditions)))
        )
        assert error.code == 422
        assert "webhooks[0].matchConditions[0].expression" in error.message
        assert "compilation failed: ERROR: <input>:1:" in error.message
        faults = {
            "name": "short",
            "sideEffects": "Some",
            "timeoutSeconds": 31,
            "failurePolicy": "Maybe",
            "admissionReviewVersions": [],
        }
        for field, value in faults.items():
            error = await refusal(client.create(MUTATING, configuration(MUTATING, {**hook(peer), field: value})))
            assert f"webhooks[0].{field}" in error.message, field
        both = {"url": "https://x", "service": {"name": "a", "namespace": "b"}}
        error = await refusal(client.create(MUTATING, configuration(MUTATING, hook(peer, clientConfig=both))))
        assert "webhooks[0].clientConfig: Required value: exactly one of url or service is required" in error.message
        service = {"name": "a", "namespace": "b", "path": ""}  # a Go client's zero value
        await client.create(MUTATING, configuration(MUTATING, hook(peer, clientConfig={"service": service}), name="x"))
        error = await refusal(client.create(MUTATING, configuration(MUTATING, hook(peer), hook(peer))))
        assert 'webhooks[1].name: Duplicate value: "check.example.org"' in error.message
    await server.close()


async def test_failures_follow_the_failure_policy(tmp_path: Path) -> None:
    server, client = await serve()
    async with webhook_peer(tmp_path) as peer:
        closed = hook(peer, failurePolicy="Fail", timeoutSeconds=1)
        made = await client.create(VALIDATING, configuration(VALIDATING, closed))
        peer.delay = 5
        error = await refusal(client.create(CONFIGMAPS, config_map("a")))
        assert (error.code, error.reason) == (500, "InternalError")
        assert error.message.startswith(
            'Internal error occurred: failed calling webhook "check.example.org": failed to call webhook: Post '
        )
        assert error.message.endswith("context deadline exceeded")
        peer.delay = 0
        peer.raw = lambda review: {
            "kind": "AdmissionReview",
            "apiVersion": "admission.k8s.io/v1",
            "response": {"uid": "x"},
        }
        error = await refusal(client.create(CONFIGMAPS, config_map("a")))
        assert "received invalid webhook response: expected response.uid=" in error.message
        peer.raw, peer.status = (lambda review: {}), 500
        error = await refusal(client.create(CONFIGMAPS, config_map("a")))
        assert "an error on the server" in error.message
        made["webhooks"][0]["clientConfig"]["url"] = "https://localhost:1/"
        await client.update(VALIDATING, made)
        error = await refusal(client.create(CONFIGMAPS, config_map("a")))
        assert "connection refused" in error.message
        made = await client.get(VALIDATING, "config")
        made["webhooks"][0]["clientConfig"] = {"service": {"name": "no", "namespace": "default"}}
        made = await client.update(VALIDATING, made)
        error = await refusal(client.create(CONFIGMAPS, config_map("a")))
        assert 'service "no" not found' in error.message
        made["webhooks"][0]["failurePolicy"] = "Ignore"
        await client.update(VALIDATING, made)
        await client.create(CONFIGMAPS, config_map("a"))
    await server.close()


async def test_a_wrong_certificate_is_not_trusted(tmp_path: Path) -> None:
    server, client = await serve()
    (tmp_path / "a").mkdir()
    (tmp_path / "b").mkdir()
    async with webhook_peer(tmp_path / "a") as peer, webhook_peer(tmp_path / "b") as other:
        config = {**peer.config(), "caBundle": other.ca}
        await client.create(VALIDATING, configuration(VALIDATING, hook(peer, clientConfig=config)))
        error = await refusal(client.create(CONFIGMAPS, config_map("a")))
        assert "certificate" in error.message
        assert peer.reviews == []
    await server.close()


async def test_a_service_is_reached_at_its_ready_endpoints(tmp_path: Path) -> None:
    server, client = await serve()
    services = Resource("", "v1", "services", "Service")
    endpoints = Resource("", "v1", "endpoints", "Endpoints")
    async with webhook_peer(tmp_path) as peer:
        await client.create(
            services,
            {
                "metadata": {"name": "hook", "namespace": "default"},
                "spec": {"ports": [{"port": 8443, "targetPort": 1}]},
            },
        )
        subsets = [{"addresses": [{"ip": "127.0.0.1"}], "ports": [{"port": peer.port}]}]
        # an endpoint address may not be a loopback one: written past the API, as a controller's mistake would be
        obj = {"metadata": {"name": "hook", "namespace": "default"}, "subsets": subsets}
        try:
            await client.create(endpoints, obj)
        except ApiError:
            pytest.skip("endpoints on loopback addresses are refused")
        reference = {"name": "hook", "namespace": "default", "port": 8443, "path": "/x"}
        config = {"service": reference, "caBundle": peer.ca}
        await client.create(VALIDATING, configuration(VALIDATING, hook(peer, clientConfig=config)))
        await client.create(CONFIGMAPS, config_map("a"))
        assert peer.paths == ["/x?timeout=10s"]
    await server.close()


async def test_dry_runs_skip_webhooks_with_side_effects_only(tmp_path: Path) -> None:
    server, client = await serve()
    async with webhook_peer(tmp_path) as peer:
        await client.create(VALIDATING, configuration(VALIDATING, hook(peer, sideEffects="NoneOnDryRun")))
        await client.create(CONFIGMAPS, config_map("a"), dry_run=True)
        assert peer.reviews[0]["dryRun"] is True
    await server.close()


async def test_configurations_themselves_are_exempt(tmp_path: Path) -> None:
    server, client = await serve()
    async with webhook_peer(tmp_path) as peer:
        peer.answer = lambda request: denying("never")
        everything = hook(peer, rules=[rule("*/*", "*", group="*", version="*")])
        await client.create(VALIDATING, configuration(VALIDATING, everything, name="all"))
        await client.create(MUTATING, configuration(MUTATING, everything, name="all"))
        await refusal(client.create(CONFIGMAPS, config_map("a")))
        await client.patch(MUTATING, "all", {"metadata": {"labels": {"a": "b"}}})
        await client.delete(MUTATING, "all")
        await client.delete(VALIDATING, "all")
        await client.create(CONFIGMAPS, config_map("a"))
    await server.close()


async def test_custom_resources_are_pruned_after_mutation_and_deletion_can_be_denied(tmp_path: Path) -> None:
    server, client = await serve()
    schema = {
        "type": "object",
        "properties": {"data": {"type": "object", "additionalProperties": {"type": "string"}}},
    }
    version = {"name": "v1", "served": True, "storage": True, "schema": {"openAPIV3Schema": schema}}
    names = {"plural": "widgets", "singular": "widget", "kind": "Widget", "listKind": "WidgetList"}
    spec = {"group": "example.org", "scope": "Namespaced", "names": names, "versions": [version]}
    await client.create(CUSTOM_RESOURCE_DEFINITIONS, {"metadata": {"name": "widgets.example.org"}, "spec": spec})
    async with webhook_peer(tmp_path) as peer:
        rules = [rule("widgets", "CREATE", "DELETE", group="example.org")]
        await client.create(MUTATING, configuration(MUTATING, hook(peer, "m.example.org", rules=[rules[0]])))
        peer.answer = lambda request: (
            patching({"op": "add", "path": "/unknown", "value": 1}, {"op": "add", "path": "/data/b", "value": "c"})
            if request["operation"] == "CREATE"
            else {"allowed": True}
        )
        body = {"apiVersion": "example.org/v1", "kind": "Widget", "metadata": {"name": "w", "namespace": "default"}}
        made = await client.create(WIDGETS, {**body, "data": {"a": "b"}})
        assert made["data"] == {"a": "b", "b": "c"}
        assert "unknown" not in made
        await client.delete(MUTATING, "config")
        await client.create(VALIDATING, configuration(VALIDATING, hook(peer, rules=rules)))
        peer.answer = lambda request: denying("the custom resource contains unwanted data", 403)
        error = await refusal(client.delete(WIDGETS, "w", "default"))
        assert "unwanted data" in error.message
        assert peer.reviews[-1]["oldObject"]["data"] == {"a": "b", "b": "c"}
        assert peer.reviews[-1]["name"] == "w"
    await server.close()


async def test_equivalent_versions_are_converted(tmp_path: Path) -> None:
    server, client = await serve()
    scalers = Resource("autoscaling", "v1", "horizontalpodautoscalers", "HorizontalPodAutoscaler")
    async with webhook_peer(tmp_path) as peer:
        rules = [rule("horizontalpodautoscalers", group="autoscaling", version="v2")]
        await client.create(VALIDATING, configuration(VALIDATING, hook(peer, rules=rules)))
        target = {"apiVersion": "apps/v1", "kind": "Deployment", "name": "d"}
        spec = {"scaleTargetRef": target, "maxReplicas": 3, "targetCPUUtilizationPercentage": 50}
        await client.create(scalers, {"metadata": {"name": "h", "namespace": "default"}, "spec": spec})
        seen = peer.reviews[0]
        assert seen["object"]["apiVersion"] == "autoscaling/v2"
        assert seen["object"]["spec"]["metrics"][0]["resource"]["target"]["averageUtilization"] == 50
        assert seen["requestKind"]["version"] == "v1"
        assert seen["kind"]["version"] == "v2"
    await server.close()


async def test_warnings_of_webhooks_reach_the_client(tmp_path: Path) -> None:
    server, client = await serve()
    async with webhook_peer(tmp_path) as peer:
        await client.create(VALIDATING, configuration(VALIDATING, hook(peer)))
        peer.answer = lambda request: {"allowed": True, "warnings": ["mind the gap"]}
        body = orjson.dumps({"metadata": {"name": "a"}})
        path = "/api/v1/namespaces/default/configmaps"
        response = await server.handle(
            Request("POST", path, headers={"content-type": "application/json"}, body=body, user=PLATFORM)
        )
        assert response.headers["warning"] == '299 - "mind the gap"'
    await server.close()


async def test_a_tenant_cannot_make_the_server_dial_its_own_loopback(tmp_path: Path) -> None:
    server, client = await serve()
    await server.clusters.create("tenant")
    tenant = Client(InProcessTransport(server.handle), cluster="tenant")
    async with webhook_peer(tmp_path) as peer:
        await tenant.create(VALIDATING, configuration(VALIDATING, hook(peer)))
        error = await refusal(tenant.create(CONFIGMAPS, config_map("a")))
        assert "the address may not be reached from this cluster" in error.message
        assert peer.reviews == []
        loopback = DialRules(allow=(ipaddress.ip_network("127.0.0.0/8"), ipaddress.ip_network("::1/128")))
        complete(server, ServerOptions(dial=loopback))
        await tenant.create(CONFIGMAPS, config_map("a"))
        assert len(peer.reviews) == 1
        await client.create(CONFIGMAPS, config_map("a"))  # and nothing of it concerns others
    await server.close()
