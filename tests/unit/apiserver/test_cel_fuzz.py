"""Random expressions: whatever is written, the evaluator gives a value or one of its own errors, within its budget."""

from __future__ import annotations

import contextlib

from hypothesis import given, settings
from hypothesis import strategies as st

from glebe.cel import types as t
from glebe.cel.budget import Budget, EvalError, OutOfBudget
from glebe.cel.environment import CompileError, Environment
from glebe.cel.estimate import estimate

OBJECT = {"s": "text é", "n": 3, "f": 1.5, "l": [1, 2, 3], "m": {"a": 1, "b": [True, None]}, "z": None, "e": {}}
ENVIRONMENT = Environment({"object": t.DYN, "n": t.INT, "s": t.STRING, "l": t.list_of(t.INT)})

_LEAVES = st.sampled_from(
    ["object", "object.s", "object.l", "object.m", "object.z", "object.nothing", "n", "s", "l", "1", "-1", "0u", "1.5",
     "'a'", "b'a'", "true", "false", "null", "[]", "{}", "x", "int", "9223372036854775807", "optional.none()",
     "duration('1h')", "timestamp('2020-01-01T00:00:00Z')", "quantity('1Gi')", "'%s%d'", "'(a*)*'"]
)  # fmt: skip
_OPERATORS = st.sampled_from(["+", "-", "*", "/", "%", "==", "!=", "<", "<=", ">", ">=", "&&", "||", "in"])
_MEMBERS = st.sampled_from(
    ["size", "contains", "matches", "split", "join", "sum", "min", "max", "isSorted", "indexOf", "format", "replace",
     "substring", "find", "findAll", "hasValue", "value", "orValue", "or", "add", "compareTo", "asInteger", "getHours",
     "lowerAscii", "trim", "charAt", "startsWith", "unknown"]
)  # fmt: skip
_MACROS = st.sampled_from(["all", "exists", "exists_one", "map", "filter", "optMap"])


def _grow(inner: st.SearchStrategy[str]) -> st.SearchStrategy[str]:
    return st.one_of(
        st.tuples(inner, _OPERATORS, inner).map(lambda p: f"({p[0]} {p[1]} {p[2]})"),
        st.tuples(inner, inner, inner).map(lambda p: f"({p[0]} ? {p[1]} : {p[2]})"),
        st.tuples(inner, _MEMBERS, st.lists(inner, max_size=2)).map(lambda p: f"{p[0]}.{p[1]}({', '.join(p[2])})"),
        st.tuples(inner, _MACROS, inner).map(lambda p: f"{p[0]}.{p[1]}(x, {p[2]})"),
        st.tuples(inner, inner).map(lambda p: f"{p[0]}[{p[1]}]"),
        st.tuples(inner, inner).map(lambda p: f"{p[0]}[?{p[1]}]"),
        st.lists(inner, max_size=3).map(lambda p: f"[{', '.join(p)}]"),
        st.tuples(inner, inner).map(lambda p: f"{{{p[0]}: {p[1]}}}"),
        inner.map(lambda p: f"!{p}"),
        inner.map(lambda p: f"-{p}"),
        inner.map(lambda p: f"dyn({p})"),
        inner.map(lambda p: f"string({p})"),
        inner.map(lambda p: f"{p}.?s"),
        inner.map(lambda p: f"has({p}.s)"),
    )


@settings(max_examples=600)
@given(st.recursive(_LEAVES, _grow, max_leaves=12))
def test_expressions_end_with_a_value_or_an_error_of_their_own(text: str) -> None:
    try:
        program = ENVIRONMENT.compile(text)
    except CompileError:
        return
    assert estimate(program.tree, program.checked) >= 0
    budget = Budget(50_000)
    values = {"object": OBJECT, "n": 3, "s": "text", "l": [3, 1, 2]}
    with contextlib.suppress(EvalError, OutOfBudget):
        program.evaluate(values, budget)
    assert budget.left <= 50_000


@settings(max_examples=400)
@given(st.text(alphabet="abx01.?:()[]{}'\"\\+-!=<>&|, \n\tné`%/*", max_size=40))
def test_any_text_is_an_expression_or_a_syntax_error(text: str) -> None:
    for issue in ENVIRONMENT.check(text):
        assert issue.message
    with contextlib.suppress(CompileError):
        ENVIRONMENT.compile(text)
