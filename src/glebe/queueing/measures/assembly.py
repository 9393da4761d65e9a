"""All measures of one queue, hung into its caches."""

from __future__ import annotations

from collections.abc import Callable

from glebe.apiserver.metrics.families import Families
from glebe.kube import resources as r
from glebe.kube.clock import Env
from glebe.kube.informer import Informers
from glebe.kube.objects import Object, cluster_of
from glebe.queueing.measures.attempts import Attempts
from glebe.queueing.measures.indicators import Indicators
from glebe.queueing.measures.moments import Moments
from glebe.queueing.measures.standing import Standing
from glebe.queueing.round.planner import Planner
from glebe.queueing.telling.localshares import PastUse
from glebe.queueing.tenants.tenancy import HOST


class Measures:
    """What is counted outlives the part that is observed: :meth:`observe` may be called again after a restart.

    :param role: Kueue's label ``replica_role``: ``leader`` or ``standalone``.
    """

    def __init__(self, families: Families, role: str = "standalone") -> None:
        self.families = families
        self._role = role
        self._attempts = Attempts(families, role)
        self._moments = Moments(families, role)
        self.indicators = Indicators(families)

    def around(self, planner: Planner) -> Planner:
        return self._attempts.around(planner)

    def observe(
        self, informers: Informers, env: Env, cluster_queue: Callable[[Object], str], past: PastUse | None = None
    ) -> None:
        """Follow the caches of a queue that starts now.

        :param cluster_queue: of a workload that waits.
        :param past: what LocalQueues have used, where they take turns by it.
        """
        seen = self.indicators
        seen.follow(informers, env)
        Standing(self.families, informers, self._role, HOST, past)

        def change(old: Object | None, new: Object | None) -> None:
            if old is not None and new is not None:
                self._moments.see(old, new, cluster_queue(new), own=cluster_of(new) in ("", HOST))
                seen.see(old, new)

        informers.get(r.WORKLOADS).add_handler(change)
