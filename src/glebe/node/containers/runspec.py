"""From a container's specification to what its supervisor is told (``run.json``)."""

from __future__ import annotations

import os
import signal
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import orjson

from glebe.node.containers import bundle, capabilities, cgroups, mountplan
from glebe.node.containers.abilities import Abilities
from glebe.node.containers.capabilities import UnknownCapability
from glebe.node.containers.mountplan import CannotMount
from glebe.node.containers.supervise import main as supervise
from glebe.node.contracts import ContainerSpec, CreateError, Identity
from glebe.node.values.environment import ConfigError


@dataclass(frozen=True, slots=True)
class Settings:
    """What is the same for all containers of a node.

    ``key`` tells this node's cgroups from another's; ``hidden`` are directories that no container sees into.
    """

    agent_file: Path
    window: float
    key: str = "node"
    log_size: int = 10 * 1024 * 1024
    log_files: int = 5
    hidden: tuple[str, ...] = ()


def common(spec: ContainerSpec, run: Path, settings: Settings) -> dict[str, Any]:
    """What every supervisor needs, however the container is made.

    :raises ConfigError: the stop signal has no meaning.
    """
    return {
        "argv": list(spec.argv),
        "env": dict(spec.env),
        "cwd": spec.cwd,
        "log": str(run / "log"),
        "logSize": settings.log_size,
        "logFiles": settings.log_files,
        "agent": str(settings.agent_file),
        "grace": spec.grace,
        "window": settings.window,
        "stopSignal": stop_signal(spec.stop_signal),
        "stdin": spec.stdin,
        "stdinOnce": spec.stdin_once,
        "tty": spec.tty,
    }


def limits(spec: ContainerSpec, run: Path, settings: Settings, abilities: Abilities) -> dict[str, Any]:
    """The container's cgroups and what is watched in their place."""
    name = cgroups.group_name(settings.key, run)
    group = cgroups.plan(abilities.groups, name, spec.limits)
    watched = None if "memory" in abilities.groups.controllers else spec.limits.memory
    return {"cgroup": group, "memory": watched}


def native(spec: ContainerSpec, run: Path, settings: Settings, abilities: Abilities) -> dict[str, Any]:
    """A container on the machine's own file system.

    :raises ConfigError: it cannot be made as it is written.
    """
    own_pids = abilities.pids and abilities.mounts and not spec.host_pids
    result = {
        **common(spec, run, settings),
        **limits(spec, run, settings, abilities),
        "identity": _identity(spec.identity, abilities),
        "namespaces": {
            "user": abilities.user,
            "mount": abilities.mounts,
            "pid": own_pids,
            "hostname": spec.hostname if abilities.hostname else "",
            "network": spec.network if abilities.networks else "",
        },
        "mounts": [],
    }
    if abilities.mounts:
        try:
            plan = mountplan.plan(
                spec.mounts,
                run / "view",
                own_pids=own_pids,
                read_only_root=spec.read_only_root,
                hidden=settings.hidden,
                keep=[spec.cwd],
            )
        except CannotMount as error:
            raise ConfigError(str(error)) from error
        result["mounts"] = plan.operations
    return result


def from_image(spec: ContainerSpec, run: Path, settings: Settings, abilities: Abilities) -> dict[str, Any]:
    """A container with an image's root, by the OCI runtime ``spec.handler``; writes its bundle.

    :raises CreateError: it cannot be made as it is written.
    """
    paths = {name: str(run / name) for name in ("upper", "work", "merged", "bundle", "oci")}
    if any(sign in str(run) + spec.rootfs for sign in ",:\\"):
        raise CreateError(f'an overlay cannot have ",", ":" or "\\" in its paths: {run}')
    told = {**common(spec, run, settings), **limits(spec, run, settings, abilities)}
    group = told["cgroup"]
    options = ["--root", paths["oci"]]
    cgroup = ""
    if spec.handler == "crun":
        options.append("--cgroup-manager=disabled")  # the supervisor has put it into the container's groups
    else:
        cgroup = f"/{cgroups.PARENT}/{cgroups.group_name(settings.key, run)}"
        group = {**group, "procs": []}
    seen = cgroups.seen(abilities.groups, cgroups.group_name(settings.key, run))
    document = bundle.config(spec, Path(paths["merged"]), {supervise.MARK: str(run)}, cgroup, seen)
    os.makedirs(paths["bundle"], exist_ok=True)
    Path(paths["bundle"], "config.json").write_bytes(orjson.dumps(document))
    overlay = {"lower": spec.rootfs, "upper": paths["upper"], "work": paths["work"], "merged": paths["merged"]}
    made = {
        "runtime": abilities.runtimes[spec.handler],
        "options": options,
        "id": f"glebe-{cgroups.group_name(settings.key, run)}",
        "bundle": paths["bundle"],
        "overlay": overlay,
    }
    return {**told, "cgroup": group, "oci": made}


def _identity(identity: Identity, abilities: Abilities) -> dict[str, Any]:
    root = os.geteuid() == 0 and not abilities.user
    if not root:
        for wanted, own, word in ((identity.user, os.geteuid(), "user"), (identity.group, os.getegid(), "group")):
            if wanted is not None and wanted != own:
                raise ConfigError(f"cannot run as {word} {wanted}: the node agent is not root but {word} {own}")
    try:
        kept = [capabilities.NUMBERS[name] for name in capabilities.of(identity)]
    except UnknownCapability as error:
        raise ConfigError(str(error)) from error
    told = identity.user is not None or identity.groups
    return {
        "user": identity.user,
        "group": identity.group if identity.group is not None or identity.user is None or not root else 0,
        "groups": list(identity.groups) if root and told else None,
        "noNewPrivileges": identity.no_new_privileges,
        "privileged": identity.privileged,
        "capabilities": kept if root and not identity.privileged else None,
    }


def stop_signal(name: str) -> int:
    """The number of ``SIGUSR1``, ``USR1``, ``10`` or ``SIGRTMIN+3``; SIGTERM for none.

    :raises ConfigError: there is no such signal.
    """
    if not name:
        return signal.SIGTERM
    text = name.upper()
    if text.isdigit() and 0 < int(text) <= signal.SIGRTMAX:
        return int(text)
    text = text if text.startswith("SIG") else f"SIG{text}"
    base, sign, offset = text.replace("-", "+-").partition("+")
    try:
        return int(signal.Signals[base]) + (int(offset) if sign else 0)
    except (KeyError, ValueError):
        raise ConfigError(f'unknown stop signal "{name}"') from None
