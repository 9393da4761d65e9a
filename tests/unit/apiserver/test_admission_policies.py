"""ValidatingAdmissionPolicy and MutatingAdmissionPolicy."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import Any

import orjson
import pytest

from glebe.apiserver.server import ApiServer
from glebe.apiserver.store import MemoryStore
from glebe.apiserver.types.registry import TypeRegistry
from glebe.kube.client import Client
from glebe.kube.clock import Env
from glebe.kube.errors import ApiError
from glebe.kube.inprocess import InProcessTransport
from glebe.kube.resources import CONFIGMAPS, CUSTOM_RESOURCE_DEFINITIONS, JOBS, NAMESPACES, Resource
from glebe.kube.transport import PLATFORM, Request
from glebe.queueing.gatekeeping import policy as queue_policy

GROUP = "admissionregistration.k8s.io"
VALIDATING = Resource(GROUP, "v1", "validatingadmissionpolicies", "ValidatingAdmissionPolicy", False)
VALIDATING_BINDINGS = Resource(
    GROUP, "v1", "validatingadmissionpolicybindings", "ValidatingAdmissionPolicyBinding", False
)
MUTATING = Resource(GROUP, "v1", "mutatingadmissionpolicies", "MutatingAdmissionPolicy", False)
MUTATING_BINDINGS = Resource(GROUP, "v1", "mutatingadmissionpolicybindings", "MutatingAdmissionPolicyBinding", False)
DEPLOYMENTS = Resource("apps", "v1", "deployments", "Deployment")


async def serve() -> tuple[ApiServer, Client]:
    server = ApiServer(MemoryStore(), Env.seeded(1), TypeRegistry())
    await server.start()
    return server, Client(InProcessTransport(server.handle))


def constraints(resource: str = "deployments", group: str = "apps") -> dict[str, Any]:
    rule = {"apiGroups": [group], "apiVersions": ["v1"], "operations": ["CREATE", "UPDATE"], "resources": [resource]}
    return {"resourceRules": [rule]}


def policy(resource: Resource = VALIDATING, name: str = "policy.example.org", **spec: Any) -> dict[str, Any]:
    spec.setdefault("matchConstraints", constraints())
    return {"apiVersion": f"{GROUP}/v1", "kind": resource.kind, "metadata": {"name": name}, "spec": spec}


def binding(resource: Resource = VALIDATING_BINDINGS, name: str = "binding.example.org", **spec: Any) -> dict[str, Any]:
    spec.setdefault("policyName", "policy.example.org")
    if resource is VALIDATING_BINDINGS:
        spec.setdefault("validationActions", ["Deny"])
    return {"apiVersion": f"{GROUP}/v1", "kind": resource.kind, "metadata": {"name": name}, "spec": spec}


def deployment(name: str = "d", replicas: int = 1, **meta: Any) -> dict[str, Any]:
    labels = {"app": "x"}
    template = {"metadata": {"labels": labels}, "spec": {"containers": [{"name": "c", "image": "i"}]}}
    spec = {"replicas": replicas, "selector": {"matchLabels": labels}, "template": template}
    return {"metadata": {"name": name, "namespace": "default", **meta}, "spec": spec}


async def refusal(action: Any) -> ApiError:
    with pytest.raises(ApiError) as caught:
        await action
    return caught.value


async def test_a_policy_denies_once_it_is_bound() -> None:
    _, client = await serve()
    rules = [
        {"expression": "object.spec.replicas > 1", "messageExpression": "'wants ' + string(object.spec.replicas)"},
        {"expression": "namespaceObject.metadata.name == 'default'"},
    ]
    await client.create(VALIDATING, policy(validations=rules))
    await client.create(DEPLOYMENTS, deployment("free"))
    await client.create(VALIDATING_BINDINGS, binding())
    error = await refusal(client.create(DEPLOYMENTS, deployment()))
    assert (error.code, error.reason) == (422, "Invalid")
    assert error.message == (
        "deployments.apps \"d\" is forbidden: ValidatingAdmissionPolicy 'policy.example.org' with binding "
        "'binding.example.org' denied request: wants 1"
    )
    await client.create(DEPLOYMENTS, deployment(replicas=2))
    await client.delete(VALIDATING_BINDINGS, "binding.example.org")
    await client.create(DEPLOYMENTS, deployment("e"))


async def test_variables_build_on_each_other() -> None:
    _, client = await serve()
    variables = [
        {"name": "replicas", "expression": "object.spec.replicas"},
        {"name": "oddReplicas", "expression": "variables.replicas % 2 == 1"},
    ]
    rules = [
        {"expression": "variables.replicas > 1"},
        {"expression": "variables.oddReplicas", "reason": "Forbidden", "message": "must be odd"},
    ]
    await client.create(VALIDATING, policy(variables=variables, validations=rules))
    await client.create(VALIDATING_BINDINGS, binding())
    error = await refusal(client.create(DEPLOYMENTS, deployment(replicas=1)))
    assert error.message.endswith("denied request: failed expression: variables.replicas > 1")
    error = await refusal(client.create(DEPLOYMENTS, deployment(replicas=2)))
    assert (error.code, error.reason) == (403, "Forbidden")
    assert error.message.endswith("denied request: must be odd")
    await client.create(DEPLOYMENTS, deployment(replicas=3))


async def test_parameters_of_namespaces_and_by_selector() -> None:
    _, client = await serve()
    await client.create(NAMESPACES, {"metadata": {"name": "other"}})
    kind = {"apiVersion": "v1", "kind": "ConfigMap"}
    rules = [{"expression": "object.spec.replicas <= int(params.data.max)"}]
    await client.create(VALIDATING, policy(paramKind=kind, validations=rules))
    reference = {"name": "limits", "parameterNotFoundAction": "Deny"}
    await client.create(VALIDATING_BINDINGS, binding(paramRef=reference))
    error = await refusal(client.create(DEPLOYMENTS, deployment()))
    assert error.message.endswith(
        "denied request: failed to configure binding: no params found for policy binding with `Deny` "
        "parameterNotFoundAction"
    )
    await client.create(CONFIGMAPS, {"metadata": {"name": "limits", "namespace": "default"}, "data": {"max": "2"}})
    await client.create(DEPLOYMENTS, deployment(replicas=2))
    error = await refusal(client.create(DEPLOYMENTS, deployment("e", replicas=3)))
    assert "failed expression: object.spec.replicas <= int(params.data.max)" in error.message
    chosen = {"selector": {"matchLabels": {"kind": "limit"}}, "namespace": "other", "parameterNotFoundAction": "Allow"}
    await client.patch(VALIDATING_BINDINGS, "binding.example.org", {"spec": {"paramRef": {**chosen, "name": None}}})
    await client.create(DEPLOYMENTS, deployment("e", replicas=9))
    for name, most in (("a", "9"), ("b", "3")):
        meta = {"name": name, "namespace": "other", "labels": {"kind": "limit"}}
        await client.create(CONFIGMAPS, {"metadata": meta, "data": {"max": most}})
    await refusal(client.create(DEPLOYMENTS, deployment("f", replicas=4)))  # each parameter is a rule of its own
    await client.create(DEPLOYMENTS, deployment("f", replicas=3))


async def test_warnings_audit_and_annotations() -> None:
    server, client = await serve()
    annotations = [{"key": "replicas", "valueExpression": "'has ' + string(object.spec.replicas)"}]
    rules = [{"expression": "object.spec.replicas > 5", "message": "few replicas"}]
    await client.create(VALIDATING, policy(validations=rules, auditAnnotations=annotations))
    await client.create(VALIDATING_BINDINGS, binding(validationActions=["Warn", "Audit"]))
    seen: dict[str, str] = {}

    async def spy(flight: Any, onward: Callable[..., Any]) -> Any:
        response = await onward(flight)
        seen.update(flight.annotations)
        return response

    server.filters = (*server.filters, spy)
    path = "/apis/apps/v1/namespaces/default/deployments"
    headers = {"content-type": "application/json"}
    response = await server.handle(
        Request("POST", path, headers=headers, body=orjson.dumps(deployment()), user=PLATFORM)
    )
    assert response.status == 201
    assert (
        "Validation failed for ValidatingAdmissionPolicy 'policy.example.org' with binding"
        in response.headers["warning"]
    )
    assert seen["policy.example.org/replicas"] == "has 1"
    failure = orjson.loads(seen["validation.policy.admission.k8s.io/validation_failure"])[0]
    assert failure["message"] == "few replicas"
    assert failure["validationActions"] == ["Warn", "Audit"]


async def test_failure_policy_decides_about_errors() -> None:
    _, client = await serve()
    rules = [{"expression": "object.spec.nothing == 1"}]
    await client.create(VALIDATING, policy(validations=rules))
    await client.create(VALIDATING_BINDINGS, binding())
    error = await refusal(client.create(DEPLOYMENTS, deployment()))
    assert "expression 'object.spec.nothing == 1' resulted in error: no such key: nothing" in error.message
    await client.patch(VALIDATING, "policy.example.org", {"spec": {"failurePolicy": "Ignore"}})
    await client.create(DEPLOYMENTS, deployment())


async def test_the_authorizer_answers_inside_expressions() -> None:
    asked: list[tuple[str, ...]] = []

    class Asked:
        async def authorize(self, user: Any, cluster: str, *question: str) -> tuple[bool, str]:
            asked.append((user.name, *question))
            return question[0] != "breakglass" or user.name.endswith(":good"), "because"

    server, client = await serve()
    rules = [
        {"expression": "authorizer.group('apps').resource('deployments').check('breakglass').allowed()"},
    ]
    await client.create(VALIDATING, policy(validations=rules))
    await client.create(VALIDATING_BINDINGS, binding())
    await client.create(DEPLOYMENTS, deployment())  # the platform may do everything
    good = "authorizer.serviceAccount('default', 'bad').group('apps').resource('deployments').check('breakglass')"
    rules = [{"expression": f"{good}.allowed()", "messageExpression": f"{good.replace('bad', 'x')}.reason()"}]
    error = await refusal(client.patch(VALIDATING, "policy.example.org", {"spec": {"validations": rules}}))
    assert "undeclared reference to 'authorizer'" in error.message  # messages are made without it
    del rules[0]["messageExpression"]
    await client.patch(VALIDATING, "policy.example.org", {"spec": {"validations": rules}})
    server.authorizer = Asked()  # type: ignore[assignment]
    await refusal(client.create(DEPLOYMENTS, deployment("e")))
    assert ("system:serviceaccount:default:bad", "breakglass", "apps", "deployments", "", "", "", "") in asked
    rules[0]["expression"] = rules[0]["expression"].replace("'bad'", "'good'")
    await client.patch(VALIDATING, "policy.example.org", {"spec": {"validations": rules}})
    await client.create(DEPLOYMENTS, deployment("e"))


@pytest.mark.parametrize(
    ("spec", "said"),
    [
        ({"validations": [{"expression": "object.spec.replicas"}]}, "must evaluate to bool"),
        ({"validations": [{"expression": "objct == null"}]}, "undeclared reference to 'objct'"),
        ({"validations": []}, "validations or auditAnnotations must contain at least one item"),
        ({"validations": [{"expression": "true", "messageExpression": "1"}]}, "must evaluate to string"),
        ({"validations": [{"expression": "params == null"}]}, "undeclared reference to 'params'"),
        ({"validations": [{"expression": "variables.x"}]}, "undefined field 'x'"),
        (
            {"validations": [{"expression": "true"}], "variables": [{"name": "a b", "expression": "1"}]},
            "CEL identifier",
        ),
        ({"validations": [{"expression": "true", "reason": "NotFound"}]}, "Unsupported value"),
        ({"validations": [{"expression": "true"}], "matchConstraints": {}}, "matchConstraints.resourceRules"),
    ],
)
async def test_wrong_policies_are_refused(spec: dict[str, Any], said: str) -> None:
    _, client = await serve()
    error = await refusal(client.create(VALIDATING, policy(**spec)))
    assert error.code == 422
    assert said in error.message


async def test_a_policy_that_costs_too_much_is_stopped() -> None:
    _, client = await serve()
    many = "[0,1,2,3,4,5,6,7,8,9]"
    text = "true"
    for depth in range(8):
        text = f"{many}.all(x{depth}, {text})"
    await client.create(VALIDATING, policy(validations=[{"expression": text}]))
    await client.create(VALIDATING_BINDINGS, binding())
    error = await refusal(client.create(DEPLOYMENTS, deployment()))
    assert "actual cost limit exceeded" in error.message


async def test_the_status_tells_what_the_schemas_say_about_expressions() -> None:
    _, client = await serve()
    rules = [
        {"expression": "object.replicas > 1"},
        {"expression": "object.spec.replicas > 1 && object.spec.template.spec.containers.all(c, c.image != '')"},
        {"expression": "object.spec.replicas > '1'", "messageExpression": "'x' + object.metadata.name"},
    ]
    await client.create(VALIDATING, policy(validations=rules))
    await asyncio.sleep(1)
    made = await client.get(VALIDATING, "policy.example.org")
    assert made["status"]["observedGeneration"] == made["metadata"]["generation"] == 1
    assert made["status"]["typeChecking"]["expressionWarnings"] == [
        {
            "fieldRef": "spec.validations[0].expression",
            "warning": "apps/v1, Kind=Deployment: ERROR: <input>:1:7: undefined field 'replicas'\n"
            " | object.replicas > 1\n | ......^",
        },
        {
            "fieldRef": "spec.validations[2].expression",
            "warning": "apps/v1, Kind=Deployment: ERROR: <input>:1:22: found no matching overload for '_>_' applied to "
            "'(int, string)'\n | object.spec.replicas > '1'\n | .....................^",
        },
    ]
    await client.patch(VALIDATING, "policy.example.org", {"spec": {"validations": rules[1:2]}})
    await asyncio.sleep(1)
    made = await client.get(VALIDATING, "policy.example.org")
    assert made["status"] == {"observedGeneration": 2, "typeChecking": {}}


# ------------------------------------------------------------------------------------------------------------ mutation


def mutation(kind: str, text: str) -> dict[str, Any]:
    return {"patchType": kind, ("jsonPatch" if kind == "JSONPatch" else "applyConfiguration"): {"expression": text}}


async def mutating(client: Client, *mutations: dict[str, Any], **spec: Any) -> None:
    spec.setdefault("reinvocationPolicy", "Never")
    await client.create(MUTATING, policy(MUTATING, mutations=list(mutations), **spec))
    await client.create(MUTATING_BINDINGS, binding(MUTATING_BINDINGS))


async def test_an_apply_configuration_is_merged() -> None:
    _, client = await serve()
    text = """Object{
        metadata: Object.metadata{annotations: {"mutated-by": "policy", "was": object.metadata.name}},
        spec: Object.spec{template: Object.spec.template{spec: Object.spec.template.spec{
            initContainers: [Object.spec.template.spec.initContainers{name: "mesh", image: "mesh:1"}],
            containers: object.spec.template.spec.containers.map(c,
                Object.spec.template.spec.containers{name: c.name, imagePullPolicy: "Never"})
        }}}
    }"""
    await mutating(client, mutation("ApplyConfiguration", text))
    made = await client.create(DEPLOYMENTS, deployment(annotations={"own": "x"}))
    assert made["metadata"]["annotations"] == {"own": "x", "mutated-by": "policy", "was": "d"}
    spec = made["spec"]["template"]["spec"]
    assert spec["initContainers"][0]["name"] == "mesh"
    assert spec["initContainers"][0]["terminationMessagePath"] == "/dev/termination-log"  # defaults follow
    assert (spec["containers"][0]["image"], spec["containers"][0]["imagePullPolicy"]) == ("i", "Never")


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ('Object{spec: Object.metadata{name: "x"}}', 'unexpected type name "Object.metadata", expected "Object.spec"'),
        ('Object{spec: Object.spec{nothing: "x"}}', "field not declared in schema"),
        ('Object{spec: Object.spec{replicas: "x"}}', ".spec.replicas: expected numeric (int or float), got string"),
        (
            "Object{spec: Object.spec{template: Object.spec.template{spec: Object.spec.template.spec{containers: "
            '[Object.spec.template.spec.containers{name: "c", args: ["a"]}]}}}}',
            "may not mutate atomic arrays, maps or structs: .spec.template.spec.containers[0].args",
        ),
    ],
)
async def test_apply_configurations_that_do_not_fit(text: str, said: str) -> None:
    _, client = await serve()
    await mutating(client, mutation("ApplyConfiguration", text))
    error = await refusal(client.create(DEPLOYMENTS, deployment()))
    assert error.message.startswith(
        "policy 'policy.example.org' with binding 'binding.example.org' denied request: "
    ), error.message
    assert said in error.message
    await client.patch(MUTATING, "policy.example.org", {"spec": {"failurePolicy": "Ignore"}})
    await client.create(DEPLOYMENTS, deployment())


async def test_json_patches_conditions_and_variables() -> None:
    _, client = await serve()
    text = """[
        JSONPatch{op: "test", path: "/spec/replicas", value: 1},
        JSONPatch{op: "replace", path: "/spec/replicas", value: variables.wanted},
        JSONPatch{op: "add", path: "/metadata/labels", value: {}},
        JSONPatch{op: "add", path: "/metadata/labels/" + jsonpatch.escapeKey("example.org/x"), value: "y"}
    ]"""
    await mutating(
        client,
        mutation("JSONPatch", text),
        variables=[{"name": "wanted", "expression": "object.spec.replicas + 2"}],
        matchConditions=[{"name": "small", "expression": "object.spec.replicas < 2"}],
    )
    made = await client.create(DEPLOYMENTS, deployment())
    assert made["spec"]["replicas"] == 3
    assert made["metadata"]["labels"] == {"example.org/x": "y"}
    made = await client.create(DEPLOYMENTS, deployment("e", replicas=2))
    assert made["spec"]["replicas"] == 2
    made = await client.create(DEPLOYMENTS, deployment("f", replicas=0))  # the test fails: nothing is patched
    assert made["spec"]["replicas"] == 0
    assert "labels" not in made["metadata"]


async def test_the_scale_of_a_workload_is_judged_as_a_scale() -> None:
    server, client = await serve()
    await client.create(DEPLOYMENTS, deployment())
    rule = {"apiGroups": ["apps"], "apiVersions": ["v1"], "operations": ["UPDATE"], "resources": ["deployments/scale"]}
    rules = [{"expression": "object.spec.replicas <= oldObject.spec.replicas + 2", "message": "too fast"}]
    await client.create(VALIDATING, policy(matchConstraints={"resourceRules": [rule]}, validations=rules))
    await client.create(VALIDATING_BINDINGS, binding())

    async def scale(replicas: int) -> int:
        path = "/apis/apps/v1/namespaces/default/deployments/d/scale"
        headers = {"content-type": "application/merge-patch+json"}
        body = orjson.dumps({"spec": {"replicas": replicas}})
        return (await server.handle(Request("PATCH", path, headers=headers, body=body, user=PLATFORM))).status

    assert await scale(9) == 422
    assert await scale(3) == 200
    assert (await client.get(DEPLOYMENTS, "d", "default"))["spec"]["replicas"] == 3


async def test_reinvocation_of_policies() -> None:
    _, client = await serve()

    def label(name: str) -> dict[str, Any]:
        count = f"(object.metadata.?annotations['{name}'].orValue('') + 'x')"
        return mutation(
            "ApplyConfiguration", f"Object{{metadata: Object.metadata{{annotations: {{'{name}': {count}}}}}}}"
        )

    for name, again in (("a", "IfNeeded"), ("b", "Never")):
        spec = {"mutations": [label(name)], "reinvocationPolicy": again}
        await client.create(MUTATING, policy(MUTATING, f"{name}.example.org", **spec))
        bound = binding(MUTATING_BINDINGS, f"{name}.example.org", policyName=f"{name}.example.org")
        await client.create(MUTATING_BINDINGS, bound)
    made = await client.create(DEPLOYMENTS, deployment())
    assert made["metadata"]["annotations"] == {"a": "xx", "b": "x"}


async def test_mutations_must_make_what_their_kind_says() -> None:
    _, client = await serve()
    for kind, text in (("ApplyConfiguration", "Object.spec{}"), ("JSONPatch", "[1]"), ("JSONPatch", "Object{}")):
        error = await refusal(
            client.create(MUTATING, policy(MUTATING, mutations=[mutation(kind, text)], reinvocationPolicy="Never"))
        )
        assert "must evaluate to" in error.message


async def test_the_queue_of_real_clusters_works_on_this_server() -> None:
    """The policies that Glebe generates for other Kubernetes clusters, on its own API server."""
    server = ApiServer(MemoryStore(), Env.seeded(1), TypeRegistry())
    await server.start()
    client = Client(InProcessTransport(server.handle))
    plural = "localqueues"
    names = {"plural": plural, "singular": "localqueue", "kind": "LocalQueue", "listKind": "LocalQueueList"}
    schema = {"openAPIV3Schema": {"type": "object", "x-kubernetes-preserve-unknown-fields": True}}
    version = {"name": "v1beta2", "served": True, "storage": True, "schema": schema}
    await client.create(
        CUSTOM_RESOURCE_DEFINITIONS,
        {
            "metadata": {
                "name": f"{plural}.kueue.x-k8s.io",
                "annotations": {"api-approved.kubernetes.io": "https://example.org"},
            },
            "spec": {"group": "kueue.x-k8s.io", "scope": "Namespaced", "names": names, "versions": [version]},
        },
    )
    for obj in queue_policy.objects():
        kinds = {r.kind: r for r in (VALIDATING, VALIDATING_BINDINGS, MUTATING, MUTATING_BINDINGS)}
        if obj["kind"] in kinds:
            await client.create(kinds[obj["kind"]], obj)
    template = {"spec": {"restartPolicy": "Never", "containers": [{"name": "c", "image": "i"}]}}
    job: dict[str, Any] = {
        "metadata": {"name": "j", "namespace": "default", "labels": {"kueue.x-k8s.io/queue-name": "team"}},
        "spec": {"template": template},
    }
    made = await client.create(JOBS, job)
    assert made["spec"]["suspend"] is True
    pod = made["spec"]["template"]
    assert pod["metadata"]["labels"]["kueue.x-k8s.io/local-queue-name"] == "team"
    assert pod["metadata"]["annotations"]["glebe.dev/submitted-by"] == PLATFORM.name
    assert pod["spec"]["schedulingGates"] == [{"name": "kueue.x-k8s.io/topology"}]
    job["metadata"] = {"name": "wrong", "namespace": "default", "labels": {
        "kueue.x-k8s.io/queue-name": "team", "kueue.x-k8s.io/max-exec-time-seconds": "soon"}}  # fmt: skip
    error = await refusal(client.create(JOBS, job))
    assert "must be whole seconds above zero" in error.message
    job["metadata"] = {"name": "free", "namespace": "default"}
    assert not (await client.create(JOBS, job))["spec"].get("suspend")
