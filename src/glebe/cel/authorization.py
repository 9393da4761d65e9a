"""``authorizer``: what the requester, or a service account, may do.

Authorizers may have to wait and an evaluation cannot: :class:`Unanswered` leaves the evaluation, the caller asks, and
evaluates again with the answer at hand. A check is dear, so that an expression can make few of them.
"""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from typing import Any

from glebe.cel.budget import Budget, EvalError
from glebe.cel.registry import CLASSES, Library
from glebe.cel.values import Extension

CHECK_COST = 350_000


@dataclass(frozen=True, slots=True)
class Question:
    """One check. ``user`` "" is the requester; ``path`` is for what is no resource."""

    verb: str
    user: str = ""
    path: str = ""
    group: str = ""
    resource: str = ""
    subresource: str = ""
    namespace: str = ""
    name: str = ""


@dataclass(slots=True)
class Answer:
    allowed: bool
    reason: str = ""
    error: str = ""


class Unanswered(Exception):
    """The evaluation needs the answer to ``question`` first."""

    def __init__(self, question: Question) -> None:
        super().__init__(str(question))
        self.question = question


@dataclass(eq=False, slots=True)
class Answers:
    """What has been asked during one request."""

    known: dict[Question, Answer] = field(default_factory=dict)


@dataclass(frozen=True, eq=False, slots=True)
class Authorizer(Extension):
    answers: Answers
    user: str = ""
    type_name = "kubernetes.authorization.Authorizer"


@dataclass(frozen=True, eq=False, slots=True)
class Check(Extension):
    """A question that is being put together; subclasses are its stages."""

    answers: Answers
    question: Question


class PathCheck(Check):
    __slots__ = ()
    type_name = "kubernetes.authorization.PathCheck"


class GroupCheck(Check):
    __slots__ = ()
    type_name = "kubernetes.authorization.GroupCheck"


class ResourceCheck(Check):
    __slots__ = ()
    type_name = "kubernetes.authorization.ResourceCheck"


class Decision(Extension):
    __slots__ = ("answer",)
    type_name = "kubernetes.authorization.Decision"

    def __init__(self, answer: Answer) -> None:
        self.answer = answer


CLASSES.update(
    {
        "authorizer": (Authorizer,),
        "pathcheck": (PathCheck,),
        "groupcheck": (GroupCheck,),
        "resourcecheck": (ResourceCheck,),
        "decision": (Decision,),
    }
)


def _check(budget: Budget, check: Check, verb: str) -> Decision:
    budget.spend(CHECK_COST)
    question = replace(check.question, verb=verb)
    answer = check.answers.known.get(question)
    if answer is None:
        raise Unanswered(question)
    return Decision(answer)


def _path(budget: Budget, authorizer: Authorizer, path: str) -> PathCheck:
    if not path:
        raise EvalError("path must not be empty")
    return PathCheck(authorizer.answers, Question("", user=authorizer.user, path=path))


def _narrowed(name: str) -> Any:
    return lambda budget, check, value: ResourceCheck(check.answers, replace(check.question, **{name: value}))


def declare(library: Library) -> None:
    """Add all of these to ``library``."""
    member = library.member
    member("authorizer", "path(string) -> pathcheck", _path)
    member(
        "authorizer",
        "serviceAccount(string, string) -> authorizer",
        lambda b, a, namespace, name: Authorizer(a.answers, f"system:serviceaccount:{namespace}:{name}"),
    )
    member(
        "authorizer",
        "group(string) -> groupcheck",
        lambda b, a, group: GroupCheck(a.answers, Question("", user=a.user, group=group)),
    )
    member("groupcheck", "resource(string) -> resourcecheck", _narrowed("resource"))
    for name in ("subresource", "namespace", "name"):
        member("resourcecheck", f"{name}(string) -> resourcecheck", _narrowed(name))
    # selectors narrow what may be authorised; RBAC does not look at them
    for name in ("fieldSelector", "labelSelector"):
        member("resourcecheck", f"{name}(string) -> resourcecheck", lambda b, check, text: check)
    member("resourcecheck", "check(string) -> decision", _check, "check")
    member("pathcheck", "check(string) -> decision", _check, "check")
    member("decision", "allowed() -> bool", lambda b, d: d.answer.allowed)
    member("decision", "reason() -> string", lambda b, d: d.answer.reason)
    member("decision", "errored() -> bool", lambda b, d: bool(d.answer.error))
    member("decision", "error() -> string", lambda b, d: d.answer.error)
