"""A node's agent as a program of its own, to be killed: ``python node_agent.py URL DATA_DIR``."""

from __future__ import annotations

import asyncio
import sys
from pathlib import Path

from glebe.kube.client import Client
from glebe.kube.clock import Env
from glebe.kube.http import HttpTransport
from glebe.node.process.node import ProcessNode
from glebe.node.spec import NodeSpec, standard_labels

SPEC = NodeSpec("local", {"cpu": "2", "memory": "4Gi", "pods": "110"}, standard_labels("local", "process"))


async def main(url: str, directory: str) -> None:
    await ProcessNode(Client(HttpTransport(url)), Env.system(), SPEC, Path(directory), window=20.0).run()


if __name__ == "__main__":
    asyncio.run(main(*sys.argv[1:]))
