"""What a new platform holds before its first user comes: CRDs, namespaces, and queues over the whole fleet.

CRDs are kept up to date at every start. The default objects are made once: whoever changes or deletes them is not
overruled by the next start.
"""

from __future__ import annotations

import asyncio
import hashlib
from collections.abc import Collection, Sequence
from functools import lru_cache
from importlib import resources as files
from typing import Any

import orjson

from glebe.gpu import catalogue
from glebe.kube import resources as r
from glebe.kube.client import Client
from glebe.kube.errors import ApiError, is_already_exists, is_not_found
from glebe.kube.objects import Object, annotations_of, condition_is_true
from glebe.kube.quantity import from_int, to_int
from glebe.kube.resources import Resource
from glebe.node.spec import BLOCK_LABEL, GPU_RESOURCE, HOSTNAME_LABEL, KIND_LABEL, POOL_LABEL, RACK_LABEL, NodeSpec

SYSTEM_NAMESPACE = "glebe-system"
NAMESPACES = ("default", "kube-system", "kube-public", "kube-node-lease", SYSTEM_NAMESPACE)
MARKER = "default-objects"
HASH_ANNOTATION = "glebe.dev/content-hash"
PRODUCT_LABEL = "nvidia.com/gpu.product"
TOPOLOGY, HOSTS = "default", "hosts"
_LEVELS = {TOPOLOGY: (BLOCK_LABEL, RACK_LABEL, HOSTNAME_LABEL), HOSTS: (HOSTNAME_LABEL,)}
QUOTA_RESOURCES = (GPU_RESOURCE, "cpu", "memory")


@lru_cache(maxsize=1)
def custom_resource_definitions() -> tuple[Object, ...]:
    """All CRDs that come with Glebe, by name. Read only."""
    return tuple(orjson.loads((files.files("glebe.crds") / "all.json").read_bytes()))


async def install_crds(client: Client, only: Collection[str] = ()) -> None:
    """Bring every CRD, or those named, to this version's content; one that has it already is not touched."""
    for crd in custom_resource_definitions():
        name = crd["metadata"]["name"]
        if only and name not in only:
            continue
        wanted = {**crd, "metadata": {**crd["metadata"], "annotations": {HASH_ANNOTATION: _hash(crd)}}}
        try:
            live = await client.get(r.CUSTOM_RESOURCE_DEFINITIONS, name)
        except ApiError as error:
            if not is_not_found(error):
                raise
            await _ensure(client, r.CUSTOM_RESOURCE_DEFINITIONS, wanted)
            continue
        if annotations_of(live).get(HASH_ANNOTATION) != annotations_of(wanted)[HASH_ANNOTATION]:
            conversion = live["spec"].get("conversion") or {}
            if ((conversion.get("webhook") or {}).get("clientConfig") or {}).get("url"):  # a controller converts
                wanted = {**wanted, "spec": {k: v for k, v in wanted["spec"].items() if k != "conversion"}}
            await client.apply(r.CUSTOM_RESOURCE_DEFINITIONS, wanted, field_manager="glebe", force=True)


async def wait_established(client: Client, seconds: float = 30.0) -> None:
    """Wait until every kind is served: on some servers that is only some moments after its CRD was created.

    :raises TimeoutError: naming the kinds that are not.
    """
    names = {crd["metadata"]["name"] for crd in custom_resource_definitions()}
    missing = names
    for _ in range(int(seconds / 0.25)):
        found = (await client.list_all(r.CUSTOM_RESOURCE_DEFINITIONS)).items
        missing = names - {crd["metadata"]["name"] for crd in found if condition_is_true(crd, "Established")}
        if not missing:
            return
        await asyncio.sleep(0.25)
    raise TimeoutError(f"not established after {seconds:.0f} s: {', '.join(sorted(missing))}")


def _hash(obj: Object) -> str:
    return hashlib.sha256(orjson.dumps(obj, option=orjson.OPT_SORT_KEYS)).hexdigest()[:32]


async def ensure_namespaces(client: Client) -> None:
    for name in NAMESPACES:
        await _ensure(client, r.NAMESPACES, {"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": name}})


async def ensure_roles(client: Client) -> None:
    """Kueue's roles for people, once: where one of them is, all are left as they are."""
    from glebe.queueing.gatekeeping.roles import CLUSTER_ROLES, MARK, objects

    if (await client.list(CLUSTER_ROLES, label_selector=MARK)).items:
        return
    for role in objects():
        await _ensure(client, CLUSTER_ROLES, role)


async def remove_departed_nodes(client: Client, nodes: Sequence[NodeSpec]) -> list[str]:
    """Delete the Nodes of an earlier fleet file that this one has no more; returns their names.

    Nodes that no fleet file made (they lack the label) are nobody's business here.
    """
    known = {node.name for node in nodes}
    found = (await client.list_all(r.NODES, label_selector=KIND_LABEL)).items
    departed = [node["metadata"]["name"] for node in found if node["metadata"]["name"] not in known]
    for name in departed:
        await client.delete(r.NODES, name)
    return departed


async def create_defaults(client: Client, nodes: Sequence[NodeSpec]) -> bool:
    """Topology, flavors, queues and classes for a fleet, unless that was done before; says whether it did it now."""
    marker: Object = {
        "apiVersion": "v1",
        "kind": "ConfigMap",
        "metadata": {"name": MARKER, "namespace": SYSTEM_NAMESPACE},
        "data": {"note": "the default queues were made once; delete this to have them made again"},
    }
    try:
        await client.get(r.CONFIGMAPS, MARKER, SYSTEM_NAMESPACE)
        return False
    except ApiError as error:
        if not is_not_found(error):
            raise
    for resource, obj in default_objects(nodes):
        await _ensure(client, resource, obj)
    await _ensure(client, r.CONFIGMAPS, marker)
    return True


async def _ensure(client: Client, resource: Resource, obj: Object) -> None:
    try:
        await client.create(resource, obj)
    except ApiError as error:
        if not is_already_exists(error):
            raise


def default_objects(nodes: Sequence[NodeSpec]) -> list[tuple[Resource, Object]]:
    """The objects that make ``glebe run`` work at once, in the order of their references."""
    simulated = [node for node in nodes if node.labels.get(KIND_LABEL) != "process"]
    local = [node for node in nodes if node.labels.get(KIND_LABEL) == "process"]
    flavors = flavors_of(simulated)
    topologies = {name: _topology_of(members) for name, (_, members) in flavors.items()}
    out: list[tuple[Resource, Object]] = [(r.TOPOLOGIES, _topology(TOPOLOGY))]
    out += [(r.TOPOLOGIES, _topology(HOSTS))] if HOSTS in topologies.values() else []
    out += [(r.RESOURCE_FLAVORS, _flavor(name, labels, topologies[name])) for name, (labels, _) in flavors.items()]
    if flavors:
        quotas = {name: members for name, (_, members) in flavors.items()}
        out += _queues("default", quotas)
    if local:
        out.append((r.RESOURCE_FLAVORS, _flavor("local", {KIND_LABEL: "process"}, None)))
        out += _queues("local", {"local": local})
        if not flavors:
            out.append((r.LOCAL_QUEUES, _local_queue("default", "local")))
    return out + [(r.WORKLOAD_CLASSES, obj) for obj in _classes()]


def flavors_of(nodes: Sequence[NodeSpec]) -> dict[str, tuple[dict[str, str], list[NodeSpec]]]:
    """Flavor name -> (node labels that tell it, its nodes): one per GPU product, and one per pool without GPUs."""
    out: dict[str, tuple[dict[str, str], list[NodeSpec]]] = {}
    for node in nodes:
        product = node.labels.get(PRODUCT_LABEL, "")
        pool = node.labels.get(POOL_LABEL, "")
        label, value = (PRODUCT_LABEL, product) if product else (POOL_LABEL, pool)
        board = catalogue.by_product(product)
        name = board.model if board else pool
        out.setdefault(name, ({label: value}, []))[1].append(node)
    return out


def _topology(name: str) -> Object:
    return {
        "apiVersion": r.TOPOLOGIES.api_version,
        "kind": "Topology",
        "metadata": {"name": name},
        "spec": {"levels": [{"nodeLabel": level} for level in _LEVELS[name]]},
    }


def _topology_of(nodes: Sequence[NodeSpec]) -> str:
    """The topology whose levels all of the nodes have."""
    return TOPOLOGY if all(level in node.labels for node in nodes for level in _LEVELS[TOPOLOGY]) else HOSTS


def _flavor(name: str, labels: dict[str, str], topology: str | None) -> Object:
    spec: dict[str, Any] = {"nodeLabels": labels}
    if topology:
        spec["topologyName"] = topology
    return {
        "apiVersion": r.RESOURCE_FLAVORS.api_version,
        "kind": "ResourceFlavor",
        "metadata": {"name": name},
        "spec": spec,
    }


def _queues(name: str, flavors: dict[str, list[NodeSpec]]) -> list[tuple[Resource, Object]]:
    """A ClusterQueue that governs all that ``flavors`` have, and a LocalQueue of the same name in default."""
    cluster_queue = {
        "apiVersion": r.CLUSTER_QUEUES.api_version,
        "kind": "ClusterQueue",
        "metadata": {"name": name},
        "spec": {
            "namespaceSelector": {},
            "resourceGroups": [
                {
                    "coveredResources": list(QUOTA_RESOURCES),
                    "flavors": [
                        {
                            "name": flavor,
                            "resources": [
                                {"name": resource, "nominalQuota": total(nodes, resource)}
                                for resource in QUOTA_RESOURCES
                            ],
                        }
                        for flavor, nodes in flavors.items()
                    ],
                }
            ],
        },
    }
    return [(r.CLUSTER_QUEUES, cluster_queue), (r.LOCAL_QUEUES, _local_queue(name, name))]


def total(nodes: Sequence[NodeSpec], resource: str) -> str:
    """What all ``nodes`` have of ``resource``, as a quantity."""
    return from_int(sum(to_int(node.capacity.get(resource, "0"), resource) for node in nodes), resource)


def _local_queue(name: str, cluster_queue: str) -> Object:
    return {
        "apiVersion": r.LOCAL_QUEUES.api_version,
        "kind": "LocalQueue",
        "metadata": {"name": name, "namespace": "default"},
        "spec": {"clusterQueue": cluster_queue},
    }


def _classes() -> list[Object]:
    rows = (
        ("interactive", 100, 3600, 4 * 3600, "Short work that somebody waits for: notebooks, debugging."),
        ("training", 50, 8 * 3600, 24 * 3600, "Training runs of hours to days."),
        ("batch", 0, 2 * 3600, 8 * 3600, "Work that can wait."),
    )
    return [
        {
            "apiVersion": r.WORKLOAD_CLASSES.api_version,
            "kind": "WorkloadClass",
            "metadata": {"name": name},
            "spec": {
                "description": description,
                "priority": priority,
                "expectedRunTime": {"p50Seconds": p50, "p90Seconds": p90},
            },
        }
        for name, priority, p50, p90, description in rows
    ]
