"""Which of several volumes a claim gets. Pure.

Of those that suit, the one with the fewest access modes, then the smallest, then the first by name. A volume that is
reserved for the claim comes before all others.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable

from glebe.kube.objects import Object, is_deleting, labels_of
from glebe.kube.selectors import LabelSelector, SelectorError
from glebe.kube.storage import affine, capacity, class_of, is_claimed_by, mode_of, requested


def best(
    claim: Object,
    volumes: Iterable[Object],
    *,
    delayed: bool = False,
    node: Object | None = None,
    taken: Collection[str] = (),
) -> Object | None:
    """The volume for ``claim``, ``None`` when there is none.

    :param delayed: the claim waits for its first consumer: without a node only a volume reserved for it will do.
    :param node: only volumes that can be had on this node.
    :param taken: names of volumes that are spoken for.
    """
    size, mode = requested(claim), mode_of(claim)
    found: list[tuple[int, int, str, Object]] = []
    for volume in volumes:
        name = volume["metadata"]["name"]
        if name in taken or is_deleting(volume) or mode_of(volume) != mode or capacity(volume) < size:
            continue
        if _attributes(volume) != _attributes(claim):
            continue
        near = node is None or affine(volume, node)
        if (volume.get("spec") or {}).get("claimRef"):
            if is_claimed_by(volume, claim):
                return volume if near else None
        elif near and not (delayed and node is None) and is_free(volume) and suits(claim, volume):
            found.append((len(_modes(volume)), capacity(volume), name, volume))
    return min(found, key=lambda each: each[:3])[3] if found else None


def is_free(volume: Object) -> bool:
    return (volume.get("status") or {}).get("phase") == "Available"


def suits(claim: Object, volume: Object) -> bool:
    """Class, access modes and selector."""
    return class_of(volume) == class_of(claim) and _modes(claim) <= _modes(volume) and _selected(claim, volume)


def mismatch(claim: Object, volume: Object) -> str:
    """Why the very volume that a claim names will not do, ``""`` if it will."""
    if is_deleting(volume):
        return f'the volume is marked for deletion "{volume["metadata"]["name"]}"'
    if capacity(volume) < requested(claim):
        return "requested PV is too small"
    if class_of(volume) != class_of(claim):
        return "storageClassName does not match"
    if _attributes(volume) != _attributes(claim):
        return "volumeAttributesClassName does not match"
    if mode_of(volume) != mode_of(claim):
        return "incompatible volumeMode"
    return "" if _modes(claim) <= _modes(volume) else "incompatible accessMode"


def _modes(obj: Object) -> frozenset[str]:
    return frozenset((obj.get("spec") or {}).get("accessModes") or ())


def _attributes(obj: Object) -> str:
    return str((obj.get("spec") or {}).get("volumeAttributesClassName") or "")


def _selected(claim: Object, volume: Object) -> bool:
    selector = (claim.get("spec") or {}).get("selector")
    if selector is None:
        return True
    try:
        return LabelSelector.from_object(selector).matches(labels_of(volume))
    except SelectorError:
        return False
