"""The expressions of one policy: they share its variables, which later ones may name."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from functools import lru_cache
from typing import Any

from glebe.apiserver.admission.conditions import Fields, declarations
from glebe.cel import types as t
from glebe.cel.budget import Budget, EvalError
from glebe.cel.environment import CompileError, Environment, Program
from glebe.cel.types import Type
from glebe.cel.values import Lazy

_PATCH_FIELDS = {"op": t.STRING, "path": t.STRING, "from": t.STRING, "value": t.DYN}
JSON_PATCH, OBJECT = "JSONPatch", "Object"


def structs(name: str) -> Callable[[str], Type | None] | None:
    """What mutations may make: ``Object`` with everything below it, and ``JSONPatch``."""
    if name == JSON_PATCH:
        return _PATCH_FIELDS.get
    if name == OBJECT or name.startswith(f"{OBJECT}."):
        return lambda field: t.DYN
    return None


@lru_cache(maxsize=1024)
def _environment(
    params: bool, authorizer: bool, mutates: bool, variables: tuple[tuple[str, Type], ...], typed: Type, param: Type
) -> Environment:
    declared = declarations(params=params, authorizer=authorizer, typed=typed, param=param)
    declared["variables"] = Type("object", struct=Fields("kubernetes.variables", dict(variables)))
    return Environment(declared, structs if mutates else None)


class Expressions:
    """Compiles them in their order.

    :param typed: the type of ``object`` and ``oldObject``, for type checking.
    """

    def __init__(self, *, params: bool, typed: Type = t.DYN, param: Type = t.DYN) -> None:
        self._params = params
        self._typed = typed
        self._param = param
        self.variables: dict[str, Type] = {}
        self.programs: dict[str, Program | str] = {}
        """Of the variables; a text is what is wrong with one."""

    def environment(self, *, authorizer: bool = True, mutates: bool = False) -> Environment:
        """Where the next expression is compiled."""
        known = tuple(self.variables.items())
        return _environment(self._params, authorizer, mutates, known, self._typed, self._param)

    def add_variable(self, name: str, text: str) -> str:
        """Declare a variable; what is wrong with its expression, or ""."""
        try:
            program = self.environment().compile(text)
        except CompileError as error:
            self.variables[name] = t.DYN
            self.programs[name] = f"compilation error: {error}"
            return f"compilation failed: {error}"
        self.variables[name] = program.result
        self.programs[name] = program
        return ""

    def fault(self, text: str, results: tuple[str, ...], *, authorizer: bool = True) -> str:
        """What is wrong with an expression that must be of one of these types."""
        try:
            program = self.environment(authorizer=authorizer).compile(text)
        except CompileError as error:
            return f"compilation failed: {error}"
        if program.result.kind in results:
            return ""
        wanted = results[0] if len(results) == 1 else f"one of [{' '.join(results)}]".replace("null", "null_type")
        return f"must evaluate to {wanted} but got {program.result}"

    def mutation_fault(self, text: str, patch_type: str) -> str:
        """The same of a mutation's expression."""
        try:
            result = self.environment(mutates=True).compile(text).result
        except CompileError as error:
            return f"compilation failed: {error}"
        if patch_type == "ApplyConfiguration":
            return "" if str(result) == OBJECT else f"must evaluate to Object but got {result}"
        item = result.params[0] if result.kind == "list" and result.params else t.DYN
        fits = result.kind == "list" and (str(item) == JSON_PATCH or item.kind == "free")
        return "" if fits else f"must evaluate to list(JSONPatch) but got {result}"


class Variables(Lazy):
    """``variables``: each is evaluated when it is first named, once per request and policy."""

    __slots__ = ("_known", "_programs", "_values")

    def __init__(self, programs: Mapping[str, Program | str], values: Mapping[str, Any]) -> None:
        self._programs = programs
        self._values = values
        self._known: dict[str, Any] = {}

    def get_field(self, name: str, budget: Budget) -> Any:
        if name in self._known:
            held = self._known[name]
            if isinstance(held, EvalError):
                raise held
            return held
        program = self._programs.get(name)
        if program is None or isinstance(program, str):
            raise EvalError(f'composited variable "{name}" fails to compile: {program or "undefined"}')
        try:
            value = program.evaluate_within({**self._values, "variables": self}, budget)
        except EvalError as error:
            failed = EvalError(f'composited variable "{name}" fails to evaluate: {error}')
            self._known[name] = failed
            raise failed from None
        self._known[name] = value
        return value
