"""What a real kube-apiserver writes as protobuf decodes to what it writes as JSON."""

from __future__ import annotations

import asyncio
import os
import shutil
from pathlib import Path
from typing import Any

import orjson
import pytest
import yaml
from kube_peer import TOKEN, real_kubernetes

from glebe.apiserver.http import HttpServer
from glebe.apiserver.protobuf.decode import decode
from glebe.apiserver.server import ApiServer
from glebe.apiserver.store import MemoryStore
from glebe.apiserver.types.registry import ResourceInfo, TypeRegistry, builtins
from glebe.kube.client import Client
from glebe.kube.clock import Env
from glebe.kube.errors import ApiError
from glebe.kube.transport import PLATFORM, Request, User

pytestmark = [pytest.mark.cluster, pytest.mark.realtime]

PROTOBUF = "application/vnd.kubernetes.protobuf"
OBJECTS = list(yaml.safe_load_all((Path(__file__).parent / "protobuf_objects.yaml").read_text(encoding="utf-8")))


def comparable(obj: Any) -> Any:
    """An object without what a write in between would change, and what protobuf never has: types in a template."""
    obj["metadata"].pop("resourceVersion", None)
    if obj["kind"] == "StatefulSet":
        for claim in obj["spec"]["volumeClaimTemplates"]:
            claim.pop("apiVersion", None)
            claim.pop("kind", None)
    return obj


def path_of(info: ResourceInfo, namespace: str = "", name: str = "") -> str:
    """Of an object, or of a collection."""
    parts = ["/apis", info.group, info.version] if info.group else ["/api/v1"]
    if info.namespaced and namespace:
        parts += ["namespaces", namespace]
    return "/".join([*parts, info.plural, *([name] if name else [])])


async def create_all(client: Client) -> None:
    by_kind = {(i.api_version, i.kind): i for i in builtins()}
    refused = []
    for obj in OBJECTS:
        info = by_kind[obj["apiVersion"], obj["kind"]]
        try:
            await client.raw("POST", path_of(info, "default"), body=obj)
        except ApiError as error:
            refused.append(str(error))
    assert refused == []


async def compare_all(client: Client) -> dict[str, int]:
    """How many objects of each kind were compared."""
    seen: dict[str, int] = {}
    differing: dict[str, tuple[Any, Any]] = {}
    for info in builtins():
        if "list" not in info.verbs or info.optional:
            continue
        listed = orjson.loads((await client.raw("GET", path_of(info))).body)
        for item in listed["items"]:
            path = path_of(info, item["metadata"].get("namespace", ""), item["metadata"]["name"])
            binary = (await client.raw("GET", path, accept=PROTOBUF)).body
            plain = orjson.loads((await client.raw("GET", path)).body)
            decoded, unknown = decode(binary)
            assert unknown == [], path
            if comparable(decoded) != comparable(plain):
                differing[path] = (decoded, plain)
            seen[info.kind] = seen.get(info.kind, 0) + 1
    assert differing == {}
    return seen


async def test_protobuf_and_json_of_a_real_server_agree(tmp_path: Path) -> None:
    with real_kubernetes(tmp_path) as peer:
        client = peer.client()
        try:
            await peer.ready(client)
            await create_all(client)
            seen = await compare_all(client)
        finally:
            await client.close()
    assert set(seen) >= {obj["kind"] for obj in OBJECTS}


#: What kubectl's commands make (it sends all of these as protobuf).
COMMANDS = """\
create namespace lab
create configmap c --from-literal=a=b --from-literal=empty=
create secret generic s --from-literal=a=b
create secret docker-registry d --docker-username=u --docker-password=p
create deployment d --image=i --replicas=0 --port=80 -- run it
create job j --image=i -- a b
create cronjob cj --image=i --schedule=@daily -- a
create serviceaccount account
create role r --verb=get,list --resource=pods,deployments.apps --resource-name=x
create clusterrole cr --verb=get --non-resource-url=/metrics
create clusterrole agg --aggregation-rule=a=b
create rolebinding rb --role=r --serviceaccount=default:account --user=me --group=us
create clusterrolebinding crb --clusterrole=cr --user=me
create service clusterip ip --tcp=80:8080 --clusterip=None
create service clusterip plain --tcp=81
create service nodeport np --tcp=80:http
create service externalname en --external-name=example.com
create quota q --hard=pods=2 --scopes=BestEffort
create priorityclass pc --value=1000 --description=text --preemption-policy=Never
create poddisruptionbudget pdb --selector=a=b --min-available=50%
create ingress i --rule=a.example.com/x*=svc:80,tls=t --annotation=a=b
run p --image=i --labels=a=b --env=A=1 --restart=Never -- sleep 1
autoscale deployment d --min=1 --max=3 --cpu-percent=50
expose deployment d --name=exposed --port=80
label configmap c x=y
scale deployment d --replicas=2
create job from-cron --from=cronjob/cj
delete service exposed"""

KEPT = (
    "namespaces/lab configmaps secrets deployments jobs cronjobs serviceaccounts/account roles clusterroles/cr "
    "clusterroles/agg rolebindings clusterrolebindings/crb services quota priorityclasses/pc poddisruptionbudgets "
    "ingresses pods"
)
#: Made by the server, or by chance, after the body was understood.
VOLATILE = {
    *("uid", "resourceVersion", "creationTimestamp", "managedFields", "status", "clusterIP", "clusterIPs", "nodePort"),
    *("ipFamilies", "ipFamilyPolicy", "serviceAccount", "serviceAccountName", "tolerations"),
}


class Everybody:
    async def authenticate(self, request: Request, cluster: str) -> User | None:
        return PLATFORM


async def kubectl(url: str, home: Path, *arguments: str) -> str:
    process = await asyncio.create_subprocess_exec(
        "kubectl", f"--server={url}", f"--token={TOKEN}", "--insecure-skip-tls-verify", *arguments,
        stdout=asyncio.subprocess.PIPE, stderr=asyncio.subprocess.PIPE,
        env={**os.environ, "KUBECONFIG": os.devnull, "HOME": str(home)},
    )  # fmt: skip
    out, errors = await process.communicate()
    assert process.returncode == 0, f"{' '.join(arguments)}: {errors.decode()}"
    return out.decode()


def steady(value: Any) -> Any:
    """Without what differs from run to run."""
    if isinstance(value, dict):
        kept = {k: steady(v) for k, v in value.items() if k not in VOLATILE and not k.endswith("controller-uid")}
        return {k: v for k, v in kept.items() if v is not None}
    return [steady(v) for v in value] if isinstance(value, list) else value


def differences(here: Any, there: Any, path: str = "") -> list[str]:
    """One line for each place in which two objects are unlike."""
    if isinstance(here, dict) and isinstance(there, dict):
        keys = sorted({*here, *there})
        return [line for key in keys for line in differences(here.get(key), there.get(key), f"{path}/{key}")]
    if isinstance(here, list) and isinstance(there, list) and len(here) == len(there):
        return [
            line for i, pair in enumerate(zip(here, there, strict=True)) for line in differences(*pair, f"{path}/{i}")
        ]
    return [] if here == there else [f"{path}: {here!r} here, {there!r} there"]


async def made_by_kubectl(url: str, home: Path) -> dict[str, Any]:
    """What is stored after all commands: ``kind/name`` -> object."""
    for command in COMMANDS.splitlines():
        await kubectl(url, home, *command.split())
    found = {}
    for resource in KEPT.split():
        got = orjson.loads(await kubectl(url, home, "get", resource, "-o", "json"))
        for obj in got.get("items", [got]):
            if obj["metadata"]["name"] not in ("kubernetes", "kube-root-ca.crt"):
                found[f"{obj['kind']}/{obj['metadata']['name']}"] = steady(obj)
    return found


@pytest.mark.skipif(shutil.which("kubectl") is None, reason="kubectl is not on PATH")
async def test_kubectl_makes_the_same_objects_here_and_there(tmp_path: Path) -> None:
    server = ApiServer(MemoryStore(), Env.system(), TypeRegistry(), authenticator=Everybody())
    await server.start()
    front = HttpServer(server.handle)
    await front.start()
    try:
        here = await made_by_kubectl(front.url, tmp_path / "here")
    finally:
        await front.close()
        await server.close()
    with real_kubernetes(tmp_path) as peer:
        client = peer.client()
        try:
            await peer.ready(client)
            there = await made_by_kubectl(peer.config.server, tmp_path / "there")
        finally:
            await client.close()
    found = differences(here, there)
    assert not found, "\n".join(found)
