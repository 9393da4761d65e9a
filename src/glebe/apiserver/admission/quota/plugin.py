"""ResourceQuota: refuses what a quota does not allow (``apiserver/pkg/admission/plugin/resourcequota``)."""

from __future__ import annotations

from glebe.apiserver.admission.base import AdmissionAttributes, BuiltinPlugin
from glebe.apiserver.admission.quota.amounts import Amounts, limits, listed
from glebe.apiserver.admission.quota.ledger import Quota, Reservation
from glebe.apiserver.admission.quota.status import StatusWriter
from glebe.apiserver.admission.quota.usage import Evaluator, evaluator_of
from glebe.apiserver.store import Store
from glebe.kube.clock import Clock
from glebe.kube.inprocess import InProcessTransport

_ATTEMPTS = 50


class ResourceQuota(BuiltinPlugin):
    """The last of all plugins: what it grants is counted until the request is over.

    Check and reservation are one step without a pause, so that a crowd of writes never gets more than there is. When
    others write to the same store, the reservation is also written into the quota's status, under its revision, before
    the object is stored.
    """

    name = "ResourceQuota"

    def __init__(self, store: Store, clock: Clock, transport: InProcessTransport) -> None:
        self._store = store
        self._clock = clock
        self.status = StatusWriter(store, clock, transport)
        self.ledger = self.status.ledger

    async def validate(self, a: AdmissionAttributes) -> None:
        quotas = self.ledger.of(a.cluster, a.namespace)
        if not quotas or a.obj is None:
            return
        evaluator = evaluator_of(a.info.group_resource)
        if evaluator is None or not evaluator.handles(a):
            return
        for _ in range(_ATTEMPTS):
            promised = self._check(a, evaluator, quotas)
            if not promised or a.dry_run:
                return
            key = (a.info.group_resource, a.name)
            granted = [(quota, Reservation(key, amounts)) for quota, amounts in promised]
            for quota, promise in granted:
                quota.reserved.append(promise)

            def give_back(stored: bool, granted: list[tuple[Quota, Reservation]] = granted) -> None:
                for quota, promise in granted:
                    quota.release(promise)

            if not self._store.lags or await self.status.claim([quota.address for quota, _ in granted]):
                a.afterwards.append(give_back)
                return
            give_back(False)
        raise a.refusal("the quotas of the namespace change too fast; try again")

    def _check(
        self, a: AdmissionAttributes, evaluator: Evaluator, quotas: dict[str, Quota]
    ) -> list[tuple[Quota, Amounts]]:
        """What the write takes from which quota; refuses when one has not enough."""
        obj = a.obj
        assert obj is not None
        interested = [quotas[name] for name in sorted(quotas) if quotas[name].covers(evaluator, obj)]
        for quota in interested:
            lacking = evaluator.missing(obj, quota.names)
            if lacking:
                raise a.refusal(f"failed quota: {quota.address.name}: must specify {lacking}")
        if not interested:
            return []
        now = self._clock.now()
        usage = evaluator.usage(obj, now)
        negative = sorted(name for name, amount in usage.items() if amount < 0)
        if negative:
            raise a.refusal(f"quota usage is negative for resource(s): {','.join(negative)}")
        delta = usage
        if a.operation == "UPDATE" and a.old is not None:
            before = evaluator.usage(a.old, now)
            delta = {name: amount - before.get(name, 0) for name, amount in usage.items()}
        out = []
        for quota in interested:
            new_here = delta is usage or a.old is None or not quota.covers(evaluator, a.old)
            amounts = {n: x for n, x in (usage if new_here else delta).items() if x > 0 and n in quota.names}
            if not amounts:
                continue
            if a.subresource != "status":
                self._fits(a, quota, amounts)
            out.append((quota, amounts))
        return out

    def _fits(self, a: AdmissionAttributes, quota: Quota, amounts: Amounts) -> None:
        taken = self.status.taken(self.ledger.current(quota))
        limit = quota.limits()
        over = [n for n, x in amounts.items() if taken.get(n, 0) + x > limit[n]]
        if over:
            requested, used = listed(amounts, over, quota.hard), listed(taken, over, quota.hard)
            raise a.refusal(
                f"exceeded quota: {quota.address.name}, requested: {requested}, used: {used}, "
                f"limited: {limits(over, quota.hard)}"
            )
