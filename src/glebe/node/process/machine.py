"""What the runners of one node share."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from glebe.kube.client import Client
from glebe.kube.clock import Env
from glebe.kube.events import EventRecorder
from glebe.kube.objects import Object
from glebe.node.containers.containers import Containers
from glebe.node.devices.devices import Devices
from glebe.node.network.network import Network
from glebe.node.process.launch import Resolve
from glebe.node.volumes.volumes import Volumes


@dataclass(frozen=True, slots=True)
class Machine:
    """One machine as a node: whom to talk to, and the rooms that provide what pods need."""

    client: Client
    env: Env
    events: EventRecorder
    containers: Containers
    network: Network
    volumes: Volumes
    devices: Devices
    resolve: Callable[[Object], Resolve]  # waits for the addresses of a pod's fellows

    @property
    def host_ip(self) -> str:
        """The machine's address, as pods can reach it."""
        return self.network.host_ip


Record = dict[str, Any]  # pod.json: namespace, name, network, devices
