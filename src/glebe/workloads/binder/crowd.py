"""Which pods stand on which row, and quick answers to "how many of those are on each row".

Answers are kept and follow every change: a question that is asked for each pod of a Deployment costs one look-up.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Generic, TypeVar

import numpy as np
import numpy.typing as npt

from glebe.kube.selectors import IN
from glebe.workloads.binder.relations import Labels, Relations, Term, Who

Ints = npt.NDArray[np.int64]
Question = tuple[Who, ...]
"""Pods that match all of these."""
EVERYWHERE = "*"
_KEPT = 8_000_000  # bytes of answers
_HARD = 1
"""What another pod's required affinity to a pod is worth when that pod is placed (``hardPodAffinityWeight``)."""
_Key = TypeVar("_Key")


@dataclass(frozen=True, slots=True)
class Member:
    """One pod on a row."""

    row: int
    namespace: str
    labels: Labels
    deleting: bool
    relations: Relations


class _ByLabels(Generic[_Key]):
    """Vectors by something that names pods, found by the pods that it can mean: each stands under its namespaces and
    the values of one label that it requires."""

    def __init__(self) -> None:
        self.vectors: dict[_Key, Ints] = {}
        self._places: dict[tuple[str, str, str], dict[_Key, Who]] = {}

    def put(self, key: _Key, who: Who, vector: Ints) -> None:
        self.vectors[key] = vector
        for place in _places(who):
            self._places.setdefault(place, {})[key] = who

    def drop(self, key: _Key, who: Who) -> None:
        del self.vectors[key]
        for place in _places(who):
            del self._places[place][key]
            if not self._places[place]:
                del self._places[place]

    def clear(self) -> None:
        self.vectors.clear()
        self._places.clear()

    def about(self, namespace: str, labels: Labels) -> list[tuple[_Key, Who]]:
        """Those that may mean such a pod; ask them."""
        found: list[tuple[_Key, Who]] = []
        for space in (namespace, EVERYWHERE):
            for key, value in (*labels.items(), ("", "")):
                if there := self._places.get((space, key, value)):
                    found.extend(there.items())
        return found


def _places(who: Who) -> list[tuple[str, str, str]]:
    spaces = [EVERYWHERE] if who.everywhere is not None else sorted(who.namespaces)
    for requirement in who.selector.requirements:
        if requirement.operator == IN:
            return [(space, requirement.key, value) for space in spaces for value in dict.fromkeys(requirement.values)]
    return [(space, "", "") for space in spaces]


class Crowd:
    """The pods that are on known nodes."""

    def __init__(self) -> None:
        self._members: dict[str, Member] = {}
        self._in: dict[str, dict[str, Member]] = {}
        self._answers: _ByLabels[Question] = _ByLabels()
        self._apart: _ByLabels[Term] = _ByLabels()
        self._liked: _ByLabels[tuple[Term, int]] = _ByLabels()
        self._namespaces: Mapping[str, Labels] = {}
        self._rows = 0

    def clear(self, rows: int) -> None:
        """Nobody is anywhere; there are ``rows`` rows."""
        self._members.clear()
        self._in.clear()
        for index in (self._answers, self._apart, self._liked):
            index.clear()
        self._rows = rows

    def set_namespaces(self, labels: Mapping[str, Labels]) -> None:
        """Labels of all namespaces; call again whenever they have changed."""
        self._namespaces = labels
        for question in [q for q in self._answers.vectors if q[0].everywhere is not None]:
            self._answers.drop(question, question[0])

    def labels_of(self, namespace: str) -> Labels:
        """Labels of a namespace; of one that nobody has changed since its cluster began, those that all have."""
        return self._namespaces.get(namespace) or {"kubernetes.io/metadata.name": namespace}

    def put(self, uid: str, member: Member) -> None:
        self._members[uid] = member
        self._in.setdefault(member.namespace, {})[uid] = member
        self._count(member, 1)

    def drop(self, uid: str) -> None:
        member = self._members.pop(uid, None)
        if member is not None:
            del self._in[member.namespace][uid]
            if not self._in[member.namespace]:
                del self._in[member.namespace]
            self._count(member, -1)

    def _count(self, member: Member, sign: int) -> None:
        for question, _ in self._answers.about(member.namespace, member.labels):
            if self._is_meant(question, member):
                self._answers.vectors[question][member.row] += sign
        relations = member.relations
        for term in relations.apart:
            self._add(self._apart, term, term.who, member.row, sign)
        for term in relations.near:
            self._add(self._liked, (term, _HARD), term.who, member.row, sign)
        for term, weight in relations.likes:
            self._add(self._liked, (term, weight), term.who, member.row, sign)

    def _add(self, index: _ByLabels[_Key], key: _Key, who: Who, row: int, sign: int) -> None:
        vector = index.vectors.get(key)
        if vector is None:
            vector = np.zeros(self._rows, np.int64)
            index.put(key, who, vector)
        vector[row] += sign
        if sign < 0 and not vector.any():
            index.drop(key, who)

    def _is_meant(self, question: Question, member: Member) -> bool:
        return all(
            not (who.living and member.deleting) and who.matches(member.namespace, member.labels, self.labels_of)
            for who in question
        )

    # --- reading

    def count(self, question: Question) -> Ints:
        """How many pods of each row are meant. Not to be changed by the caller."""
        vector = self._answers.vectors.get(question)
        if vector is None:
            vector = np.zeros(self._rows, np.int64)
            who = question[0]
            spaces = self._in if who.everywhere is not None else who.namespaces
            for namespace in spaces:
                for member in self._in.get(namespace, {}).values():
                    if self._is_meant(question, member):
                        vector[member.row] += 1
            while len(self._answers.vectors) * (self._rows + 32) * 8 > _KEPT:
                oldest = next(iter(self._answers.vectors))
                self._answers.drop(oldest, oldest[0])
            self._answers.put(question, who, vector)
        return vector

    def avoiding(self, namespace: str, labels: Labels) -> list[tuple[Term, Ints]]:
        """Required anti-affinity of those who are there to a pod like this, and how many on each row have it."""
        if not self._apart.vectors:
            return []
        return [
            (term, self._apart.vectors[term])
            for term, who in self._apart.about(namespace, labels)
            if who.matches(namespace, labels, self.labels_of)
        ]

    def liking(self, namespace: str, labels: Labels) -> list[tuple[Term, Ints]]:
        """Affinity of those who are there to a pod like this, weighted."""
        if not self._liked.vectors:
            return []
        return [
            (term, self._liked.vectors[term, weight] * weight)
            for (term, weight), who in self._liked.about(namespace, labels)
            if who.matches(namespace, labels, self.labels_of)
        ]

    @property
    def choosy(self) -> bool:
        """Whether somebody refuses company."""
        return bool(self._apart.vectors)
