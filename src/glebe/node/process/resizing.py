"""Other resources for a running pod (KEP-1287): what it was given, what it wants, how it gets there."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from typing import Any

import orjson

from glebe.kube.objects import Object
from glebe.node.process import allowances, marks
from glebe.node.process.container import ContainerLife, Role
from glebe.node.process.context import NORMAL, WARNING, PodContext
from glebe.node.status import resources_status

PENDING, IN_PROGRESS = "PodResizePending", "PodResizeInProgress"
_KINDS = ("requests", "limits")
_RESIZABLE = ("cpu", "memory")

#: Whether the node has room for a pod as it wants to be: ``None``, or (Infeasible or Deferred, why).
Room = Callable[[Object], tuple[str, str] | None]


class Resizing:
    """Follows the resources of one pod's containers. What was given is noted, so that a restart gives the same."""

    def __init__(self, pod: PodContext, lives: Callable[[], Iterable[ContainerLife]], room: Room) -> None:
        self._pod = pod
        self._lives = lives
        self._room = room
        self._told = ""

    def begin(self) -> None:
        """Before the first container: the pod is given what it asks for, unless it was given something before."""
        noted = marks.read(self._pod.directory, marks.ALLOCATED)
        self._pod.allocated = (noted or {}).get("resources") or wanted_by(self._pod.pod)
        if noted is None:
            self._note()
        self.show()

    def consider(self) -> None:
        """The pod may want something else; or what was in the way may be gone."""
        pod = self._pod
        if not pod.allocated or pod.ending.is_set():
            return
        wanted = wanted_by(pod.pod)
        if any(wanted.get(name) != given for name, given in pod.allocated.items() if name in wanted):
            self._decide(wanted)
        elif PENDING in pod.state.passing:
            del pod.state.passing[PENDING]
            pod.touch()
        self._act()

    @property
    def unsettled(self) -> bool:
        """Whether to look again after a while."""
        return PENDING in self._pod.state.passing or IN_PROGRESS in self._pod.state.passing

    def _decide(self, wanted: dict[str, Any]) -> None:
        pod = self._pod
        verdict = self._room(pod.pod)
        if verdict is None:
            pod.allocated = {**pod.allocated, **wanted}
            self._note()
            pod.state.passing.pop(PENDING, None)
            pod.state.passing[IN_PROGRESS] = ("True", "", "")
            pod.say(NORMAL, "ResizeStarted", self._summary("started"))
        else:
            reason, why = verdict
            pod.state.passing[PENDING] = ("True", reason, why)
            text = self._summary(reason, why)
            if text != self._told:
                self._told = text
                pod.say(WARNING, f"Resize{reason}", text)
        pod.touch()

    def _act(self) -> None:
        """Give running containers what was allocated to them."""
        pod, failed = self._pod, ""
        for life in self._lives():
            given = pod.allocated.get(life.name)
            if given is None or life.role in (Role.INIT, Role.EPHEMERAL) or life.run_now is None:
                continue
            has = life.resources
            if has is None or _same(has, given):
                continue
            if restarts(life.body, has, given):
                life.restart(f"Container {life.name} resize requires restart")
                continue
            try:
                pod.machine.containers.resize(life.run_now, allowances.limits_of({"resources": given}))
                life.resources = given
            except OSError as error:
                failed = f"{life.name}: {error.strerror or error}"
        self._settle(failed)
        self.show()

    def _settle(self, failed: str) -> None:
        pod = self._pod
        if IN_PROGRESS not in pod.state.passing:
            return
        if failed:
            pod.state.passing[IN_PROGRESS] = ("True", "Error", failed)
            text = self._summary("error", failed)
            if text != self._told:
                self._told = text
                pod.say(WARNING, "ResizeError", text)
        elif all(
            life.resources is None or _same(life.resources, pod.allocated.get(life.name)) for life in self._lives()
        ):
            del pod.state.passing[IN_PROGRESS]
            pod.say(NORMAL, "ResizeCompleted", self._summary("completed"))
        pod.touch()

    def show(self) -> None:
        """What the status says of resources: what containers have, and what they were given."""
        for life in self._lives():
            given = self._pod.allocated.get(life.name)
            if given:
                has = life.resources if life.status.running and life.resources is not None else given
                life.status.details.update(resources_status(given))
                life.status.details["resources"] = resources_status(has)["resources"]

    def _note(self) -> None:
        if self._pod.directory.exists():
            marks.write(self._pod.directory, marks.ALLOCATED, resources=self._pod.allocated)

    def _summary(self, how: str, error: str = "") -> str:
        """As upstream's events have it."""
        spec = self._pod.pod["spec"]
        body: dict[str, Any] = {
            field: [{"name": c["name"], "resources": c.get("resources") or {}} for c in spec[field]]
            for field in ("initContainers", "containers")
            if spec.get(field)
        }
        body["generation"] = self._pod.pod["metadata"].get("generation", 0)
        if error:
            body["error"] = error
        return f"Pod resize {how}: {orjson.dumps(body).decode()}"


def wanted_by(pod: Object) -> dict[str, Any]:
    """Container -> resources, as the pod's spec has them."""
    spec = pod["spec"]
    return {c["name"]: c.get("resources") or {} for c in (*(spec.get("initContainers") or ()), *spec["containers"])}


def _amounts(resources: Mapping[str, Any] | None) -> dict[str, Any]:
    resources = resources or {}
    found = {(kind, name): (resources.get(kind) or {}).get(name) for kind in _KINDS for name in _RESIZABLE}
    return {f"{kind}.{name}": amount for (kind, name), amount in found.items() if amount is not None}


def _same(one: Mapping[str, Any] | None, other: Mapping[str, Any] | None) -> bool:
    return _amounts(one) == _amounts(other)


def restarts(container: Mapping[str, Any], has: Mapping[str, Any], given: Mapping[str, Any]) -> bool:
    """Whether the container's resizePolicy wants a restart for what changes."""
    before, after = _amounts(has), _amounts(given)
    changed = {key.partition(".")[2] for key in {*before, *after} if before.get(key) != after.get(key)}
    policies = {p["resourceName"]: p.get("restartPolicy") for p in container.get("resizePolicy") or ()}
    return any(policies.get(name) == "RestartContainer" for name in sorted(changed))
