"""MutatingAdmissionPolicy: changes written in CEL, as apply configurations or JSON patches."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import TYPE_CHECKING, Any

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
from glebe.apiserver.admission.expressions import JSON_PATCH, OBJECT, Variables
from glebe.apiserver.admission.matching import Match
from glebe.apiserver.admission.mutating import replace
from glebe.apiserver.admission.policybase import Circumstances, CompiledPolicy
from glebe.apiserver.admission.registrations import MUTATING_BINDINGS, MUTATING_POLICIES, Shared
from glebe.apiserver.admission.versions import convert, copy
from glebe.apiserver.patch import json_patch
from glebe.apiserver.types import merging
from glebe.apiserver.types.schema import Schema
from glebe.cel.budget import PER_REQUEST, Budget, EvalError, OutOfBudget
from glebe.cel.environment import Program
from glebe.cel.jsonvalues import to_json
from glebe.cel.values import StructValue
from glebe.kube.errors import ApiError
from glebe.kube.objects import Object

if TYPE_CHECKING:
    from glebe.apiserver.server import ApiServer


_PREFACE = "the server rejected our request due to an error in our request: "
_TEST_FAILED = "testing value "
_SCALARS: dict[str, tuple[tuple[type, ...], str]] = {
    "string": ((str,), "string"),
    "boolean": ((bool,), "boolean"),
    "integer": ((int, float), "numeric (int or float)"),
    "number": ((int, float), "numeric (int or float)"),
    "array": ((list,), "list"),
    "object": ((dict,), "map"),
    "map": ((dict,), "map"),
}


class MutationError(Exception):
    """A mutation could not be done: the failure policy decides."""


class Policy(CompiledPolicy):
    """A policy's ``spec``, compiled."""

    def __init__(self, spec: Mapping[str, Any]) -> None:
        super().__init__(spec)
        self.reinvoke = spec.get("reinvocationPolicy") == "IfNeeded"
        self.mutations = tuple(self._mutation(m) for m in spec.get("mutations") or ())

    def _mutation(self, spec: Mapping[str, Any]) -> tuple[str, str, Program | str]:
        """(patch type, expression, program or what is wrong with it)."""
        kind = spec.get("patchType") or ""
        body = spec.get("jsonPatch" if kind == JSON_PATCH else "applyConfiguration") or {}
        text = str(body.get("expression") or "")
        return kind, text, self.compile(text, mutates=True)


_shared: Shared[Policy] = Shared(Policy)


class MutatingPolicies:
    """One after the other in the order of their names; each sees what the ones before have made."""

    def __init__(self, server: ApiServer) -> None:
        self._server = server

    @staticmethod
    def read(stored: dict[str, list[Object]]) -> tuple[Hook[Policy], ...]:
        """The policies that have bindings."""
        return hooks_of(stored.get(MUTATING_POLICIES, []), stored.get(MUTATING_BINDINGS, []), _shared)

    async def admit(self, a: AdmissionAttributes, hooks: tuple[Hook[Policy], ...]) -> None:
        """:raises ApiError: a policy that fails closed could not do its part."""
        if a.obj is None:
            return
        again = a.rounds()
        state: set[tuple[str, str, int]] = again.notes.setdefault("policies", set())
        due: set[tuple[str, str, int]] = again.notes.get("policies due", set())
        if again.round and again.notes.get("policies' output") != a.obj:
            due = set(state)
        asker = Asker(self._server, a)
        faults: list[tuple[str, str]] = []
        for hook, binding, match, index, param in list(self._invocations(a, hooks, faults)):
            key = (hook.name, binding.name, index)
            if again.round and key not in due:
                continue
            where = Circumstances(self._server, a, asker)
            before = copy(a.obj)
            try:
                if not await self._apply(hook.policy, match, where, param):
                    continue
            except (MutationError, ConditionError) as error:
                if not hook.policy.ignore:
                    faults.append((_denied(hook, binding, str(error)), "Invalid"))
                continue
            if a.obj != before:
                due = again.notes["policies due"] = set(state)
                again.wanted = True
            if hook.policy.reinvoke:
                state.add(key)
        again.notes["policies' output"] = copy(a.obj)
        if faults:
            raise _refusal(a, faults)

    def _invocations(
        self, a: AdmissionAttributes, hooks: tuple[Hook[Policy], ...], faults: list[tuple[str, str]]
    ) -> Iterator[tuple[Hook[Policy], Binding, Match, int, Object | None]]:
        for hook in hooks:
            match = hook.policy.matcher.match(self._server, a)
            if match is None:
                continue
            try:
                check_param_kind(self._server, a.cluster, hook.policy.param_kind)
            except ConfigurationError as error:
                if not hook.policy.ignore:
                    faults.append((f'policy "{hook.name}" denied request: {error}', "Forbidden"))
                continue
            for binding in hook.bindings:
                if not binding.concerns(self._server, a):
                    continue
                try:
                    params = collect_params(self._server, a, hook.policy.param_kind, binding)
                except ConfigurationError as error:
                    if not hook.policy.ignore:
                        why = f"failed to configure binding: {error}"
                        faults.append((_denied(hook, binding, why), "Forbidden"))
                    continue
                for index, param in enumerate(params):
                    yield hook, binding, match, index, param

    async def _apply(self, policy: Policy, match: Match, where: Circumstances, param: Object | None) -> bool:
        """Do all of a policy's mutations; False when its conditions do not hold.

        :raises MutationError: one of them failed.
        """
        first = await where.values(match, param)

        async def given() -> Mapping[str, Any]:
            return first

        if not await policy.conditions.hold(where.asker, given):
            return False
        budget = Budget(PER_REQUEST)
        for kind, text, program in policy.mutations:
            where.forms.clear()
            values = await where.values(match, param)
            values["variables"] = Variables(policy.expressions.programs, values)
            value = await self._evaluate(text, program, where.asker, values, budget)
            await self._change(kind, value, match, where, values["object"])
        return True

    @staticmethod
    async def _evaluate(
        text: str, program: Program | str, asker: Asker, values: Mapping[str, Any], budget: Budget
    ) -> Any:
        if isinstance(program, str):
            raise MutationError(program)
        try:
            return await asker.evaluate(program, values, budget)
        except (EvalError, OutOfBudget) as error:
            raise MutationError(f"expression '{text.strip()}' resulted in error: {error}") from None

    async def _change(self, kind: str, value: Any, match: Match, where: Circumstances, seen: Object) -> None:
        a = where.a
        try:
            made = patched(copy(seen), value) if kind == JSON_PATCH else merged(match, seen, value)
        except EvalError as error:
            raise MutationError(str(error)) from None
        if match.info is not a.info and seen is not a.obj:
            made = await convert(self._server, a.cluster, made, match.info, a.info)
        try:
            replace(a, made)
        except ApiError as error:
            raise MutationError(error.message) from None


def patched(obj: Object, operations: Any) -> Object:
    """``obj`` after a list of ``JSONPatch{...}``.

    :raises EvalError: they are none, or cannot be applied.
    """
    if type(operations) is not list:
        raise EvalError("type mismatch: JSONPatchType.expression should evaluate to array")
    plain: list[Any] = []
    for operation in operations:
        if not isinstance(operation, StructValue) or operation.type_name != JSON_PATCH:
            raise EvalError("type mismatch: JSONPatchType.expression should evaluate to array of JSONPatch")
        plain.append(to_json(dict(operation)))
    before = copy(obj)
    try:
        made: Any = json_patch.apply(obj, plain)
    except ApiError as error:
        if _TEST_FAILED in error.message:
            return before  # the patch is for other objects
        raise EvalError(f"JSON Patch: {error.message.removeprefix(_PREFACE)}") from None
    if not isinstance(made, dict):
        raise EvalError("JSON Patch: it leaves no object")
    return made


def merged(match: Match, obj: Object, value: Any) -> Object:
    """``obj`` with an apply configuration merged into it, as server-side apply does.

    :raises EvalError: it is none, or would replace what is atomic.
    """
    if not isinstance(value, StructValue) or value.type_name != OBJECT:
        raise EvalError("unsupported return type from ApplyConfiguration expression")
    _check_names(value, [OBJECT])
    wanted = to_json(value)
    wanted.pop("apiVersion", None)
    wanted.pop("kind", None)
    schema = match.info.schema
    if schema is None:
        raise EvalError("the kind has no schema to merge by")
    atomic = list(_atomics(schema, wanted, ""))
    if atomic:
        raise EvalError(
            "error applying patch: invalid ApplyConfiguration: may not mutate atomic arrays, maps or structs: "
            + ", ".join(atomic)
        )
    made: Object = merging.merge(schema, copy(obj), wanted)
    return made


def _check_names(value: Any, path: list[str]) -> None:
    """``Object.spec{...}`` may stand at ``spec`` only."""
    if isinstance(value, StructValue):
        expected = ".".join(path)
        if value.type_name != expected:
            raise EvalError(
                f'type mismatch: unexpected type name "{value.type_name}", expected "{expected}", '
                "which matches field name path from root Object type"
            )
        for name, child in value.items():
            _check_names(child, [*path, name])
    elif type(value) is list:
        for child in value:
            _check_names(child, path)
    elif isinstance(value, dict):
        for name, child in value.items():
            _check_names(child, [*path, str(name)])


def _atomics(schema: Schema, value: Any, path: str) -> Iterator[str]:
    wanted = _SCALARS.get(schema.kind)
    if value is not None and wanted is not None and not _is_a(value, wanted[0]):
        kind = "string" if type(value) is str else f"&value.valueUnstructured{{Value:{value}}}"
        why = f"{path}: expected {wanted[1]}, got {kind}"
        raise EvalError(f"error applying patch: failed to convert patch object to typed object: {why}")
    if type(value) is list:
        if schema.list_type == "atomic":
            yield path
        elif schema.items is not None:
            for index, item in enumerate(value):
                yield from _atomics(schema.items, item, f"{path}[{index}]")
    elif isinstance(value, dict):
        if schema.map_type == "atomic":
            yield path
            return
        for name, item in value.items():
            child = schema.field(name)
            if child is not None:
                yield from _atomics(child, item, f"{path}.{name}")
            elif schema.kind == "object" and not schema.preserve:
                why = f"{path}.{name}: field not declared in schema"
                raise EvalError(f"error applying patch: failed to convert patch object to typed object: {why}")


def _is_a(value: Any, kinds: tuple[type, ...]) -> bool:
    return type(value) in kinds


def _denied(hook: Hook[Policy], binding: Binding, why: str) -> str:
    return f"policy '{hook.name}' with binding '{binding.name}' denied request: {why}"


def _refusal(a: AdmissionAttributes, faults: list[tuple[str, str]]) -> ApiError:
    error = a.refusal(faults[0][0])
    error.message, error.reason = faults[0]
    error.details["causes"] = [{"message": fault} for fault, _ in faults]
    return error
