"""From a container's specification to what its supervisor is to run (``run.json``)."""

from __future__ import annotations

import os
import re
from collections.abc import Awaitable, Callable, Sequence
from pathlib import Path
from typing import Any

from glebe.kube.objects import Object
from glebe.node.values import environment
from glebe.node.values.environment import ConfigError, Source
from glebe.node.volumes import materialise as volumes
from glebe.node.volumes.materialise import PathMap

#: What a container inherits of the platform's environment; everything else (credentials!) stays behind.
INHERITED = ("PATH", "HOME", "USER", "LOGNAME", "LANG", "LC_ALL", "TZ")

Resolve = Callable[[str, str], Awaitable[str]]  # (hostname, subdomain) -> address; waits until there is one


async def prepare(
    pod: Object,
    container: dict[str, Any],
    *,
    source: Source,
    pod_dir: Path,
    address: str,
    gpus: Sequence[int],
    resolve: Resolve,
) -> dict[str, Any]:
    """argv, env and cwd of the container.

    :raises ConfigError: it cannot be created as it is written.
    """
    view = {**pod, "status": {**(pod.get("status") or {}), "podIP": address, "hostIP": "127.0.0.1"}}
    paths = PathMap(container, volumes.materialise(view, pod_dir / "volumes", source))
    base = {name: os.environ[name] for name in INHERITED if name in os.environ}
    base["HOSTNAME"] = pod["spec"].get("hostname") or pod["metadata"]["name"]
    base["POD_IP"] = base["GLEBE_POD_IP"] = address
    base["CUDA_VISIBLE_DEVICES"] = ",".join(map(str, gpus)) if _wants_gpu(container) else ""
    base.update(paths.variables)
    resolved = await _resolve_hosts(pod, container, resolve)
    env = environment.build(view, resolved, base, source)
    for name in [item["name"] for item in container.get("env") or ()]:
        if name in env:
            env[name] = paths.apply(env[name])
    command = container.get("command") or []
    if not command:
        raise ConfigError(
            f'container "{container["name"]}" names no command: a process node runs programs of this machine and does '
            "not know the image's entry point; set command"
        )
    argv = [paths.apply(environment.expand(word, env)) for word in [*command, *(container.get("args") or [])]]
    cwd = container.get("workingDir")
    if cwd:
        cwd = paths.apply(cwd)
    else:
        work = pod_dir / container["name"] / "work"
        work.mkdir(parents=True, exist_ok=True)
        paths.link(work)
        cwd = str(work)
    return {"argv": argv, "env": env, "cwd": cwd}


def _wants_gpu(container: dict[str, Any]) -> bool:
    resources = container.get("resources") or {}
    return any("nvidia.com/gpu" in (resources.get(kind) or {}) for kind in ("limits", "requests"))


async def _resolve_hosts(pod: Object, container: dict[str, Any], resolve: Resolve) -> dict[str, Any]:
    """The container with env values that are exactly the DNS name of a pod of its headless service replaced.

    There is no name server without privileges; ``MASTER_ADDR=NAME-0.NAME`` must work all the same.
    """
    subdomain = pod["spec"].get("subdomain")
    if not subdomain or not container.get("env"):
        return container
    namespace = re.escape(pod["metadata"]["namespace"])
    name = re.compile(rf"([a-z0-9-]+)\.{re.escape(subdomain)}(\.{namespace}(\.svc(\.cluster\.local)?)?)?\.?")
    env = []
    for item in container["env"]:
        match = name.fullmatch(item.get("value") or "")
        env.append({**item, "value": await resolve(match.group(1), subdomain)} if match else item)
    return {**container, "env": env}
