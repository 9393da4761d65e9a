"""Compiling and evaluating expressions: the one entrance for all who use CEL."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from glebe.cel.budget import PER_CALL, PER_REQUEST, Budget, EvalError, OutOfBudget
from glebe.cel.checker import Checked, Checker, Issue, StructFields
from glebe.cel.comprehensions import Step
from glebe.cel.parser import parse
from glebe.cel.program import Compiler
from glebe.cel.syntax import Node, SyntaxFault
from glebe.cel.types import Type

_KEPT = 4096
_EXHAUSTED = "validation failed due to running out of cost budget, no further validation rules will be run"


class CompileError(ValueError):
    """The expression is wrong whatever its input; says where, as cel-go does."""


def describe(text: str, issues: list[Issue]) -> str:
    """``ERROR: <input>:LINE:COLUMN: MESSAGE`` with the line and a mark under the place."""
    lines = text.split("\n")
    shown: list[str] = []
    for issue in sorted(issues, key=lambda i: i.at)[:100]:
        before = text[: issue.at]
        row, column = before.count("\n"), issue.at - (before.rfind("\n") + 1)
        line = lines[row].replace("\t", " ")
        shown.append(f"ERROR: <input>:{row + 1}:{column + 1}: {issue.message}\n | {line}\n | {'.' * column}^")
    return "\n".join(shown)


@dataclass(frozen=True, slots=True, eq=False)
class Program:
    """A compiled expression. It holds nothing of any request and is shared."""

    text: str
    result: Type
    variables: tuple[str, ...]
    run: Step
    size: int
    tree: Node = field(repr=False)
    checked: Checked = field(repr=False)

    def evaluate(self, values: Mapping[str, Any], request: Budget | None = None) -> Any:
        """The expression's value.

        :param request: what all expressions of a request may still cost together; what this one cost is taken off.
        :raises EvalError: the expression failed on these values. :raises OutOfBudget: it cost too much.
        """
        request = request if request is not None else Budget(PER_REQUEST)
        granted = min(PER_CALL, request.left)
        budget = Budget(granted)
        try:
            return self.evaluate_within(values, budget)
        except OutOfBudget:
            raise OutOfBudget(_EXHAUSTED) if granted < PER_CALL else OutOfBudget() from None
        finally:
            request.left -= granted - max(budget.left, 0)

    def evaluate_within(self, values: Mapping[str, Any], budget: Budget) -> Any:
        """The same as a part of another evaluation, at its cost."""
        frame: list[Any] = [None] * self.size
        frame[0] = budget
        for place, name in enumerate(self.variables, 1):
            frame[place] = values.get(name)
        try:
            return self.run(frame)
        except RecursionError:
            raise EvalError("the value is nested too deeply") from None


class Environment:
    """The variables and struct types that expressions of one use may name. Programs are kept by their text.

    :param raw: values are JSON whose schema says more than JSON can (timestamps, bytes, doubles).
    :param bind: expressions may use ``cel.bind``.
    """

    def __init__(
        self,
        variables: Mapping[str, Type],
        structs: StructFields | None = None,
        *,
        raw: bool = False,
        bind: bool = False,
    ) -> None:
        self._variables = dict(variables)
        self._structs = structs
        self._raw = raw
        self._bind = bind
        self._programs: OrderedDict[str, Program | str] = OrderedDict()

    def compile(self, text: str) -> Program:
        """:raises CompileError: with all of cel-go's complaints."""
        held = self._programs.get(text)
        if held is None:
            try:
                held = self._compile(text)
            except CompileError as error:
                held = str(error)
            self._programs[text] = held
            while len(self._programs) > _KEPT:
                self._programs.popitem(last=False)
        else:
            self._programs.move_to_end(text)
        if isinstance(held, str):
            raise CompileError(held)
        return held

    def _compile(self, text: str) -> Program:
        try:
            tree = parse(text, bind=self._bind)
        except SyntaxFault as fault:
            raise CompileError(describe(text, [Issue(fault.at, fault.message)])) from None
        except RecursionError:
            raise CompileError("expression recursion limit exceeded") from None
        checker = Checker(self._variables, self._structs)
        result = checker.check(tree)
        if checker.out.issues:
            raise CompileError(describe(text, checker.out.issues))
        compiler = Compiler(checker.out, {name: i for i, name in enumerate(self._variables, 1)}, self._raw)
        run = compiler.compile(tree)
        return Program(text, result, tuple(self._variables), run, compiler.size, tree, checker.out)

    def check(self, text: str) -> list[Issue]:
        """Only the complaints (syntax included), without keeping a program."""
        try:
            checker = Checker(self._variables, self._structs)
            checker.check(parse(text, bind=self._bind))
        except SyntaxFault as fault:
            return [Issue(fault.at, fault.message)]
        return checker.out.issues
