"""New sizes during a rolling update."""

from __future__ import annotations

from collections.abc import Sequence

from glebe.kube.objects import Object
from glebe.workloads.deployment.sets import age_rank, available, name_of, size, total
from glebe.workloads.deployment.strategy import is_rolling, max_surge, max_unavailable, wanted


def new_size(deployment: Object, new: int, others: Sequence[Object]) -> int:
    """How large the present version's set may be now.

    :param new: how large it is.
    """
    count = wanted(deployment)
    if not is_rolling(deployment) or new > count:
        return count
    room = count + max_surge(deployment) - new - total(others)
    return new + min(room, count - new) if room > 0 else new


def smaller(deployment: Object, new: Object, old: Sequence[Object]) -> dict[str, int]:
    """Sizes of old sets that can shrink now, by name.

    Replicas that are not available go first, of the oldest set first: they serve nobody. Then available ones, as far
    as enough of all sets remain.
    """
    minimum = wanted(deployment) - max_unavailable(deployment)
    budget = total(old) + size(new) - minimum - max(0, size(new) - available(new))
    if budget <= 0:
        return {}
    sizes = {name_of(s): size(s) for s in old}
    ordered = sorted(old, key=age_rank)
    for one in ordered:
        idle = min(budget, size(one) - available(one))
        sizes[name_of(one)] -= idle
        budget -= idle
    spare = min(budget, sum(available(s) for s in (*old, new)) - minimum)
    for one in ordered:
        go = min(sizes[name_of(one)], max(spare, 0))
        sizes[name_of(one)] -= go
        spare -= go
    return {name_of(s): sizes[name_of(s)] for s in ordered if sizes[name_of(s)] != size(s)}
