"""PodSecurity: refuses pods that a namespace's policy forbids, warns, and notes for the audit log."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from glebe.apiserver.admission.base import AdmissionAttributes, BuiltinPlugin, Read, ReadAll
from glebe.apiserver.admission.podsecurity.policy import LEVELS, PREFIX, LevelVersion, Policy, defaults_from, read
from glebe.kube import errors
from glebe.kube.objects import Object, controller_of, labels_of

_TEMPLATES = frozenset(
    {
        "replicationcontrollers",
        "podtemplates",
        "replicasets.apps",
        "deployments.apps",
        "statefulsets.apps",
        "daemonsets.apps",
        "jobs.batch",
        "cronjobs.batch",
    }
)
_IGNORED = frozenset({"exec", "attach", "binding", "eviction", "log", "portforward", "proxy", "status"})
_MOST_PODS = 3000
"""How many pods are looked at when a namespace's policy changes."""


class PodSecurity(BuiltinPlugin):
    """The standards on pods (enforced, warned of, noted), on templates (warned of, noted), and on changed policies."""

    name = "PodSecurity"
    resources = frozenset({"pods", "namespaces"}) | _TEMPLATES

    def __init__(self, read_: Read, read_all: ReadAll, configuration: Mapping[str, Any]) -> None:
        self._read = read_
        self._read_all = read_all
        self._defaults = defaults_from(configuration)
        exemptions = configuration.get("exemptions") or {}
        self._users = frozenset(exemptions.get("usernames") or ())
        self._namespaces = frozenset(exemptions.get("namespaces") or ())
        self._runtimes = frozenset(exemptions.get("runtimeClasses") or ())

    async def validate(self, a: AdmissionAttributes) -> None:
        if a.obj is None or a.operation not in ("CREATE", "UPDATE"):
            return
        if a.info.group_resource == "namespaces":
            self._namespace(a, a.obj)
        elif a.info.group_resource == "pods":
            if a.subresource not in _IGNORED:
                self._pod(a, a.obj)
        elif not a.subresource:
            self._template(a, a.obj)

    # -- pods and their templates

    def _pod(self, a: AdmissionAttributes, pod: Object) -> None:
        if self._exempt(a):
            return
        policy, causes = self._policy(a)
        if not causes and policy.is_privileged():
            a.annotate(PREFIX + "enforce-policy", "privileged:latest")
            return
        if a.operation == "UPDATE" and a.old is not None and not _significant(pod["spec"], a.old["spec"]):
            return
        self._evaluate(a, policy, causes, pod["metadata"], pod["spec"], enforce=True)

    def _template(self, a: AdmissionAttributes, obj: Object) -> None:
        if self._exempt(a):
            return
        policy, causes = self._policy(a)
        if not causes and policy.warn.level == policy.audit.level == LEVELS[0]:
            return
        template = _template_of(a.info.group_resource, obj)
        if template:
            meta = template.get("metadata") or {}
            self._evaluate(a, policy, causes, meta, template.get("spec") or {}, enforce=False)

    def _exempt(self, a: AdmissionAttributes) -> bool:
        why = "namespace" if a.namespace in self._namespaces else "user" if a.user.name in self._users else ""
        if why:
            a.annotate(PREFIX + "exempt", why)
        return bool(why)

    def _policy(self, a: AdmissionAttributes) -> tuple[Policy, list[errors.Cause]]:
        namespace = self._read(a.cluster, "namespaces", "", a.namespace)
        if namespace is None:
            raise errors.internal(f'failed to lookup namespace "{a.namespace}"')
        return read(labels_of(namespace), self._defaults)

    def _evaluate(
        self,
        a: AdmissionAttributes,
        policy: Policy,
        causes: list[errors.Cause],
        meta: Mapping[str, Any],
        spec: Mapping[str, Any],
        *,
        enforce: bool,
    ) -> None:
        if spec.get("runtimeClassName") and spec["runtimeClassName"] in self._runtimes:
            a.annotate(PREFIX + "exempt", "runtimeClass")
            return
        if causes:
            wrong = "; ".join(c.text() for c in causes)
            a.annotate(PREFIX + "error", f"Failed to parse policy: {wrong}")
        found: dict[LevelVersion, str] = {}

        def wrong_with(what: LevelVersion) -> str:
            if what not in found:
                found[what] = ", ".join(v.text() for v in _violations(what, meta, spec))
            return found[what]

        if wrong_with(policy.audit):
            text = f'would violate PodSecurity "{policy.audit}": {found[policy.audit]}'
            a.annotate(PREFIX + "audit-violations", text)
        if enforce:
            a.annotate(PREFIX + "enforce-policy", str(policy.enforce))
            if wrong_with(policy.enforce):
                raise a.refusal(f'violates PodSecurity "{policy.enforce}": {found[policy.enforce]}')
        if wrong_with(policy.warn):
            a.warn(f'would violate PodSecurity "{policy.warn}": {found[policy.warn]}')

    # -- namespaces

    def _namespace(self, a: AdmissionAttributes, namespace: Object) -> None:
        if a.subresource:
            return
        labels = labels_of(namespace)
        policy, causes = read(labels, self._defaults)
        if a.operation == "CREATE":
            if causes:
                raise errors.invalid("", "Namespace", a.name, causes)
            self._warn_of_exemption(a, policy, labels)
            return
        old, old_causes = read(labels_of(a.old or {"metadata": {}}), self._defaults)
        if causes and causes != old_causes:
            raise errors.invalid("", "Namespace", a.name, causes)
        laxer = LEVELS.index(policy.enforce.level) <= LEVELS.index(old.enforce.level)
        if policy.enforce.level == LEVELS[0] or (policy.enforce.minor == old.enforce.minor and laxer):
            return
        if a.name in self._namespaces:
            self._warn_of_exemption(a, policy, labels)
            return
        for warning in self._existing(a, policy.enforce):
            a.warn(warning)

    def _warn_of_exemption(self, a: AdmissionAttributes, policy: Policy, labels: Mapping[str, str]) -> None:
        """Labels that have no effect."""
        if a.name not in self._namespaces or policy.is_privileged() or policy == self._defaults:
            return
        stated = [
            f"{mode}={getattr(policy, mode)}"
            for mode in ("enforce", "audit", "warn")
            if getattr(policy, mode).level != LEVELS[0]
            and (PREFIX + mode in labels or f"{PREFIX}{mode}-version" in labels)
        ]
        if stated:
            ignored = f"the policy ({', '.join(stated)}) will be ignored"
            a.warn(f'namespace "{a.name}" is exempt from Pod Security, and {ignored}')

    def _existing(self, a: AdmissionAttributes, policy: LevelVersion) -> list[str]:
        """Warnings about pods that are there and would not be let in any more."""
        pods = self._one_of_each(self._read_all(a.cluster, "pods", a.name))
        by_reason: dict[str, list[str]] = {}
        for pod in pods[:_MOST_PODS]:
            reasons = ", ".join(v.reason for v in _violations(policy, pod["metadata"], pod["spec"]))
            if reasons:
                by_reason.setdefault(reasons, []).append(pod["metadata"]["name"])
        out = []
        if len(pods) > _MOST_PODS:
            some = f"the first {_MOST_PODS} of {len(pods)} existing pods"
            out.append(f"new PodSecurity enforce level only checked against {some}")
        if by_reason:
            out.append(f'existing pods in namespace "{a.name}" violate the new PodSecurity enforce level "{policy}"')
        out.extend(sorted(f"{_some(names)}: {reasons}" for reasons, names in by_reason.items()))
        return out

    def _one_of_each(self, pods: list[Object]) -> list[Object]:
        """Of pods with one controller the first comes first, the others last."""
        first: list[Object] = []
        rest: list[Object] = []
        seen: set[str] = set()
        for pod in pods:
            if pod["spec"].get("runtimeClassName") in self._runtimes:
                continue
            owner = controller_of(pod)
            (rest if owner is not None and owner["uid"] in seen else first).append(pod)
            if owner is not None:
                seen.add(owner["uid"])
        return first + rest


def _some(names: list[str]) -> str:
    more = len(names) - 1
    return min(names) + (f" (and {more} other pod{'s' if more > 1 else ''})" if more else "")


def _violations(what: LevelVersion, meta: Mapping[str, Any], spec: Mapping[str, Any]) -> list[Any]:
    if what.level == LEVELS[0]:
        return []
    from glebe.apiserver.admission.podsecurity.standards import violations  # late: most namespaces are privileged

    return list(violations(what.level, what.minor, meta, spec))


def _template_of(resource: str, obj: Object) -> Mapping[str, Any] | None:
    if resource == "podtemplates":
        return obj.get("template")
    spec = obj.get("spec") or {}
    if resource == "cronjobs.batch":
        spec = (spec.get("jobTemplate") or {}).get("spec") or {}
    template: Mapping[str, Any] | None = spec.get("template")
    return template


def _significant(spec: Mapping[str, Any], old: Mapping[str, Any]) -> bool:
    """May an update have made the pod worse? Only images and ephemeral containers can change."""
    for field in ("containers", "initContainers"):
        one, other = spec.get(field) or (), old.get(field) or ()
        if [c.get("image") for c in one] != [c.get("image") for c in other]:
            return True
    before = {c.get("name"): c.get("image") for c in old.get("ephemeralContainers") or ()}
    return any(
        c.get("name") not in before or before[c.get("name")] != c.get("image")
        for c in spec.get("ephemeralContainers") or ()
    )
