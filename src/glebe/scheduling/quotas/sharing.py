"""Which trees of cohorts share fairly: as the configuration says, unless the root cohort says otherwise."""

from __future__ import annotations

from glebe.scheduling.model import FairSharing
from glebe.scheduling.world import World

DEFAULT = FairSharing()


def fair_sharing(world: World, node: int) -> FairSharing | None:
    """How the tree of ``node`` shares; ``None``: it does not, and preemption and order are classical."""
    configured = world.snapshot.fair_sharing
    switched = world.tree.switch[world.tree.top[node]]
    if switched is None:
        return configured
    return (configured or DEFAULT) if switched else None
