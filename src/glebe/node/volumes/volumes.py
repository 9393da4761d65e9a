"""The volumes of a machine's pods: made before containers start, kept current while they run, removed after them."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from glebe.kube.client import Client
from glebe.kube.clock import Env
from glebe.kube.objects import Object
from glebe.node.contracts import Mount
from glebe.node.values import sources
from glebe.node.values.environment import Source
from glebe.node.volumes import materialise
from glebe.node.volumes.materialise import PathMap


class Volumes:
    """All volumes of one node. A pod's are below ``POD_DIR/volumes``."""

    def __init__(self, client: Client, env: Env) -> None:
        self._client = client
        self._env = env

    async def source(self, pod: Object) -> Source:
        """The ConfigMaps, Secrets and tokens that the pod names.

        :raises ApiError: one may not be read.
        """
        return await sources.fetch(self._client, pod)

    async def provide(self, pod: Object, pod_dir: Path, source: Source) -> dict[str, Path]:
        """Make the pod's volumes, or find them made; name -> directory (or file). To be called before each start.

        ``pod`` has the addresses in its status that its containers are to see.

        :raises ConfigError: a volume cannot be made as it is written (yet).
        :raises ApiError: what it is made from may not be read.
        """
        return materialise.materialise(pod, pod_dir / "volumes", source)

    def mounts(self, container: dict[str, Any], paths: Mapping[str, Path], env: Mapping[str, str]) -> tuple[Mount, ...]:
        """What is to appear where in the container; ``env`` is for ``subPathExpr``.

        :raises ConfigError: a mount names no volume, or leaves it.
        """
        return PathMap(container, paths).mounts

    async def keep(self, pod: Object | Callable[[], Object], pod_dir: Path) -> None:
        """Keep what was provided current (``pod()`` is the pod as it is now), until cancelled."""
        await asyncio.get_running_loop().create_future()

    async def withdraw(self, uid: str, pod_dir: Path) -> None:
        """Undo what removing the pod's directory would not undo. Nothing of the pod runs any more."""
