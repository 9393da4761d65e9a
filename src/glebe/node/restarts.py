"""Whether a container that ended is started again. Pure. KEP-5307: rules of one container; KEP-5532: the whole pod."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

RESTART = "Restart"
RESTART_ALL = "RestartAllContainers"


@dataclass(frozen=True, slots=True)
class Rule:
    """Exit codes, and what they lead to."""

    action: str
    operator: str
    codes: tuple[int, ...]

    def matches(self, code: int) -> bool:
        """An operator that nobody knows matches nothing."""
        return {"In": code in self.codes, "NotIn": code not in self.codes}.get(self.operator, False)


@dataclass(frozen=True, slots=True)
class Restarts:
    """One container's policy: its own, where it has one, else its pod's."""

    pod: str = "Always"
    own: str = ""
    rules: tuple[Rule, ...] = ()

    @classmethod
    def of(cls, spec: Mapping[str, Any], container: Mapping[str, Any]) -> Restarts:
        """The policy of ``container`` in a pod of ``spec``."""
        rules = tuple(
            Rule(
                rule.get("action", ""),
                (rule.get("exitCodes") or {}).get("operator", ""),
                tuple((rule.get("exitCodes") or {}).get("values") or ()),
            )
            for rule in container.get("restartPolicyRules") or ()
        )
        return cls(spec.get("restartPolicy") or "Always", container.get("restartPolicy") or "", rules)

    def after(self, code: int) -> bool:
        """Is the container started again after it ended with ``code``?"""
        return self._rule(code) != "" or self._by(self.own or self.pod, code)

    def whole_pod_after(self, code: int) -> bool:
        """Are all containers of the pod started again?"""
        return self._rule(code) == RESTART_ALL

    @property
    def after_kill(self) -> bool:
        """Is a container started again that the node itself killed (probes, a changed image)? Rules do not count."""
        return (self.own or self.pod) != "Never"

    def _rule(self, code: int) -> str:
        """The action of the first rule that matches, where a container may have rules."""
        actions = (rule.action for rule in self.rules if rule.matches(code)) if self.own else ()
        first = next(iter(actions), "")
        return first if first in (RESTART, RESTART_ALL) else ""

    @staticmethod
    def _by(policy: str, code: int) -> bool:
        return policy == "Always" or (policy == "OnFailure" and code != 0)


def may_restart_all(spec: Mapping[str, Any]) -> bool:
    """Whether a container of the pod has a rule that starts all again."""
    containers = (*(spec.get("initContainers") or ()), *spec["containers"])
    return any(r.get("action") == RESTART_ALL for c in containers for r in c.get("restartPolicyRules") or ())
