"""Why a workload does not start now, in words: the binding constraint, who holds what it waits for, what would help."""

from __future__ import annotations

from bisect import bisect_left
from dataclasses import dataclass

from glebe.scheduling import words
from glebe.scheduling.cycle import Admission, claim
from glebe.scheduling.flavors import Option, SetPlan
from glebe.scheduling.fleet import Fleet
from glebe.scheduling.model import GPU, Outcome, Pending, Reason
from glebe.scheduling.order import Line
from glebe.scheduling.placement import nominate, placeable
from glebe.scheduling.quota import Cell, Need
from glebe.scheduling.runtime import predicted_end
from glebe.scheduling.world import Holding, Plan, State, World

MAX_RELEASES = 512  # that one explanation run simulates to say until when nodes are held


@dataclass(frozen=True, slots=True)
class Why:
    """The explanation that all workloads of one plan share."""

    outcome: Outcome
    reason: Reason
    message: str
    remedy: str


@dataclass(frozen=True, slots=True)
class Running:
    """A workload that holds something, with its predicted end."""

    end: float
    key: str
    queue: str
    root: int
    holding: Holding


def admitted(admission: Admission, fleet: Fleet) -> str:
    nodes = {n for spots in admission.fit.spots for n, _ in spots}
    flavors = sorted({f for option in admission.fit.choice for f in option.flavors.values()})
    where = f" on {len(nodes)} node{'' if len(nodes) == 1 else 's'}" if nodes else ""
    with_flavor = f" with flavor {words.names(flavors)}" if flavors else ""
    return f"admitted by queue {admission.line.queue.name}{with_flavor}{where}"


class Explainer:
    """Explains on the state after a cycle. Answers are shared by equivalent workloads."""

    def __init__(self, world: World, state: State, lines: list[Line], running: list[Running], now: float) -> None:
        self.world, self.state, self.lines, self.running, self.now = world, state, lines, running, now
        self._whys: dict[int, Why] = {}
        self._fronts = {id(line): line.front() for line in lines}
        self._holders: dict[tuple[int, Cell], tuple[list[int], list[Running]]] = {}
        self._releases = MAX_RELEASES

    def unqueued(self, pending: Pending) -> Why:
        """For a workload whose queue does not take part at all."""
        queue = self.world.queues.get(pending.queue)
        if queue is None:
            return Why(
                Outcome.NEVER,
                Reason.QUEUE_NOT_FOUND,
                f"queue {pending.queue} does not exist",
                f"create ClusterQueue {pending.queue}, or use one of: "
                + (words.names(sorted(self.world.queues), 5) or "none exists yet"),
            )
        if pending.queue in self.world.misconfigured:
            why = self.world.misconfigured[pending.queue]
            return Why(
                Outcome.NEVER, Reason.MISCONFIGURED, f"queue {queue.name} cannot work: {why}", "correct the queue"
            )
        plan = self.world.plan(queue, pending.pod_sets)
        if not possible(plan, self.world):
            return self.plan(plan)
        return Why(
            Outcome.WAIT, Reason.QUEUE_STOPPED, f"queue {queue.name} is stopped", "set the queue's stopPolicy to None"
        )

    def waiting(self, line: Line, rank: int) -> Why:
        """For a workload in a line that was not admitted."""
        group = line.group_of[rank]
        front = self._fronts[id(line)]
        if line.strict and front is not None and front.head != rank and possible(group.plan, self.world):
            head = line.waiting[front.head]
            stuck = not possible(front.plan, self.world)
            return Why(
                Outcome.WAIT,
                Reason.BEHIND_HEAD,
                f"behind {head.key} in StrictFIFO queue {line.queue.name}"
                + (", which can never start as it is" if stuck else ""),
                f"change or delete {head.key}" if stuck else "raise its priority, or use a BestEffortFIFO queue",
            )
        return self.plan(group.plan)

    def plan(self, plan: Plan) -> Why:
        why = self._whys.get(id(plan))
        if why is None:
            why = self._whys[id(plan)] = self._explain(plan)
        return why

    def _explain(self, plan: Plan) -> Why:
        for this in plan.sets:
            if not this.options:
                return _no_flavor(plan, this)
        if not possible(plan, self.world):
            return self._never(plan)
        if nominate(plan, self.state, self.world) is not None:
            return self._kept_for_head(plan)
        return self._wait(plan)

    # -- never ------------------------------------------------------------------------------------------------------

    def _never(self, plan: Plan) -> Why:
        pristine = self.world.pristine
        needs = _needs(plan)
        if not any(pristine.quotas.fits(plan.node, need) for _, need in needs):
            return self._over_quota(plan, needs)
        for this in plan.sets:
            if not any(placeable(this, o, pristine, self.world) for o in this.options):
                fitting = [o for o in this.options if pristine.quotas.fits(plan.node, o.need)] or list(this.options)
                return self._too_large(this, fitting[0])
        return Why(
            Outcome.NEVER,
            Reason.EXCEEDS_CAPACITY,
            "its pod sets do not fit on the fleet together, even when it is empty",
            "ask for fewer or smaller pods, or relax the topology request",
        )

    def _over_quota(self, plan: Plan, needs: list[tuple[tuple[Option, ...], Need]]) -> Why:
        quotas = self.world.pristine.quotas
        best, short = needs[0][1], -1
        for _, need in needs:  # speak of the choice that comes nearest
            over = sum(max(0, n - quotas.available(plan.node, c)) for c, n in need)
            if short < 0 or over < short:
                best, short = need, over
        cell, amount = next((c, n) for c, n in best if n > quotas.available(plan.node, c))
        flavor, resource = self.world.tree.cell_names[cell]
        limit = quotas.available(plan.node, cell)
        own = self.world.tree.nominal[plan.node][cell]
        most = words.amount(resource, limit)
        return Why(
            Outcome.NEVER,
            Reason.EXCEEDS_MAX_QUOTA,
            f"needs {words.amount(resource, amount)} of flavor {flavor}; queue {plan.queue.name} can never use more"
            f" than {most} ({words.amount(resource, own)} of its own, the rest borrowed)",
            f"ask for at most {most}, or raise nominalQuota or borrowingLimit of {flavor} for queue {plan.queue.name}",
        )

    def _too_large(self, this: SetPlan, option: Option) -> Why:
        flavor = words.names(sorted(set(option.flavors.values())))
        if option.shape is None:
            unknown = [r for r in sorted(this.pod_set.requests) if r not in self.world.fleet.column]
            return _capacity(f"no node of the fleet has {words.names(unknown)}", "add such nodes, or drop the request")
        table = self.world.pristine.nodes.table(option.slot, option.kind, option.shape)
        arrangement = table.arrangement
        one, total = _per_pod(this), _total(this)
        if not len(arrangement.nodes):
            return _capacity(
                f"no node matches flavor {flavor} and the pods' node selector and tolerations",
                "correct the selector or tolerations, or add such nodes",
            )
        if not table.most(len(table.sums) - 1):
            return _capacity(
                f"one pod needs {one}; no node of flavor {flavor} is that large, even when empty",
                "ask for less per pod, or spread the job over more pods",
            )
        ask = option.ask
        if ask is not None and ask.required and table.most(ask.level) < this.pod_set.count:
            level = words.level(arrangement.levels[ask.level])
            most = _of(this, table.most(ask.level))
            return _capacity(
                f"needs {total} in one {level}; the largest {level} of flavor {flavor} holds {most}",
                f"ask for at most {most}, or make the topology preferred instead of required",
            )
        most = _of(this, table.total)
        return _capacity(
            f"needs {total}; all nodes of flavor {flavor} together hold {most}",
            f"ask for at most {most}, or add nodes",
        )

    # -- wait -------------------------------------------------------------------------------------------------------

    def _kept_for_head(self, plan: Plan) -> Why:
        root = self.world.tree.root(plan.node)
        for line in self.lines:
            front = self._fronts[id(line)]
            if line.strict and line.root == root and front is not None and claim(front.plan, self.state)[1]:
                head = line.waiting[front.head].key
                return Why(
                    Outcome.WAIT,
                    Reason.WAITING_FOR_QUOTA,
                    f"the free quota is kept for {head}, the head of StrictFIFO queue {line.queue.name}",
                    f"it goes on when {head} has started; a higher priority would put it first",
                )
        return Why(Outcome.WAIT, Reason.WAITING_FOR_QUOTA, "it is next and starts with the next cycle", "")

    def _wait(self, plan: Plan) -> Why:
        for choice, need in _needs(plan):
            if self.state.quotas.fits(plan.node, need):
                return self._wait_for_nodes(plan, choice)
        ever = [need for _, need in _needs(plan) if self.world.pristine.quotas.fits(plan.node, need)]
        need = ever[0] if ever else _needs(plan)[0][1]
        quotas = self.state.quotas
        cell, amount = next((c, n) for c, n in need if n > quotas.available(plan.node, c))
        flavor, resource = self.world.tree.cell_names[cell]
        free = quotas.available(plan.node, cell)
        name = words.amount(resource, amount)
        held = self._held(self.world.tree.root(plan.node), cell, amount - free, resource)
        return Why(
            Outcome.WAIT,
            Reason.WAITING_FOR_QUOTA,
            f"needs {name} of flavor {flavor}; queue {plan.queue.name} may take {words.amount(resource, free)} now,"
            f" {held}",
            f"wait, ask for at most {words.amount(resource, free)}, or raise the quota of queue {plan.queue.name}"
            if free
            else f"wait, or raise the quota of queue {plan.queue.name}",
        )

    def _held(self, root: int, cell: Cell, missing: int, resource: str) -> str:
        """Who holds ``missing`` of a cell, until when."""
        held, holders = self._holders.get((root, cell)) or self._count_holders(root, cell)
        last = bisect_left(held, missing)
        lack = words.amount(resource, missing)
        if last >= len(holders):
            return f"{lack} more are needed"
        until = words.clock(holders[last].end, self.now)
        queues = dict.fromkeys(r.queue for r in holders[: last + 1])
        return f"{lack} more are held by {words.names(queues)} until about {until}"

    def _count_holders(self, root: int, cell: Cell) -> tuple[list[int], list[Running]]:
        held: list[int] = []
        holders: list[Running] = []
        for running in self.running:
            amount = next((n for c, n in running.holding.need if c == cell), 0)
            if running.root == root and amount:
                held.append(amount + (held[-1] if held else 0))
                holders.append(running)
        self._holders[root, cell] = held, holders
        return held, holders

    def _wait_for_nodes(self, plan: Plan, choice: tuple[Option, ...]) -> Why:
        stuck = [(s, o) for s, o in zip(plan.sets, choice, strict=True) if not placeable(s, o, self.state, self.world)]
        this, option = stuck[0] if stuck else (plan.sets[0], choice[0])
        flavor = words.names(sorted(set(option.flavors.values())))
        where, free, remedy = f"on nodes of flavor {flavor}", "", "wait, or ask for fewer pods"
        if option.shape is not None and option.ask is not None and stuck:
            table = self.state.nodes.table(option.slot, option.kind, option.shape)
            ask, room = option.ask, table.total
            if ask.required:
                level = words.level(table.arrangement.levels[ask.level])
                room = table.most(ask.level)
                where, remedy = f"in one {level}", "wait, or make the topology preferred instead of required"
            free = f"; {_of(this, room)} are free" + (" together" if ask.required else "")
        return Why(
            Outcome.WAIT,
            Reason.TOPOLOGY_PLACEMENT_FAILED,
            f"needs {_total(this)} {where}{free}{self._nodes_held(plan)}",
            remedy,
        )

    def _nodes_held(self, plan: Plan) -> str:
        """Who must end before the nodes suffice: running work is taken away in the order in which it ends."""
        state = State(self.world.pristine.quotas, self.state.nodes.copy())
        gone: list[Running] = []
        for running in self.running:
            if not running.holding.taken:
                continue
            if self._releases <= 0:
                return ""
            self._releases -= 1
            for shape, spots in running.holding.taken:
                state.nodes.give(shape, spots)
            gone.append(running)
            if nominate(plan, state, self.world) is not None:
                queues = dict.fromkeys(r.queue for r in gone)
                return f", the rest is held by {words.names(queues)} until about {words.clock(running.end, self.now)}"
        return ", the rest is on nodes that are not ready or used by other pods"


def possible(plan: Plan, world: World) -> bool:
    """Would it start on an empty fleet with nothing in use? If not: never."""
    if plan.possible is None:
        plan.possible = nominate(plan, world.pristine, world) is not None
    return plan.possible


def running(world: World, holdings: dict[str, Holding], new: list[Admission], now: float) -> list[Running]:
    """Everything that holds quota or nodes, in the order in which it is predicted (P50) to end."""
    roots = world.tree
    listed = [
        Running(
            predicted_end(a.started_at, a.run_time.p50, now),
            a.key,
            a.queue,
            roots.root(holdings[a.key].node) if holdings[a.key].node >= 0 else -1,
            holdings[a.key],
        )
        for a in world.snapshot.admitted
    ]
    listed += [
        Running(now + a.pending.run_time.p50, a.pending.key, a.pending.queue, a.line.root, a.holding) for a in new
    ]
    return sorted(listed, key=lambda r: (r.end, r.key))


def _needs(plan: Plan) -> list[tuple[tuple[Option, ...], Need]]:
    """The choices that messages speak of: every option of a single pod set, else the n-th option of each."""
    if plan.simple:
        return [((o,), o.need) for o in plan.sets[0].options]
    widest = max(len(s.options) for s in plan.sets)
    result = []
    for i in range(widest):
        choice = tuple(s.options[min(i, len(s.options) - 1)] for s in plan.sets)
        total: dict[Cell, int] = {}
        for option in choice:
            for cell, amount in option.need:
                total[cell] = total.get(cell, 0) + amount
        result.append((choice, tuple(sorted(total.items()))))
    return result


def _no_flavor(plan: Plan, this: SetPlan) -> Why:
    which = f"pod set {this.pod_set.name}: " if len(plan.sets) > 1 else ""
    return Why(
        Outcome.NEVER,
        Reason.NO_MATCHING_FLAVOR,
        f"{which}no flavor of queue {plan.queue.name} matches: {'; '.join(dict.fromkeys(this.refused))}",
        "change the request, node selector, tolerations or topology level, or use another queue",
    )


def _capacity(message: str, remedy: str) -> Why:
    return Why(Outcome.NEVER, Reason.EXCEEDS_CAPACITY, message, remedy)


def _unit(this: SetPlan) -> tuple[str, int]:
    gpus = this.pod_set.requests.get(GPU, 0)
    return (GPU, gpus) if gpus else ("pods", 1)


def _per_pod(this: SetPlan) -> str:
    wanted = [words.amount(r, n) for r, n in sorted(this.pod_set.requests.items()) if n > 0]
    return words.names(wanted, 5)


def _of(this: SetPlan, pods: int) -> str:
    resource, each = _unit(this)
    return words.amount(resource, each * pods)


def _total(this: SetPlan) -> str:
    return _of(this, this.pod_set.count)
