"""CEL about a request: what expressions of webhooks and policies may name, and how they are evaluated."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass
from functools import lru_cache
from typing import TYPE_CHECKING, Any

from glebe.apiserver.admission.base import AdmissionAttributes
from glebe.apiserver.admission.matching import Match, kind_of
from glebe.apiserver.admission.options import operation_options
from glebe.cel import types as t
from glebe.cel.authorization import Answer, Answers, Authorizer, Question, Unanswered
from glebe.cel.budget import PER_MATCH_CONDITIONS, Budget, EvalError, OutOfBudget
from glebe.cel.environment import CompileError, Environment, Program
from glebe.cel.types import Type
from glebe.kube.transport import User

if TYPE_CHECKING:
    from glebe.apiserver.server import ApiServer


class Fields:
    """A struct type with the given fields."""

    def __init__(self, name: str, fields: Mapping[str, Type]) -> None:
        self.name = name
        self._fields = dict(fields)

    def field(self, name: str) -> tuple[Type, str] | None:
        found = self._fields.get(name)
        return None if found is None else (found, name)


def _struct(type_name: str, /, **fields: Type) -> Type:
    return Type("object", struct=Fields(type_name, fields))


_S = t.STRING
_KIND = _struct("kubernetes.GroupVersionKind", group=_S, version=_S, kind=_S)
_RESOURCE = _struct("kubernetes.GroupVersionResource", group=_S, version=_S, resource=_S)
_USER = _struct("kubernetes.UserInfo", username=_S, uid=_S, groups=t.list_of(_S), extra=t.map_of(_S, t.list_of(_S)))
REQUEST = _struct(
    "kubernetes.AdmissionRequest",
    kind=_KIND,
    resource=_RESOURCE,
    subResource=_S,
    requestKind=_KIND,
    requestResource=_RESOURCE,
    requestSubResource=_S,
    name=_S,
    namespace=_S,
    operation=_S,
    userInfo=_USER,
    dryRun=t.BOOL,
    options=t.DYN,
)


def declarations(*, params: bool, authorizer: bool, typed: Type = t.DYN, param: Type = t.DYN) -> dict[str, Type]:
    """The variables of an expression about a request."""
    variables = {"object": typed, "oldObject": typed, "request": REQUEST, "namespaceObject": t.DYN}
    if params:
        variables["params"] = param
    if authorizer:
        variables["authorizer"] = Type("authorizer")
    return variables


@lru_cache(maxsize=8)
def environment(params: bool, authorizer: bool) -> Environment:
    """One for all expressions that name the same variables."""
    return Environment(declarations(params=params, authorizer=authorizer))


def request_facts(a: AdmissionAttributes, match: Match) -> dict[str, Any]:
    """What an AdmissionRequest says of a request, as webhooks and expressions are told, without its objects."""
    return {
        "kind": kind_object(match.kind),
        "resource": resource_object(match.info.group, match.info.version, match.info.plural),
        "subResource": a.subresource,
        "requestKind": kind_object(kind_of(a.info, a.subresource)),
        "requestResource": resource_object(a.info.group, a.info.version, a.info.plural),
        "requestSubResource": a.subresource,
        "name": a.name,
        "namespace": a.namespace,
        "operation": a.operation,
        "userInfo": a.user.info(),
    }


def request_value(a: AdmissionAttributes, match: Match) -> dict[str, Any]:
    """``request``: the AdmissionRequest without its objects; what is empty is left out."""
    request = {key: value for key, value in request_facts(a, match).items() if value}
    request["dryRun"] = a.dry_run
    options = operation_options(a)
    if options is not None:
        request["options"] = options
    return request


def kind_object(kind: tuple[str, str, str]) -> dict[str, str]:
    return {"group": kind[0], "version": kind[1], "kind": kind[2]}


def resource_object(group: str, version: str, plural: str) -> dict[str, str]:
    return {"group": group, "version": version, "resource": plural}


#: An evaluation that costs more lets others go first afterwards.
_LONG = 50_000


class Asker:
    """Answers ``authorizer`` for one request."""

    def __init__(self, server: ApiServer, a: AdmissionAttributes) -> None:
        self._server = server
        self._a = a
        self.answers = Answers()
        self.authorizer = Authorizer(self.answers)

    async def evaluate(self, program: Program, values: Mapping[str, Any], budget: Budget) -> Any:
        """The expression's value; asks what it needs to know in between.

        :raises EvalError: it failed. :raises OutOfBudget: it cost too much.
        """
        while True:
            before = budget.left
            try:
                value = program.evaluate(values, budget)
                if before - budget.left > _LONG:
                    await asyncio.sleep(0)  # others have waited
                return value
            except Unanswered as unanswered:
                budget.left = before
                question = unanswered.question
                self.answers.known[question] = await self._ask(question)

    async def _ask(self, question: Question) -> Answer:
        authorizer, user = self._server.authorizer, self._a.user
        if question.user:
            _, _, namespace, name = question.user.split(":", 3)
            groups = ("system:serviceaccounts", f"system:serviceaccounts:{namespace}", "system:authenticated")
            user = User(question.user, groups)
            assert name is not None
        if authorizer is None or "system:masters" in user.groups:
            return Answer(True)
        q = question
        try:
            allowed, reason = await authorizer.authorize(
                user, self._a.cluster, q.verb, q.group, q.resource, q.subresource, q.namespace, q.name, q.path
            )
        except Exception as error:
            return Answer(False, "", str(error))
        return Answer(allowed, reason)


@dataclass(frozen=True, slots=True)
class Condition:
    name: str
    text: str


class ConditionError(Exception):
    """A condition failed, and the registration fails closed."""


class Conditions:
    """The ``matchConditions`` of a registration: all must be true."""

    __slots__ = ("_conditions", "_environment", "_ignore")

    def __init__(self, conditions: list[Mapping[str, str]], *, ignore: bool, params: bool = False) -> None:
        self._conditions = tuple(Condition(c.get("name", ""), c.get("expression", "")) for c in conditions)
        self._environment = environment(params, True) if conditions else None
        self._ignore = ignore

    def __bool__(self) -> bool:
        return bool(self._conditions)

    async def hold(self, asker: Asker, values: Callable[[], Awaitable[Mapping[str, Any]]]) -> bool:
        """One that is false decides; otherwise an error does as the failure policy says.

        :raises ConditionError: what failed.
        """
        if self._environment is None:
            return True
        given = await values()
        budget = Budget(PER_MATCH_CONDITIONS)
        faults: list[str] = []
        for condition in self._conditions:
            try:
                program = self._environment.compile(condition.text.strip())
                if await asker.evaluate(program, given, budget) is False:
                    return False
            except CompileError as error:
                faults.append(f"compilation error: {error}")
            except EvalError as error:
                faults.append(f"expression '{condition.text.strip()}' resulted in error: {error}")
            except OutOfBudget as error:
                faults.append(str(error))
                break
        if not faults:
            return True
        if self._ignore:
            return False
        raise ConditionError(faults[0] if len(faults) == 1 else "[" + ", ".join(faults) + "]")
