"""ValidatingAdmissionPolicy: rules in CEL, bound to requests by bindings, with objects as parameters."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import orjson

from glebe.apiserver.admission.base import AdmissionAttributes
from glebe.apiserver.admission.binding import (
    Binding,
    ConfigurationError,
    Hook,
    check_param_kind,
    collect_params,
    hooks_of,
)
from glebe.apiserver.admission.conditions import Asker, ConditionError
from glebe.apiserver.admission.expressions import Variables
from glebe.apiserver.admission.matching import Match
from glebe.apiserver.admission.policybase import Circumstances, CompiledPolicy
from glebe.apiserver.admission.registrations import VALIDATING_BINDINGS, VALIDATING_POLICIES, Shared
from glebe.cel.budget import PER_REQUEST, Budget, EvalError, OutOfBudget
from glebe.cel.environment import Program
from glebe.kube.errors import ApiError
from glebe.kube.objects import Object

if TYPE_CHECKING:
    from glebe.apiserver.server import ApiServer

_CODES = {"Forbidden": 403, "Unauthorized": 401, "RequestEntityTooLarge": 413, "Invalid": 422}
_FAILURE = "validation.policy.admission.k8s.io/validation_failure"
_LONGEST_MESSAGE = 5 * 1024
_LONGEST_ANNOTATION = 10 * 1024


@dataclass(slots=True)
class Decision:
    """What one validation says. ``reason`` is empty where the policy itself failed."""

    denied: bool
    message: str = ""
    reason: str = ""
    index: int = 0


@dataclass(frozen=True, slots=True)
class _Validation:
    text: str
    program: Program | str
    message: str
    composed: Program | None
    reason: str


class Policy(CompiledPolicy):
    """A policy's ``spec``, compiled."""

    def __init__(self, spec: Mapping[str, Any]) -> None:
        super().__init__(spec)
        self.spec = spec
        self.validations = tuple(self._validation(v) for v in spec.get("validations") or ())
        self.annotations = tuple(
            (a.get("key", ""), a.get("valueExpression", ""), self.compile(a.get("valueExpression", "").strip()))
            for a in spec.get("auditAnnotations") or ()
        )

    def _validation(self, spec: Mapping[str, Any]) -> _Validation:
        text, composed = spec.get("expression", ""), spec.get("messageExpression") or ""
        message = self.compile(composed) if composed else None
        return _Validation(
            text,
            self.compile(text),
            (spec.get("message") or "").strip(),
            message if isinstance(message, Program) else None,
            spec.get("reason") or "Invalid",
        )


_shared: Shared[Policy] = Shared(Policy)


class ValidatingPolicies:
    """All policies are asked, in the order of their names; the first denial is the answer."""

    def __init__(self, server: ApiServer) -> None:
        self._server = server

    @staticmethod
    def read(stored: dict[str, list[Object]]) -> tuple[Hook[Policy], ...]:
        """The policies that have bindings."""
        return hooks_of(stored.get(VALIDATING_POLICIES, []), stored.get(VALIDATING_BINDINGS, []), _shared)

    async def validate(self, a: AdmissionAttributes, hooks: tuple[Hook[Policy], ...]) -> None:
        """:raises ApiError: a policy denies the request."""
        where = Circumstances(self._server, a, Asker(self._server, a))
        denials: list[tuple[str, str, Decision]] = []
        for hook in hooks:
            match = hook.policy.matcher.match(self._server, a)
            if match is None:
                continue
            try:
                check_param_kind(self._server, a.cluster, hook.policy.param_kind)
            except ConfigurationError as error:
                if not hook.policy.ignore:
                    denials.append((hook.name, "", Decision(True, str(error))))
                continue
            published: dict[str, list[str]] = {}
            for binding in hook.bindings:
                await self._bound(hook, binding, match, where, denials, published)
            for key, values in published.items():
                a.annotate(f"{hook.name}/{key}", ", ".join(values))
        if denials:
            raise _denial(a, *denials[0])

    async def _bound(
        self,
        hook: Hook[Policy],
        binding: Binding,
        match: Match,
        where: Circumstances,
        denials: list[tuple[str, str, Decision]],
        published: dict[str, list[str]],
    ) -> None:
        """One policy through one binding, once for each of its parameters."""
        a = where.a
        if not binding.concerns(self._server, a):
            return
        try:
            params = collect_params(self._server, a, hook.policy.param_kind, binding)
        except ConfigurationError as error:
            if not hook.policy.ignore:
                denials.append((hook.name, binding.name, Decision(True, f"failed to configure binding: {error}")))
            return
        for param in params:
            decisions = await _decide(hook.policy, match, where, param, published)
            for decision in decisions:
                if decision.denied:
                    self._act(hook.name, binding, decision, a, denials)

    @staticmethod
    def _act(
        policy: str,
        binding: Binding,
        decision: Decision,
        a: AdmissionAttributes,
        denials: list[tuple[str, str, Decision]],
    ) -> None:
        if decision.index < 0:  # an audit annotation could not be made: that denies whatever the actions are
            denials.append((policy, binding.name, decision))
            return
        for action in binding.actions:
            if action == "Deny":
                denials.append((policy, binding.name, decision))
            elif action == "Warn":
                a.warn(
                    f"Validation failed for ValidatingAdmissionPolicy '{policy}' with binding '{binding.name}': "
                    f"{decision.message}"
                )
            elif action == "Audit":
                failure = {
                    "message": decision.message,
                    "policy": policy,
                    "binding": binding.name,
                    "expressionIndex": decision.index,
                    "validationActions": list(binding.actions),
                }
                a.annotate(_FAILURE, orjson.dumps([failure]).decode())


async def _decide(
    policy: Policy, match: Match, where: Circumstances, param: Object | None, published: dict[str, list[str]]
) -> list[Decision]:
    """What all validations of a policy say."""
    values = await where.values(match, param)

    async def given() -> Mapping[str, Any]:
        return values

    try:
        if not await policy.conditions.hold(where.asker, given):
            return []
    except ConditionError as error:
        return [Decision(not policy.ignore, str(error))]
    values["variables"] = Variables(policy.expressions.programs, values)
    budget = Budget(PER_REQUEST)
    decisions: list[Decision] = []
    for index, validation in enumerate(policy.validations):
        try:
            decisions.append(await _evaluate(validation, index, where.asker, values, budget))
        except EvalError as error:
            decisions.append(Decision(not policy.ignore, str(error), index=index))
        except OutOfBudget as error:
            if budget.left <= 0:
                return [Decision(not policy.ignore, str(error))]
            message = f"expression '{validation.text.strip()}' resulted in error: {error}"
            decisions.append(Decision(not policy.ignore, message, index=index))
    decisions += await _annotations(policy, where.asker, values, published)
    return decisions


async def _evaluate(
    validation: _Validation, index: int, asker: Asker, values: Mapping[str, Any], budget: Budget
) -> Decision:
    """:raises EvalError: with upstream's preface."""
    if isinstance(validation.program, str):
        raise EvalError(validation.program)
    try:
        result = await asker.evaluate(validation.program, values, budget)
    except EvalError as error:
        raise EvalError(f"expression '{validation.text.strip()}' resulted in error: {error}") from None
    if result is True:
        return Decision(False, index=index)
    message = ""
    if validation.composed is not None:
        try:
            composed = await asker.evaluate(validation.composed, values, budget)
            message = composed.strip() if isinstance(composed, str) else ""
        except EvalError:
            message = ""
        except OutOfBudget as error:
            return Decision(True, f"failed messageExpression: {error}", index=index)
        if len(message) > _LONGEST_MESSAGE or "\n" in message:
            message = ""
    message = message or validation.message or f"failed expression: {validation.text.strip()}"
    return Decision(True, message, validation.reason, index)


async def _annotations(
    policy: Policy, asker: Asker, values: Mapping[str, Any], published: dict[str, list[str]]
) -> Sequence[Decision]:
    """Collects the audit annotations; a denial for each that could not be made while the policy fails closed."""
    budget = Budget(PER_REQUEST)
    faults: list[Decision] = []
    for key, text, program in policy.annotations:
        try:
            if isinstance(program, str):
                raise EvalError(program)
            value = await asker.evaluate(program, values, budget)
        except (EvalError, OutOfBudget) as error:
            if not policy.ignore:
                faults.append(Decision(True, f"expression '{text.strip()}' resulted in error: {error}", index=-1))
            continue
        if isinstance(value, str) and value.strip():
            held = published.setdefault(key, [])
            shown = value.strip()[:_LONGEST_ANNOTATION]
            if shown not in held:
                held.append(shown)
    return faults


def _denial(a: AdmissionAttributes, policy: str, binding: str, decision: Decision) -> ApiError:
    by = f"ValidatingAdmissionPolicy '{policy}'" + (f" with binding '{binding}'" if binding else "")
    message = f"{by} denied request: {decision.message}"
    error = a.refusal(message)
    error.reason = decision.reason or "Invalid"
    error.code = _CODES.get(error.reason, 422)
    error.details["causes"] = [{"message": message}]
    return error
