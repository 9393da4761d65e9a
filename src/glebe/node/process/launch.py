"""From a container as it is written in a pod to what is needed to start it (:class:`ContainerSpec`)."""

from __future__ import annotations

import dataclasses
import os
import re
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from glebe.kube.objects import Object
from glebe.node import sysctls
from glebe.node.containers.images import users
from glebe.node.containers.images.store import Image
from glebe.node.containers.rundir import place_of
from glebe.node.contracts import ContainerSpec, Identity, Mount, PodNetwork
from glebe.node.devices.grants import Grant
from glebe.node.process import allowances
from glebe.node.values import environment
from glebe.node.values.environment import ConfigError, Source
from glebe.node.volumes.rewrite import PathMap, replace_paths

Resolve = Callable[[str, str], Awaitable[str]]  # (hostname, subdomain) -> address; waits until there is one

#: (container, volumes, environment) -> what is mounted where
MountsOf = Callable[[dict[str, Any], Mapping[str, Path], Mapping[str, str]], tuple[Mount, ...]]

_DEFAULT_GRACE = 30.0
#: What a process of the machine inherits of the platform's environment; the rest (credentials!) stays behind.
_INHERITED = ("PATH", "HOME", "USER", "LOGNAME", "LANG", "LC_ALL", "TZ")
_PATH = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"
TERMINATION_LOG = "termination-log"  # in the run's directory
TERMINATION_VARIABLE = "GLEBE_TERMINATION_LOG"


@dataclass(frozen=True, slots=True)
class Sandbox:
    """What a pod has before its first container: a place in the network, devices."""

    network: PodNetwork
    grant: Grant
    handler: str = ""  # the OCI runtime of its containers, "" for processes of the machine itself


async def container_spec(
    pod: Object,
    container: dict[str, Any],
    *,
    source: Source,
    volumes: dict[str, Path],
    pod_dir: Path,
    sandbox: Sandbox,
    host_ip: str,
    services: Mapping[str, str] | None = None,
    resolve: Resolve | None,
    mounts: MountsOf | None = None,
    image: Image | None = None,
) -> ContainerSpec:
    """Everything that starts one run of ``container``.

    :param mounts: says what is mounted where; ``None``: nothing can be, and paths are rewritten.
    :param services: the variables that tell of Services.
    :param resolve: finds addresses that are put in the place of names in ``env``; ``None``: programs look names up.
    :raises ConfigError: it cannot be created as it is written.
    """
    network = sandbox.network
    view = {**pod, "status": {**(pod.get("status") or {}), "podIP": network.address, "hostIP": host_ip}}
    hostname = pod["spec"].get("hostname") or pod["metadata"]["name"]
    base = {
        **(
            {name: os.environ[name] for name in _INHERITED if name in os.environ}
            if image is None
            else {"PATH": _PATH, **dict(image.config.env)}
        ),
        "HOSTNAME": hostname,
        **(services or {}),
        **network.env,
        **sandbox.grant.env(container),
    }
    resolved = await _resolve_hosts(pod, container, resolve) if resolve is not None else container
    # Paths of mounts may depend on the environment (subPathExpr), and the environment names paths.
    first = environment.build(view, resolved, base, source)
    mounted = mounts(container, volumes, first) if mounts is not None else ()
    paths = PathMap(container, volumes, first) if mounts is None else _at_their_places(container)
    env = environment.build(view, resolved, {**base, **paths.variables}, source)
    env.update(sandbox.grant.env(container))  # without isolation, a device named by the pod would be another's
    for name in [item["name"] for item in container.get("env") or ()]:
        if name in env:
            env[name] = paths.apply(env[name])
    argv = [paths.apply(environment.expand(word, env)) for word in _command(container, image)]
    return ContainerSpec(
        argv=argv,
        env=env,
        cwd=_directory(container, image, paths, pod_dir),
        hostname=hostname,
        mounts=mounted if image is None else (*mounted, *sandbox.grant.mounts(container)),
        devices=() if image is None else sandbox.grant.nodes(container),
        network=network.namespace,
        limits=allowances.limits_of(container),
        identity=_identity(pod, container, image),
        rootfs=str(image.root) if image is not None else "",
        handler=sandbox.handler,
        read_only_root=bool((container.get("securityContext") or {}).get("readOnlyRootFilesystem")),
        host_pids=bool(pod["spec"].get("hostPID")),
        sysctls=_sysctls(pod, image),
        stdin=bool(container.get("stdin")),
        stdin_once=bool(container.get("stdinOnce")),
        tty=bool(container.get("tty")),
        stop_signal=_stop_signal(container, image),
        grace=float(pod["spec"].get("terminationGracePeriodSeconds", _DEFAULT_GRACE)),
    )


def _sysctls(pod: Object, image: Image | None) -> dict[str, str]:
    """
    :raises ConfigError: a container without an image has no namespace of its own for them.
    """
    named = sysctls.of_kernel(pod["spec"])
    if named and image is None:
        raise ConfigError(
            f"sysctl {next(iter(named))} is for containers with an image: give runtimeClassName container"
        )
    return named


def _command(container: dict[str, Any], image: Image | None) -> list[str]:
    """The words to run: the container's, else the image's; args without a command are for the image's entry point.

    :raises ConfigError: nobody says what to run.
    """
    command, args = container.get("command") or [], container.get("args") or []
    if image is not None and not command:
        command = list(image.config.entrypoint)
        args = args or list(image.config.command)
    if command or (image is not None and args):
        return [*command, *args]
    if image is not None:
        raise ConfigError(f'no command specified: neither container "{container["name"]}" nor its image names one')
    raise ConfigError(
        f'container "{container["name"]}" names no command: a process node runs programs of this machine and does '
        "not know the image's entry point; set command"
    )


def _identity(pod: Object, container: dict[str, Any], image: Image | None) -> Identity:
    """
    :raises ConfigError: it must not be root, and would. :raises CreateError: the image names somebody unknown.
    """
    asked = allowances.identity_of(pod, container)
    if image is None:
        allowances.refuse_root(pod, container, os.geteuid() if asked.user is None else asked.user)
        return asked
    identity = users.identity(image.root, image.config.user, asked)
    allowances.refuse_root(pod, container, identity.user, image.config.user)
    return identity


def _stop_signal(container: dict[str, Any], image: Image | None) -> str:
    own = (container.get("lifecycle") or {}).get("stopSignal") or ""
    return own or (image.config.stop_signal if image is not None else "")


def _directory(container: dict[str, Any], image: Image | None, paths: PathMap, pod_dir: Path) -> str:
    if container.get("workingDir"):
        return paths.apply(container["workingDir"])
    return _work(container, paths, pod_dir) if image is None else image.config.working_dir or "/"


def _work(container: dict[str, Any], paths: PathMap, pod_dir: Path) -> str:
    """The directory of a container that names none: its own, with a link to each volume."""
    work = place_of(pod_dir, container["name"]) / "work"
    work.mkdir(parents=True, exist_ok=True)
    work.chmod(0o777)  # whoever the container runs as
    paths.link(work)
    return str(work)


def _at_their_places(container: dict[str, Any]) -> PathMap:
    """Volumes that are where the container says: nothing to rewrite, but variables and links name them."""
    return PathMap(
        {
            "volumeMounts": [
                {"name": m["name"], "mountPath": m["mountPath"]} for m in container.get("volumeMounts") or ()
            ]
        },
        {m["name"]: Path(m["mountPath"]) for m in container.get("volumeMounts") or ()},
    )


def with_network_files(
    spec: ContainerSpec, container: dict[str, Any], network: PodNetwork, *, mounts: bool
) -> ContainerSpec:
    """The container with the hosts file and the resolver of its pod, unless it brings its own."""
    own = {mount["mountPath"].rstrip("/") for mount in container.get("volumeMounts") or ()}
    files = tuple(mount for mount in network.mounts if mount.target not in own) if mounts else ()
    return dataclasses.replace(spec, mounts=(*spec.mounts, *files))


def with_termination_log(
    spec: ContainerSpec, container: dict[str, Any], run_dir: Path, *, mounts: bool
) -> ContainerSpec:
    """The container with a file for its last words: at its path, or in a variable where paths are not its own."""
    file = run_dir / TERMINATION_LOG
    file.parent.mkdir(parents=True, exist_ok=True)
    file.touch()
    file.chmod(0o666)  # whoever the container runs as
    path = container.get("terminationMessagePath") or "/dev/termination-log"
    if mounts:
        env = {**spec.env, TERMINATION_VARIABLE: path}
        return dataclasses.replace(spec, env=env, mounts=(*spec.mounts, Mount(str(file), path)))
    argv = [replace_paths(word, {path: str(file)}) for word in spec.argv]
    env = {name: str(file) if value == path else value for name, value in spec.env.items()}
    return dataclasses.replace(spec, argv=argv, env={**env, TERMINATION_VARIABLE: str(file)})


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
