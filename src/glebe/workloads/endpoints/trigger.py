"""When what is being published has happened: the annotation by which the latency of endpoints is measured."""

from __future__ import annotations

from collections.abc import Iterable

from glebe.kube.objects import Object, ObjectKey, get_condition


class TriggerTimes:
    """Remembers, per Service, what was published. Times are RFC 3339 in UTC, so they compare as text."""

    def __init__(self) -> None:
        self._known: dict[ObjectKey, dict[str, str]] = {}

    def changed(self, key: ObjectKey, service: Object, pods: Iterable[Object]) -> str:
        """The earliest change since the last call; at first the Service's creation; ``""`` when nothing changed."""
        before = self._known.get(key)
        now = {"": str(service["metadata"].get("creationTimestamp") or "")}
        for pod in pods:
            since = (get_condition(pod, "Ready") or {}).get("lastTransitionTime")
            if since:
                now[pod["metadata"]["name"]] = since
        self._known[key] = now
        if before is None:
            return now[""]
        return min((at for name, at in now.items() if at > before.get(name, "")), default="")

    def forget(self, key: ObjectKey) -> None:
        self._known.pop(key, None)
