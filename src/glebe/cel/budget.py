"""What an evaluation may cost.

The units are those of cel-go's cost model, roughly: a step costs 1, work on text a tenth per character, a new list 10,
a new map 30; a million are about a second of one core. Limits are upstream's (``k8s.io/apiserver/pkg/apis/cel``) but
for the one of requests, which is 10 million there: nobody else is served while an expression runs here.
"""

from __future__ import annotations

#: One evaluation of one expression.
PER_CALL = 1_000_000
#: All expressions of one policy, or of one custom resource, in one request.
PER_REQUEST = 4_000_000
#: The match conditions of one webhook or policy.
PER_MATCH_CONDITIONS = 2_500_000
#: What an expression may be estimated to cost at most, when its schema says how big things can be.
STATIC_PER_EXPRESSION = 10_000_000
STATIC_PER_SCHEMA = 100_000_000


class EvalError(Exception):
    """The expression's own fault on this input: ``&&`` and ``||`` may get over it."""


class OutOfBudget(Exception):
    """The evaluation was stopped. Nothing in the expression can catch this."""

    def __init__(self, message: str = "operation cancelled: actual cost limit exceeded") -> None:
        super().__init__(message)


class Budget:
    """How much may still be spent. ``spend`` is also open-coded where it is called most."""

    __slots__ = ("left",)

    def __init__(self, left: int = PER_CALL) -> None:
        self.left = left

    def spend(self, cost: int) -> None:
        """:raises OutOfBudget: more was spent than there is."""
        self.left -= cost
        if self.left < 0:
            raise OutOfBudget


def of_text(length: int) -> int:
    """The cost of reading ``length`` characters once."""
    return (length + 9) // 10
