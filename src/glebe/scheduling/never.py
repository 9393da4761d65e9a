"""What can never start, and why: judged on the fleet with every node back, nothing running and no quota in use."""

from __future__ import annotations

from dataclasses import dataclass

from glebe.scheduling import words
from glebe.scheduling.flavoring.flavors import Option, SetPlan
from glebe.scheduling.model import GPU, Outcome, Reason
from glebe.scheduling.placement import slices
from glebe.scheduling.placement.placement import Choice, placeable, total_need
from glebe.scheduling.placement.topology import Ask
from glebe.scheduling.quotas.quota import Need
from glebe.scheduling.world import Plan, World


@dataclass(frozen=True, slots=True)
class Why:
    """The explanation that all workloads of one plan share."""

    outcome: Outcome
    reason: Reason
    message: str
    remedy: str


def never(plan: Plan, world: World) -> Why:
    """Why a plan that is not ``possible`` is not."""
    for this in plan.sets:
        if not this.options:
            return _no_flavor(plan, this)
    needs = choices(plan)
    quotas = world.pristine.quotas
    if not any(quotas.fits(plan.node, need) for _, need in needs):
        return _over_quota(plan, needs, world)
    for this in plan.sets:
        if not any(placeable(this, o, world.pristine, world) for o in this.options):
            fitting = [o for o in this.options if quotas.fits(plan.node, o.need)] or list(this.options)
            return _too_large(this, fitting[0], world)
    return _capacity(
        "its pod sets do not fit on the fleet together, even when it is empty",
        "ask for fewer or smaller pods, or relax the topology request",
    )


def choices(plan: Plan) -> list[tuple[Choice, Need]]:
    """The choices that messages speak of: every option of a single pod set, else the n-th option of each."""
    if plan.simple:
        return [((o,), o.need) for o in plan.sets[0].options]
    widest = max(len(s.options) for s in plan.sets)
    rows = [tuple(s.options[min(i, len(s.options) - 1)] for s in plan.sets) for i in range(widest)]
    return [(choice, total_need(choice)) for choice in rows]


def of_pods(this: SetPlan, pods: int) -> str:
    """That many pods of a set, counted in GPUs if they have any."""
    gpus = this.pod_set.requests.get(GPU, 0)
    return words.amount(GPU, gpus * pods) if gpus else words.amount("pods", pods)


def in_slices(ask: Ask, levels: tuple[str, ...]) -> str:
    """`` in slices of 4 pods within one rack``."""
    parts = [f"{words.amount('pods', pods)} within one {words.level(levels[level])}" for level, pods in ask.layers]
    return f" in slices of {words.names(parts)}"


def flavor_names(option: Option) -> str:
    return words.names(sorted(set(option.flavors.values())))


def _no_flavor(plan: Plan, this: SetPlan) -> Why:
    which = f"pod set {this.pod_set.name}: " if len(plan.sets) > 1 else ""
    message = f"{which}no flavor of queue {plan.queue.name} matches: {'; '.join(dict.fromkeys(this.refused))}"
    remedy = "change the request, node selector, tolerations or topology level, or use another queue"
    covered = {resource for group in plan.queue.resource_groups for resource in group.covered}
    if missing := [r for r, n in sorted(this.pod_set.requests.items()) if n > 0 and r not in covered]:
        names = words.names(missing)
        remedy = f"drop the request for {names}, or add {names} to coveredResources of queue {plan.queue.name}"
    return Why(Outcome.NEVER, Reason.NO_MATCHING_FLAVOR, message, remedy)


def _over_quota(plan: Plan, needs: list[tuple[Choice, Need]], world: World) -> Why:
    quotas = world.pristine.quotas
    best, short = needs[0][1], -1
    for _, need in needs:  # speak of the choice that comes nearest
        over = sum(max(0, n - quotas.available(plan.node, c)) for c, n in need)
        if short < 0 or over < short:
            best, short = need, over
    cell, amount = next((c, n) for c, n in best if n > quotas.available(plan.node, c))
    flavor, resource = world.tree.cell_names[cell]
    limit, own = quotas.available(plan.node, cell), world.tree.nominal[plan.node][cell]
    most = words.amount(resource, limit)
    split = f" ({words.bare(resource, own)} of its own, {words.bare(resource, limit - own)} borrowed)"
    less = f"ask for at most {most}" if limit > 0 else f"use a queue that has {resource}"
    return Why(
        Outcome.NEVER,
        Reason.EXCEEDS_MAX_QUOTA,
        f"needs {words.amount(resource, amount)} of flavor {flavor}; queue {plan.queue.name} can never use more"
        f" than {most}{split if limit > own else ''}",
        f"{less}, or raise nominalQuota or borrowingLimit of {flavor} for queue {plan.queue.name}",
    )


def _too_large(this: SetPlan, option: Option, world: World) -> Why:
    flavor = flavor_names(option)
    if option.shape is None:
        unknown = [r for r in sorted(this.pod_set.requests) if r not in world.fleet.column]
        return _capacity(f"no node of the fleet has {words.names(unknown)}", "add such nodes, or drop the request")
    table = world.pristine.nodes.table(option.slot, option.kind, option.shape)
    arrangement = table.arrangement
    total = of_pods(this, this.pod_set.count)
    if not len(arrangement.nodes):
        affinity = ", node affinity" if this.pod_set.affinity else ""
        return _capacity(
            f"no node matches flavor {flavor} and the pods' node selector{affinity} and tolerations",
            "correct the selector or tolerations, or add such nodes",
        )
    if not table.most(table.levels - 1):
        wanted = [words.amount(r, n) for r, n in sorted(this.pod_set.requests.items()) if n > 0]
        return _capacity(
            f"one pod needs {words.names(wanted, 5)}; no node of flavor {flavor} is that large, even when empty",
            "ask for less per pod, or spread the job over more pods",
        )
    ask = option.ask
    if ask is not None and ask.required and table.most(ask.level) < this.pod_set.count:
        level = words.level(arrangement.levels[ask.level])
        most = of_pods(this, table.most(ask.level))
        return _capacity(
            f"needs {total} in one {level}; the largest {level} of flavor {flavor} holds {most}",
            f"ask for at most {most}, or make the topology preferred instead of required",
        )
    if ask is not None and ask.layers:
        room = slices.room(table, ask)
        where = f" in one {words.level(arrangement.levels[ask.level])}" if ask.required else ""
        return _capacity(
            f"needs {total}{in_slices(ask, arrangement.levels)}{where}; flavor {flavor} holds {of_pods(this, room)} so",
            "ask for fewer pods or smaller slices, or for slices of a wider level",
        )
    most = of_pods(this, table.total)
    return _capacity(
        f"needs {total}; all nodes of flavor {flavor} together hold {most}", f"ask for at most {most}, or add nodes"
    )


def _capacity(message: str, remedy: str) -> Why:
    return Why(Outcome.NEVER, Reason.EXCEEDS_CAPACITY, message, remedy)
