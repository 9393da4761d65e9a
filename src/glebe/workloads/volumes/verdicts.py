"""What is to be done about a claim or a volume, seen alone with what it names. Pure.

The rules are those of upstream's persistent volume controller: binding is a pair of references, ``claimRef`` in the
volume and ``volumeName`` in the claim; the volume's is written first, so that of two claims that want one volume one
wins; the claim is bound when both agree.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from typing import Final

from glebe.kube.events import NORMAL, WARNING
from glebe.kube.objects import Object, annotations_of
from glebe.kube.storage import (
    BIND_COMPLETED,
    BOUND_BY_CONTROLLER,
    LOCAL_PATH,
    NO_PROVISIONER,
    PROVISIONED_BY,
    SELECTED_NODE,
    class_of,
    has_class,
    is_claimed_by,
    waits,
)
from glebe.workloads.volumes import matching

PENDING: Final = "Pending"
LOST: Final = "Lost"


@dataclass(frozen=True, slots=True)
class Event:
    """To be recorded; ``volume``: about the volume rather than the claim."""

    type: str
    reason: str
    message: str


@dataclass(frozen=True, slots=True)
class ClaimVerdict:
    """At most one of ``bind``, ``phase``, ``assign`` and ``provision`` is set."""

    bind: Object | None = None
    phase: str = ""
    assign: str = ""  # the default class
    provision: Object | None = None  # the class by which a volume is to be made
    event: Event | None = None
    again: bool = False  # it cannot be right as it is: look again later


@dataclass(frozen=True, slots=True)
class Sight:
    """What can be seen from a claim, all in its own cluster. ``free`` are volumes that this claim may get."""

    volume: Callable[[str], Object | None]
    storage_class: Callable[[str], Object | None]
    free: Callable[[], Iterable[Object]]
    default: Callable[[], Object | None]
    waiting_pods: Callable[[], Sequence[str]]


def judge_claim(claim: Object, sight: Sight) -> ClaimVerdict:
    """What the claim needs."""
    if BIND_COMPLETED in annotations_of(claim):
        return _bound_once(claim, sight)
    name = (claim.get("spec") or {}).get("volumeName") or ""
    return _named(claim, name, sight) if name else _unbound(claim, sight)


def _bound_once(claim: Object, sight: Sight) -> ClaimVerdict:
    name = (claim.get("spec") or {}).get("volumeName") or ""
    if not name:
        text = "Bound claim has lost reference to PersistentVolume. Data on the volume is lost!"
        return ClaimVerdict(phase=LOST, event=Event(WARNING, "ClaimLost", text))
    volume = sight.volume(name)
    if volume is None:
        text = "Bound claim has lost its PersistentVolume. Data on the volume is lost!"
        return ClaimVerdict(phase=LOST, event=Event(WARNING, "ClaimLost", text))
    ref = (volume.get("spec") or {}).get("claimRef")
    if not ref or ref.get("uid") == claim["metadata"]["uid"]:
        return ClaimVerdict(bind=volume)
    text = "Two claims are bound to the same volume, this one is bound incorrectly"
    return ClaimVerdict(phase=LOST, event=Event(WARNING, "ClaimMisbound", text))


def _named(claim: Object, name: str, sight: Sight) -> ClaimVerdict:
    volume = sight.volume(name)
    if volume is None:
        return ClaimVerdict(phase=PENDING)
    if is_claimed_by(volume, claim):
        return ClaimVerdict(bind=volume)
    if not (volume.get("spec") or {}).get("claimRef"):
        why = matching.mismatch(claim, volume)
        if not why:
            return ClaimVerdict(bind=volume)
        text = f'Cannot bind to requested volume "{name}": {why}'
        return ClaimVerdict(phase=PENDING, event=Event(WARNING, "VolumeMismatch", text))
    event = Event(WARNING, "FailedBinding", f'volume "{name}" already bound to a different claim.')
    if BOUND_BY_CONTROLLER in annotations_of(claim):
        return ClaimVerdict(event=event, again=True)
    return ClaimVerdict(phase=PENDING, event=event)


def _unbound(claim: Object, sight: Sight) -> ClaimVerdict:
    name = class_of(claim)
    storage_class = sight.storage_class(name) if name else None
    delayed = waits(storage_class)
    volume = matching.best(claim, sight.free(), delayed=delayed)
    if volume is not None:
        return ClaimVerdict(bind=volume)
    if not has_class(claim) and (default := sight.default()) is not None:
        return ClaimVerdict(assign=default["metadata"]["name"])
    if delayed and SELECTED_NODE not in annotations_of(claim):
        return ClaimVerdict(phase=PENDING, event=_waiting(sight.waiting_pods()))
    if not name:
        text = "no persistent volumes available for this claim and no storage class is set"
        return ClaimVerdict(phase=PENDING, event=Event(NORMAL, "FailedBinding", text))
    if storage_class is None:
        text = f'storageclass.storage.k8s.io "{name}" not found'
        return ClaimVerdict(phase=PENDING, event=Event(WARNING, "ProvisioningFailed", text))
    if str(storage_class.get("provisioner", "")).startswith("kubernetes.io/"):
        wanted = storage_class["provisioner"]
        text = "no volume plugin matched name: " + wanted if wanted == NO_PROVISIONER else "no volume plugin matched"
        return ClaimVerdict(phase=PENDING, event=Event(WARNING, "ProvisioningFailed", text))
    return ClaimVerdict(phase=PENDING, provision=storage_class)


def _waiting(pods: Sequence[str]) -> Event:
    if not pods:
        return Event(NORMAL, "WaitForFirstConsumer", "waiting for first consumer to be created before binding")
    word = "pods" if len(pods) > 1 else "pod"
    return Event(NORMAL, "WaitForPodScheduled", f"waiting for {word} {','.join(pods)} to be scheduled")


# --- volumes


@dataclass(frozen=True, slots=True)
class VolumeVerdict:
    """What the volume needs. ``tell_claim``: its claim is to be looked at."""

    phase: str = ""
    message: str = ""
    unbind: bool = False
    delete: bool = False  # there is nothing behind it that somebody else would have to remove
    tell_claim: bool = False
    event: Event | None = None


def judge_volume(volume: Object, claim: Object | None, *, simulated: bool) -> VolumeVerdict:
    """``claim`` is the one that the volume refers to, if it exists and is the very one (uid).

    :param simulated: behind the volume there is nothing.
    """
    spec = volume.get("spec") or {}
    ref = spec.get("claimRef")
    if not ref or not ref.get("uid"):
        return VolumeVerdict(phase="Available")
    if claim is None:
        return _released(volume, simulated)
    name = (claim.get("spec") or {}).get("volumeName") or ""
    if not name:
        return VolumeVerdict(tell_claim=True)
    if name == volume["metadata"]["name"]:
        return VolumeVerdict(phase="Bound")
    if PROVISIONED_BY in annotations_of(volume) and spec.get("persistentVolumeReclaimPolicy") == "Delete":
        return _released(volume, simulated)  # made for a claim that got another one
    return VolumeVerdict(unbind=True)


def _released(volume: Object, simulated: bool) -> VolumeVerdict:
    policy = (volume.get("spec") or {}).get("persistentVolumeReclaimPolicy") or "Retain"
    if (volume.get("status") or {}).get("phase") not in ("Released", "Failed"):
        return VolumeVerdict(phase="Released")
    if policy == "Retain":
        return VolumeVerdict()
    if policy == "Recycle":
        return _failed(volume, "VolumeFailedRecycle", "No recycler plugin found for the volume!")
    if policy != "Delete":
        text = "Volume has unrecognized PersistentVolumeReclaimPolicy"
        return _failed(volume, "VolumeUnknownReclaimPolicy", text)
    maker = annotations_of(volume).get(PROVISIONED_BY, "")
    if maker == LOCAL_PATH and simulated:
        return VolumeVerdict(delete=True)
    if maker and not maker.startswith("kubernetes.io/"):
        return VolumeVerdict()  # whoever made it removes it
    return _failed(volume, "VolumeFailedDelete", _undeletable(volume))


def _undeletable(volume: Object) -> str:
    """Upstream's words. It would remove hostPaths below /tmp of the machine that it runs on; nobody does that here."""
    path = ((volume.get("spec") or {}).get("hostPath") or {}).get("path", "")
    if path and not path.startswith("/tmp/"):
        return f"host_path deleter only supports /tmp/.+ but received provided {path}"
    name = volume["metadata"]["name"]
    return f'error getting deleter volume plugin for volume "{name}": no deletable volume plugin matched'


def _failed(volume: Object, reason: str, message: str) -> VolumeVerdict:
    if (volume.get("status") or {}).get("phase") == "Failed":
        return VolumeVerdict()
    return VolumeVerdict(phase="Failed", message=message, event=Event(WARNING, reason, message))
