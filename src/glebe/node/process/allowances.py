"""As whom a container runs and what it may use, from securityContext and resources. Pure."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from glebe.kube.objects import Object
from glebe.kube.quantity import to_int
from glebe.node.contracts import Identity, Limits
from glebe.node.values.environment import ConfigError


def limits_of(container: Mapping[str, Any]) -> Limits:
    """CPU and memory; a request that is not given is the limit."""
    resources = container.get("resources") or {}
    requests, limits = resources.get("requests") or {}, resources.get("limits") or {}
    asked = requests.get("cpu", limits.get("cpu", "0"))
    return Limits(
        cpu_request=to_int(asked, "cpu"),
        cpu=to_int(limits["cpu"], "cpu") if "cpu" in limits else None,
        memory=to_int(limits["memory"], "memory") if "memory" in limits else None,
    )


def identity_of(pod: Object, container: Mapping[str, Any]) -> Identity:
    """As whom the container is to run; what it says itself goes before what its pod says."""
    of_pod = pod["spec"].get("securityContext") or {}
    own = container.get("securityContext") or {}
    both = _both(pod, container)
    group_of_volumes = of_pod.get("fsGroup")
    groups = [*(of_pod.get("supplementalGroups") or ()), *([] if group_of_volumes is None else [group_of_volumes])]
    capabilities = own.get("capabilities") or {}
    privileged = bool(own.get("privileged"))
    return Identity(
        user=both.get("runAsUser"),
        group=both.get("runAsGroup"),
        groups=tuple(dict.fromkeys(groups)),
        no_new_privileges=own.get("allowPrivilegeEscalation") is False and not privileged,
        privileged=privileged,
        add_capabilities=tuple(capabilities.get("add") or ()),
        drop_capabilities=tuple(capabilities.get("drop") or ()),
    )


def refuse_root(pod: Object, container: Mapping[str, Any], user: int | None, named: str = "") -> None:
    """Hold a container to its ``runAsNonRoot``.

    :param user: whom it would run as; :param named: what its image says about that.
    :raises ConfigError: it must not run as root, and would, or nobody can tell.
    """
    both, meta = _both(pod, container), pod["metadata"]
    if not both.get("runAsNonRoot"):
        return
    who = f'(pod: "{meta["name"]}_{meta["namespace"]}({meta["uid"]})", container: {container["name"]})'
    if both.get("runAsUser") == 0:
        raise ConfigError(f"container's runAsUser breaks non-root policy {who}")
    name = named.partition(":")[0]
    if both.get("runAsUser") is None and name and not name.isdigit():
        text = f"container has runAsNonRoot and image has non-numeric user ({name}), cannot verify user is non-root"
        raise ConfigError(f"{text} {who}")
    if not user:
        raise ConfigError(f"container has runAsNonRoot and image will run as root {who}")


def _both(pod: Object, container: Mapping[str, Any]) -> dict[str, Any]:
    own = container.get("securityContext") or {}
    of_pod = pod["spec"].get("securityContext") or {}
    return {**of_pod, **{key: value for key, value in own.items() if value is not None}}
