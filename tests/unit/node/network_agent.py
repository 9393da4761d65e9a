"""An agent whose pods have network namespaces, to be killed: ``network_agent.py URL DATA_DIR WINDOW POD_CIDR``."""

from __future__ import annotations

import asyncio
import sys
from pathlib import Path

from glebe.kube.client import Client
from glebe.kube.clock import Env
from glebe.kube.http import HttpTransport
from glebe.node.network.options import NetworkOptions
from glebe.node.process.node import ProcessNode
from glebe.node.spec import NodeSpec, standard_labels

SPEC = NodeSpec("local", {"cpu": "2", "memory": "4Gi", "pods": "110"}, standard_labels("local", "process"))


async def main(url: str, directory: str, window: str, pod_cidr: str) -> None:
    network = NetworkOptions("namespace", pod_cidr, float(window))
    client = Client(HttpTransport(url))
    await ProcessNode(client, Env.system(), SPEC, Path(directory), window=float(window), network=network).run()


if __name__ == "__main__":
    asyncio.run(main(*sys.argv[1:]))
