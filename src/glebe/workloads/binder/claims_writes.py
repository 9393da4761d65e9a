"""Writes allocations and consumers into claims, before their pod is bound."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any

from glebe.kube.client import Client
from glebe.kube.clock import Env, format_time
from glebe.kube.errors import ApiError, is_conflict, is_not_found
from glebe.kube.objects import Object, get_condition, is_deleting
from glebe.workloads.binder.claims_ledger import Ledger
from glebe.workloads.binder.plugins import CannotPrepare
from glebe.workloads.claims import names
from glebe.workloads.claims.names import CLAIMS, FINALIZER, allocation_of
from glebe.workloads.claims.taken import results_of

_TRIES = 5


class Writer:
    """All writes bear repetition: what is there already is not written again."""

    def __init__(self, client: Client, env: Env, ledger: Ledger) -> None:
        self._client = client
        self._env = env
        self._ledger = ledger

    async def write(self, pod: Object, claims: Sequence[str]) -> bool:
        """Allocate and reserve the claims (by name) for the pod; whether their devices are ready.

        :raises CannotPrepare: one cannot be had any more, or a device failed to get ready.
        """
        namespace, done = pod["metadata"]["namespace"], []
        for name in claims:
            claim = self._ledger.claim(f"{namespace}/{name}")
            if claim is None:
                raise CannotPrepare(f'resourceclaim.resource.k8s.io "{name}" not found')
            if not names.is_reserved(claim, pod["metadata"]["uid"]) or allocation_of(claim) is None:
                claim = await self._reserve(claim, pod)
            done.append(claim)
        return all(_is_ready(claim) for claim in done)

    async def _reserve(self, claim: Object, pod: Object) -> Object:
        for _ in range(_TRIES):
            try:
                return await self._reserve_once(claim, pod)
            except ApiError as error:
                if is_not_found(error):
                    raise CannotPrepare(f"{error}") from None
                if not is_conflict(error):
                    raise
            meta = claim["metadata"]
            claim = await self._client.get(CLAIMS, meta["name"], meta["namespace"])
            if claim["metadata"]["uid"] != meta["uid"]:
                raise CannotPrepare(f"claim {_path(claim)} got deleted in the meantime")
        raise CannotPrepare(f"claim {_path(claim)} changes all the time")

    async def _reserve_once(self, claim: Object, pod: Object) -> Object:
        """As far as it is not done: the finalizer, then the allocation with the consumer."""
        allocation = self._ledger.pending(claim["metadata"]["uid"])
        if is_deleting(claim):
            raise CannotPrepare(f"claim {_path(claim)} got deleted in the meantime")
        if allocation_of(claim) is not None:
            if allocation is not None and _devices(allocation_of(claim)) != _devices(allocation):
                raise CannotPrepare(f"claim {_path(claim)} got allocated elsewhere in the meantime")
            if names.is_reserved(claim, pod["metadata"]["uid"]):
                self._ledger.wrote(claim)  # the answer to an earlier write was lost
                return claim
        elif allocation is None:
            raise CannotPrepare(f"claim {_path(claim)} got deallocated elsewhere in the meantime")
        else:
            claim = await self._protect(claim)
        status: dict[str, Any] = {"reservedFor": [*names.reserved_for(claim), names.consumer(pod)]}
        if allocation_of(claim) is None and allocation is not None:
            stamped = {**allocation, "allocationTimestamp": format_time(self._env.clock.now())}
            status["allocation"] = stamped
        written = await self._patch(claim, {"status": status}, subresource="status")
        self._ledger.wrote(written)
        return written

    async def _protect(self, claim: Object) -> Object:
        finalizers = claim["metadata"].get("finalizers") or []
        if FINALIZER in finalizers:
            return claim
        return await self._patch(claim, {"metadata": {"finalizers": [*finalizers, FINALIZER]}})

    async def _patch(self, claim: Object, patch: dict[str, Any], **options: Any) -> Object:
        meta = claim["metadata"]
        lock = {"resourceVersion": meta["resourceVersion"], "uid": meta["uid"]}
        body = {**patch, "metadata": {**patch.get("metadata", {}), **lock}}
        return await self._client.patch(CLAIMS, meta["name"], body, meta["namespace"], **options)

    async def free(self, claim: Object) -> None:
        """Take its devices from a claim that nobody uses."""
        status = {"allocation": None, "reservedFor": None, "devices": None}
        try:
            self._ledger.wrote(await self._patch(claim, {"status": status}, subresource="status"))
        except ApiError as error:
            if not is_conflict(error) and not is_not_found(error):
                raise


def _is_ready(claim: Object) -> bool:
    """Whether all devices have the conditions that their driver demands before a pod is bound (KEP-5007).

    :raises CannotPrepare: one says that it failed.
    """
    if (why := failure(claim)) is not None:
        raise CannotPrepare(why)
    return all(
        (get_condition(state, kind) or {}).get("status") == "True"
        for result, state in _states(claim)
        for kind in result["bindingConditions"]
    )


def failure(claim: Object) -> str | None:
    """What a device of the claim says about why no pod can be bound with it."""
    for result, state in _states(claim):
        for kind in result.get("bindingFailureConditions") or ():
            failed = get_condition(state, kind)
            if failed is not None and failed.get("status") == "True":
                reason, message = failed.get("reason", ""), failed.get("message", "")
                return f'device binding failed: claim={claim["metadata"]["name"]}, reason={reason}, message="{message}"'
    return None


def _states(claim: Object) -> Iterator[tuple[dict[str, Any], Object]]:
    """Allocated devices that have to get ready, with what is reported of them."""
    reported = (claim.get("status") or {}).get("devices") or ()
    for result in results_of(allocation_of(claim)):
        if result.get("bindingConditions"):
            same = [d for d in reported if all(d.get(k) == result[k] for k in ("driver", "pool", "device"))]
            yield dict(result), {"status": {"conditions": same[0].get("conditions") if same else []}}


def _devices(allocation: dict[str, Any] | None) -> list[tuple[str, ...]]:
    keys = ("request", "driver", "pool", "device", "shareID")
    return [tuple(str(result.get(key, "")) for key in keys) for result in results_of(allocation)]


def _path(claim: Object) -> str:
    return f"{claim['metadata']['namespace']}/{claim['metadata']['name']}"
