"""Making volumes for claims: whose turn it is, and what a simulated node's volume looks like. Pure.

Claims of provisioner ``glebe.dev/local-path`` get a directory of the node that their first pod is to run on. A process
node's own agent makes it (it sees the claim's annotations); behind a simulated node's volume there is nothing, so that
the object is made here. Claims of any other provisioner are left to it.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Final

from glebe.kube.events import NORMAL, WARNING
from glebe.kube.objects import Object, annotations_of, labels_of
from glebe.kube.storage import (
    BETA_PROVISIONER,
    LOCAL_PATH,
    PROVISIONER,
    SELECTED_NODE,
    SIMULATED,
    local_volume,
    node_of_local,
    volume_name,
)
from glebe.workloads.volumes.changes import annotated
from glebe.workloads.volumes.verdicts import Event

KIND_LABEL: Final = "glebe.dev/node-kind"


@dataclass(frozen=True, slots=True)
class Order:
    """``claim``: with annotations changed; ``volume``: to be created."""

    claim: Object | None = None
    volume: Object | None = None
    event: Event | None = None


def order(claim: Object, storage_class: Object, node: Callable[[str], Object | None]) -> Order:
    """What is to be written so that the claim gets a volume of ``storage_class``."""
    if storage_class.get("provisioner") != LOCAL_PATH:
        return _elsewhere(claim, storage_class)
    name = annotations_of(claim).get(SELECTED_NODE, "")
    if not name:
        text = f"class needs volumeBindingMode WaitForFirstConsumer: provisioner {LOCAL_PATH} must know the node"
        return Order(event=failed(storage_class, text))
    found = node(name)
    if found is None:
        return Order(claim=_elsewhere_again(claim), event=failed(storage_class, f'node "{name}" not found'))
    kind = labels_of(found).get(KIND_LABEL, "")
    if kind == "simulated":
        return _simulated(claim, storage_class, found)
    if kind == "process":
        return Order(claim=_addressed(claim, LOCAL_PATH))
    text = f'node "{name}" is not one of Glebe\'s, and has no provisioner {LOCAL_PATH}'
    return Order(claim=_elsewhere_again(claim), event=failed(storage_class, text))


def _simulated(claim: Object, storage_class: Object, node: Object) -> Order:
    volume = annotated(
        local_volume(claim, storage_class, node, f"/simulated/{volume_name(claim)}"), {SIMULATED: "true"}
    )
    text = f"Successfully provisioned volume {volume_name(claim)} using {LOCAL_PATH} (simulated: it holds nothing)"
    return Order(volume=volume, event=Event(NORMAL, "ProvisioningSucceeded", text))


def _elsewhere(claim: Object, storage_class: Object) -> Order:
    name = str(storage_class.get("provisioner", ""))
    text = (
        f"Waiting for a volume to be created either by the external provisioner '{name}' or manually by the system "
        "administrator. If volume creation is delayed, please verify that the provisioner is running and correctly "
        "registered."
    )
    return Order(claim=_addressed(claim, name), event=Event(NORMAL, "ExternalProvisioning", text))


def _addressed(claim: Object, provisioner: str) -> Object | None:
    marks = {BETA_PROVISIONER: provisioner, PROVISIONER: provisioner}
    have = annotations_of(claim)
    return None if all(have.get(k) == v for k, v in marks.items()) else annotated(claim, marks)


def _elsewhere_again(claim: Object) -> Object:
    """The claim without the node, so that its pod's node is chosen anew."""
    rest = {k: v for k, v in annotations_of(claim).items() if k != SELECTED_NODE}
    return {**claim, "metadata": {**claim["metadata"], "annotations": rest}}


def failed(storage_class: Object, why: str) -> Event:
    """No volume could be made."""
    name = storage_class["metadata"]["name"]
    return Event(WARNING, "ProvisioningFailed", f'Failed to provision volume with StorageClass "{name}": {why}')


def host_of(volume: Object) -> str:
    """The host name of a volume that was made by this provisioner."""
    return node_of_local(volume)
