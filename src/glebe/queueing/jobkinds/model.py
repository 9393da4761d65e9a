"""What a row of the table says. Pure."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from functools import lru_cache
from typing import TYPE_CHECKING, Any, Protocol

from glebe.kube.objects import Object, get_condition
from glebe.kube.resources import Resource
from glebe.queueing.jobkinds.paths import Path, Place, every, number, read

if TYPE_CHECKING:
    from glebe.cel.environment import Program

# --- numbers


class Count(Protocol):
    """A number of pods that an object gives."""

    def of(self, obj: Any) -> int | None:
        """None where the object does not say."""
        ...


@dataclass(frozen=True, slots=True)
class Fixed:
    value: int

    def of(self, obj: Any) -> int | None:
        return self.value


@dataclass(frozen=True, slots=True)
class At:
    path: Path

    def of(self, obj: Any) -> int | None:
        return number(read(obj, self.path))


@dataclass(frozen=True, slots=True)
class Least:
    """The least of those that are given."""

    of_: tuple[Count, ...]

    def of(self, obj: Any) -> int | None:
        given = [n for part in self.of_ if (n := part.of(obj)) is not None]
        return min(given) if given else None


@dataclass(frozen=True, slots=True)
class Most:
    """The greatest of those that are given."""

    of_: tuple[Count, ...]

    def of(self, obj: Any) -> int | None:
        given = [n for part in self.of_ if (n := part.of(obj)) is not None]
        return max(given) if given else None


@dataclass(frozen=True, slots=True)
class Product:
    """Those that are given, multiplied."""

    of_: tuple[Count, ...]

    def of(self, obj: Any) -> int | None:
        given = [n for part in self.of_ if (n := part.of(obj)) is not None]
        out = 1
        for n in given:
            out *= n
        return out if given else None


# --- tests


class Test(Protocol):
    """A question that an object answers with yes or no."""

    def holds(self, obj: Object) -> bool: ...

    def message(self, obj: Object) -> str:
        """What the object says about it."""
        ...


@dataclass(frozen=True, slots=True)
class Condition:
    """``status.conditions`` has this type with status True."""

    kind: str

    def holds(self, obj: Object) -> bool:
        return (get_condition(obj, self.kind) or {}).get("status") == "True"

    def message(self, obj: Object) -> str:
        return str((get_condition(obj, self.kind) or {}).get("message") or "")


@dataclass(frozen=True, slots=True)
class FieldIs:
    """The field has one of the values (``among``), or none of them. A missing field is the empty text."""

    path: Path
    values: tuple[Any, ...]
    among: bool = True
    says: Path = ()

    def holds(self, obj: Object) -> bool:
        return (read(obj, self.path, "") in self.values) == self.among

    def message(self, obj: Object) -> str:
        return str(read(obj, self.says, "")) if self.says else ""


@dataclass(frozen=True, slots=True)
class Sum:
    """The numbers at ``paths`` add up to at least those at ``reaches``; without any, to more than 0."""

    paths: tuple[Path, ...]
    reaches: tuple[Path, ...] = ()

    def holds(self, obj: Object) -> bool:
        total = _sum(obj, self.paths)
        return total >= _sum(obj, self.reaches) if self.reaches else total > 0

    def message(self, obj: Object) -> str:
        return ""


@dataclass(frozen=True, slots=True)
class All:
    """All of them hold; the first speaks."""

    tests: tuple[Test, ...]

    def holds(self, obj: Object) -> bool:
        return all(test.holds(obj) for test in self.tests)

    def message(self, obj: Object) -> str:
        return self.tests[0].message(obj)


@dataclass(frozen=True, slots=True)
class Not:
    test: Test

    def holds(self, obj: Object) -> bool:
        return not self.test.holds(obj)

    def message(self, obj: Object) -> str:
        return ""


@dataclass(frozen=True, slots=True)
class Expression:
    """An expression in CEL over ``object``. One that fails on an object, as on a missing field, does not hold."""

    text: str

    def holds(self, obj: Object) -> bool:
        from glebe.cel.budget import EvalError, OutOfBudget

        try:
            return compile_expression(self.text).evaluate({"object": obj}) is True
        except (EvalError, OutOfBudget):
            return False

    def message(self, obj: Object) -> str:
        return ""


@lru_cache(maxsize=256)
def compile_expression(text: str) -> Program:
    """:raises glebe.cel.environment.CompileError: the expression is wrong whatever its input (a ValueError)."""
    from glebe.cel.environment import Environment
    from glebe.cel.types import DYN

    return Environment({"object": DYN}).compile(text)


def _sum(obj: Object, paths: tuple[Path, ...]) -> int:
    return sum(number(value) or 0 for path in paths for value in every(obj, path))


def any_holds(tests: tuple[Test, ...], obj: Object) -> bool:
    return any(test.holds(obj) for test in tests)


# --- kinds


@dataclass(frozen=True, slots=True)
class Ending:
    """A way in which a job ends: ``reason`` is that of the workload's condition Finished."""

    test: Test
    reason: str


@dataclass(frozen=True, slots=True)
class PodSetRule:
    """Where pod sets of a kind stand: one, or one for ``each`` item of a list or (``keys``) value of a map.

    All paths but ``each`` are relative to the item.

    :param name: the pod set's name; empty: the text at ``name_at``, or the key in lower case.
    :param scale: where the number of pods is written that partial admission gives.
    :param when: the set is there only where one of these holds of the object.
    :param pod_index: label of pods: the rank within the set; ``group_index``: within its group of ``groups``.
    """

    template: Path
    count: Count
    name: str = ""
    name_at: Path = ()
    each: Path = ()
    keys: tuple[str, ...] = ()
    min_count: Count | None = None
    scale: Path = ()
    when: tuple[Test, ...] = ()
    pod_index: str = ""
    group_index: str = ""
    groups: Count | None = None

    def places(self, obj: Object) -> Iterator[tuple[str, Place]]:
        """Names of the pod sets and where their items stand."""
        if not self.each:
            yield self.name, ()
            return
        items = read(obj, self.each)
        if isinstance(items, list):
            for at, item in enumerate(items):
                yield str(read(item, self.name_at, "") or f"{self.name or 'main'}-{at}"), (*self.each, at)
        elif isinstance(items, dict):
            for key in self.keys or tuple(sorted(items)):
                if items.get(key) is not None:
                    yield key.lower(), (*self.each, key)


@dataclass(frozen=True, slots=True)
class PodSetView:
    """One set of equal pods of one job. ``template`` is part of the job: not to be changed."""

    name: str
    count: int
    template: dict[str, Any]
    place: Place
    """Where the template stands in the job; empty when it stands nowhere and is derived."""
    min_count: int | None = None
    scale: Place = ()
    pod_index: str = ""
    group_index: str = ""
    groups: int | None = None


@dataclass(frozen=True, slots=True)
class JobKind:
    """One kind of job.

    :param suspend: the switch: true when the job must not run. Empty for kinds that are held by gates on their pods.
    :param held_by_pods: how pods of a kind without a switch are queued: ``each`` pod for itself, ``set``: all pods of
        an object together, ``groups``: each of its groups together.
    :param finished: ways to end; the first that holds counts. Without any the kind never ends by itself.
    :param active: pods exist and have not ended.
    :param pods_ready: whether status tells by numbers: ready and done pods against the number wanted.
    :param priority: where a PriorityClass may stand besides the pod templates.
    :param queue: further places where the queue's name may stand, besides the label.
    :param skip: objects that are not treated.
    :param hold: objects that ask for no quota as they are.
    :param gated: pods carry the gate from the creation of the job on, and nothing is written into the job at start.
    :param together: pods of a set are released when all of them are there.
    :param elastic: the number of pods may change while the job runs.
    :param shape: code that knows how pods are told, for kinds without pod templates; see :mod:`.shapes`.
    :param needs: further resources (``plural.group``) that the shape reads.
    :param crd: whether the kind comes with a CRD.
    """

    resource: Resource
    pod_sets: tuple[PodSetRule, ...]
    suspend: Path = ()
    held_by_pods: str = ""
    finished: tuple[Ending, ...] = ()
    active: tuple[Test, ...] = ()
    ready: tuple[Test, ...] = ()
    ready_pods: tuple[Path, ...] = ()
    priority: tuple[Path, ...] = ()
    queue: tuple[Path, ...] = ()
    skip: tuple[Test, ...] = ()
    hold: tuple[Test, ...] = ()
    gated: bool = False
    together: bool = False
    elastic: bool = False
    shape: str = ""
    needs: tuple[Resource, ...] = ()
    crd: bool = True
    origin: str = "shipped"
    """Where it was declared: ``shipped`` or the ConfigMap's key."""

    @property
    def name(self) -> str:
        """``jobset.x-k8s.io/v1alpha2 JobSet``."""
        return f"{self.resource.api_version} {self.resource.kind}"
