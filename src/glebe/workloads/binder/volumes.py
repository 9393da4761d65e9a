"""Volumes as the binder's plug-in: which nodes a pod's claims allow, and what they get there.

A claim that is bound demands its volume's nodes. One that waits for its first consumer gets, on the node that the pod
is given, the smallest volume that suits and is nobody's, or one that is made there: the node is written to the claim
(``volume.kubernetes.io/selected-node``), or the claim to the volume, and the pod is bound when all its claims are.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any, ClassVar, Final

import numpy as np

from glebe.kube.objects import Object, annotations_of, controller_of, is_deleting
from glebe.kube.resources import Resource
from glebe.kube.storage import BIND_COMPLETED, CLASSES, SELECTED_NODE, VOLUMES, affine, class_of, requested, waits
from glebe.workloads.binder.needs import Needs
from glebe.workloads.binder.plugins import Bools, CannotPrepare, Quiet, Refusal, Surroundings
from glebe.workloads.binder.volumes_ledger import Decision, Ledger
from glebe.workloads.binder.volumes_rows import Rows, single_host
from glebe.workloads.volumes import changes
from glebe.workloads.volumes.matching import best

CLAIMS: Final = Resource("", "v1", "persistentvolumeclaims", "PersistentVolumeClaim")
NO_VOLUME: Final = "node(s) unavailable due to one or more pvc(s) bound to non-existent pv(s)"
ELSEWHERE: Final = "node(s) didn't match PersistentVolume's node affinity"
NOT_BOUND: Final = "node(s) didn't find available persistent volumes to bind"
OTHER_ZONE: Final = "node(s) had no available volume zone"
IN_USE: Final = (
    "node(s) unavailable due to PersistentVolumeClaim with ReadWriteOncePod access mode already in-use by another pod"
)


class Storage(Quiet):
    """The volumes of one logical cluster."""

    name = "VolumeBinding"
    watches: ClassVar[tuple[Resource, ...]] = (CLAIMS, VOLUMES, CLASSES)

    def __init__(self, around: Surroundings) -> None:
        self._around = around
        self._rows = Rows(around.fleet)
        self._ledger = Ledger()
        for volume in around.every(VOLUMES):
            self._ledger.take_in(None, volume)

    def claim(self, path: str) -> Object | None:
        return self._around.find(CLAIMS, path)

    def volume(self, name: str) -> Object | None:
        return self._around.find(VOLUMES, name)

    def storage_class(self, name: str) -> Object | None:
        return self._around.find(CLASSES, name)

    # --- Plugin: what happens

    def concerns(self, needs: Needs) -> bool:
        return bool(needs.claims)

    def changed(self, resource: Resource, old: Object | None, new: Object | None) -> None:
        if resource == VOLUMES:
            self._ledger.take_in(old, new)

    def helps(self, needs: Needs, resource: Resource, old: Object | None, new: Object | None) -> bool:
        obj = new or old or {}
        meta = obj["metadata"]
        if resource == CLAIMS:
            return meta.get("namespace") == needs.namespace and any(meta["name"] == name for name, _ in needs.claims)
        if resource == CLASSES or new is None:
            return True
        ref = (new.get("spec") or {}).get("claimRef")
        if ref:
            return ref.get("namespace") == needs.namespace and any(ref.get("name") == n for n, _ in needs.claims)
        return (new.get("status") or {}).get("phase") == "Available"

    # --- Plugin: one decision

    def objection(self, needs: Needs) -> str | None:
        """Why no node will do at present."""
        for name, ephemeral in needs.claims:
            claim = self.claim(f"{needs.namespace}/{name}")
            if claim is None:
                if ephemeral:
                    return f'waiting for ephemeral volume controller to create the persistentvolumeclaim "{name}"'
                return f'persistentvolumeclaim "{name}" not found'
            volume = (claim.get("spec") or {}).get("volumeName") or ""
            if (claim.get("status") or {}).get("phase") == "Lost":
                return f'persistentvolumeclaim "{name}" bound to non-existent persistentvolume "{volume}"'
            if is_deleting(claim):
                return f'persistentvolumeclaim "{name}" is being deleted'
            if ephemeral and (controller_of(claim) or {}).get("kind") != "Pod":
                return f"PVC {needs.namespace}/{name} was not created for pod {needs.namespace}/{_pod_of(name)}"
            if not _is_bound(claim) and (volume or not waits(self._class(claim))):
                return "pod has unbound immediate PersistentVolumeClaims"
        return None

    def refusals(self, needs: Needs, among: Bools) -> Iterator[list[Refusal]]:
        rows = len(self._around.fleet.names)
        taken = any(self._around.fleet.claims[claim] > 0 for claim in self.exclusive(needs))
        yield [Refusal(np.full(rows, taken), IN_USE, "VolumeRestrictions")]
        refused: dict[str, Bools] = {}
        left = np.ones(rows, np.bool_)

        def refuse(where: Bools, reason: str) -> None:
            nonlocal left
            hit = where & left
            if hit.any():
                refused[reason] = refused[reason] | hit if reason in refused else hit
                left = left & ~hit

        waiting: list[tuple[str, Object]] = []
        for name, _ in needs.claims:
            path = f"{needs.namespace}/{name}"
            claim = self.claim(path) or {"metadata": {"name": name}}
            decided = self._ledger.decided(path)
            volume_name = (claim.get("spec") or {}).get("volumeName") if _is_bound(claim) else (decided or ("", ""))[1]
            if not volume_name:
                waiting.append((path, claim))
                continue
            volume = self.volume(volume_name)
            if volume is None:
                refuse(np.ones(rows, np.bool_), NO_VOLUME)
                continue
            refuse(~self._rows.near(volume), ELSEWHERE)
            if (zone := self._rows.in_zone(volume)) is not None:
                refuse(~zone, OTHER_ZONE)
        if waiting:
            refuse(~self._bindable(waiting, among & left), NOT_BOUND)
        yield [Refusal(refused[reason], reason, "VolumeBinding", False) for reason in sorted(refused)]

    def reserve(self, uid: str, needs: Needs, node: str) -> str | None:
        if (text := self.objection(needs)) is not None:
            return text
        waiting = []
        for name, _ in needs.claims:
            path = f"{needs.namespace}/{name}"
            claim = self.claim(path)
            if claim is not None and not _is_bound(claim):
                waiting.append((path, claim))
        found = self._decide(waiting, node)
        if found is None:
            return NOT_BOUND
        self._ledger.decisions[uid] = found
        return None

    def unreserve(self, uid: str) -> None:
        self._ledger.decisions.pop(uid, None)

    def bound(self, uid: str) -> None:
        self._ledger.decisions.pop(uid, None)

    async def prepare(self, pod: Object, node: str) -> bool:
        decision = self._ledger.decisions.get(pod["metadata"]["uid"])
        if decision is None:
            raise CannotPrepare("nothing is reserved for the pod's volumes")
        for path, name in decision.static.items():
            await self._promise(path, name)
        for path in decision.made:
            await self._choose_node(path, decision)
        return all(self._has_arrived(path, node) for path in (*decision.static, *decision.made))

    # --- finding volumes

    def _class(self, claim: Object) -> Object | None:
        name = class_of(claim)
        return self.storage_class(name) if name else None

    def _bindable(self, waiting: list[tuple[str, Object]], among: Bools) -> Bools:
        """Rows on which all these claims can get a volume."""
        found = np.ones(len(among), np.bool_)
        static = []
        for path, claim in waiting:
            chosen = self._chosen_node(path, claim)
            makeable = self._rows.provisionable(self._class(claim))
            if chosen:
                found &= self._rows.only(chosen) & makeable
            elif self._ledger.reserved(path) or any(True for _ in self._ledger.free(class_of(claim))):
                static.append((path, claim, makeable))
            else:
                found &= makeable
        if all(makeable.all() for _, _, makeable in static):
            return found  # whatever cannot be found can be made
        for row in np.flatnonzero(found & among):
            found[row] = self._decide(waiting, self._around.fleet.names[row]) is not None
        return found

    def _chosen_node(self, path: str, claim: Object) -> str:
        decided = self._ledger.decided(path)
        return annotations_of(claim).get(SELECTED_NODE, "") or (decided[0] if decided and not decided[1] else "")

    def _decide(self, waiting: list[tuple[str, Object]], node: str) -> Decision | None:
        """What the claims get on ``node``, the smallest first; ``None``: one gets nothing."""
        found = Decision(node)
        host = self._around.fleet.node(node)
        if host is None:
            return None
        taken = self._ledger.taken() if waiting else set()
        for path, claim in sorted(waiting, key=lambda each: requested(each[1])):
            decided = self._ledger.decided(path)
            if decided is not None:  # another pod of the same claim was first
                if decided[1]:
                    found.static[path] = decided[1]
                    continue
                if decided[0] != node:
                    return None
            elif not annotations_of(claim).get(SELECTED_NODE):
                volume = best(claim, self._candidates(path, claim, host), delayed=True, node=host, taken=taken)
                if volume is not None:
                    found.static[path] = volume["metadata"]["name"]
                    taken.add(found.static[path])
                    continue
            elif annotations_of(claim)[SELECTED_NODE] != node:
                return None
            row = self._around.fleet.row(node)
            if row is None or not self._rows.provisionable(self._class(claim))[row]:
                return None
            found.made.append(path)
        return found

    def _candidates(self, path: str, claim: Object, node: Object) -> Iterator[Object]:
        for name in self._ledger.reserved(path):
            if (volume := self.volume(name)) is not None:
                yield volume
        host = (node["metadata"].get("labels") or {}).get("kubernetes.io/hostname")
        for volume in self._ledger.free(class_of(claim)):
            required = ((volume.get("spec") or {}).get("nodeAffinity") or {}).get("required")
            if required is None or (only := single_host(required)) is None or only == host:
                yield volume

    # --- writing

    async def _promise(self, path: str, name: str) -> None:
        """Write the claim to the volume."""
        claim, volume = self.claim(path), self.volume(name)
        if claim is None or volume is None:
            raise CannotPrepare(f'claim "{path}" or persistentvolume "{name}" is gone')
        ref = (volume.get("spec") or {}).get("claimRef") or {}
        if ref.get("uid") and ref["uid"] != claim["metadata"]["uid"]:
            raise CannotPrepare(f'persistentvolume "{name}" was bound to another claim')
        changed = changes.claimed(volume, claim)
        if changed is not None:
            await self._around.client.update(VOLUMES, changed)

    async def _choose_node(self, path: str, decision: Decision) -> None:
        """Write the node to the claim; a claim that lost it again has been refused by its provisioner."""
        claim = self.claim(path)
        if claim is None:
            raise CannotPrepare(f'persistentvolumeclaim "{path}" not found')
        chosen = annotations_of(claim).get(SELECTED_NODE, "")
        if chosen == decision.node or _is_bound(claim):
            return
        version, told = claim["metadata"].get("resourceVersion", ""), decision.told.get(path)
        if chosen or (told is not None and int(version or 0) > int(told)):
            raise CannotPrepare(f'provisioning failed for PVC "{path.partition("/")[2]}"')
        if told is None:
            written = await self._around.client.update(CLAIMS, changes.annotated(claim, {SELECTED_NODE: decision.node}))
            decision.told[path] = written["metadata"]["resourceVersion"]

    def _has_arrived(self, path: str, node: str) -> bool:
        """Whether the claim is bound; its volume must be one that the node can have."""
        claim, host = self.claim(path), self._around.fleet.node(node)
        if claim is None or host is None:
            raise CannotPrepare(f'node "{node}" or claim "{path}" is gone')
        if not _is_bound(claim):
            return False
        volume = self.volume(claim["spec"]["volumeName"])
        if volume is not None and not affine(volume, host):
            name = volume["metadata"]["name"]
            raise CannotPrepare(
                f'pv "{name}" node affinity doesn\'t match node "{node}": no matching NodeSelectorTerms'
            )
        return volume is not None

    def exclusive(self, needs: Needs) -> list[str]:
        """Claims (``namespace/name``) that one pod may have alone."""
        found = []
        for name, _ in needs.claims:
            key = f"{needs.namespace}/{name}"
            if "ReadWriteOncePod" in (((self.claim(key) or {}).get("spec") or {}).get("accessModes") or ()):
                found.append(key)
        return found


def _pod_of(claim: str) -> str:
    return claim.rsplit("-", 1)[0]


def _is_bound(claim: Mapping[str, Any]) -> bool:
    if not (claim.get("spec") or {}).get("volumeName"):
        return False
    marked = ((claim.get("metadata") or {}).get("annotations") or {}).get(BIND_COMPLETED)
    return marked is not None or (claim.get("status") or {}).get("phase") == "Bound"
