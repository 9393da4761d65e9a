"""Why a workload does not start now, in words: the binding constraint, who holds what it waits for, what would help."""

from __future__ import annotations

from collections.abc import Sequence

from glebe.scheduling import words
from glebe.scheduling.cycle.claims import claim
from glebe.scheduling.cycle.cycle import Admission, Preempting
from glebe.scheduling.cycle.onecycle import Verdict
from glebe.scheduling.cycle.order import Line
from glebe.scheduling.foresight.holders import Holders, Release, Running
from glebe.scheduling.model import GPU, Decision, Outcome, Pending, Reason
from glebe.scheduling.never import Why, choices, flavor_names, in_slices, never, of_pods
from glebe.scheduling.placement import slices
from glebe.scheduling.placement.fleet import Fleet
from glebe.scheduling.placement.placement import Choice, nominate, placeable, possible
from glebe.scheduling.world import Plan, State, World


def admitted(admission: Admission, fleet: Fleet) -> str:
    """``admitted by queue team-a with flavor h100 on 8 nodes``."""
    nodes = {n for spots in admission.fit.spots for n, _ in spots}
    flavors = sorted({f for option in admission.fit.choice for f in option.flavors.values()})
    first = fleet.nodes[min(nodes)].name if nodes else ""
    where = f" on node {first}" if len(nodes) == 1 else f" on {len(nodes)} nodes" if nodes else ""
    with_flavor = f" with flavor {words.names(flavors)}" if flavors else ""
    return f"admitted by queue {admission.line.queue.name}{with_flavor}{where}"


def preempting(key: str, found: Verdict) -> Decision:
    """For a workload for which others must leave."""
    leaving = words.names([v.key for v in found.victims], 3)
    message = f"waits until {leaving} {'have' if len(found.victims) > 1 else 'has'} left for it"
    return Decision(key, Outcome.WAIT, found.reason, message, "wait", victims=found.victims)


def verdict(pending: Pending, found: Verdict, why: Why) -> Decision:
    """For a head that the cycle looked at: ``why`` is what the state alone says of it."""
    outcome, reason, message, remedy = why.outcome, found.reason, why.message, why.remedy
    if pending.invalid:
        outcome, message, remedy = Outcome.NEVER, pending.invalid, "correct the workload, or what limits it"
    elif outcome is Outcome.NEVER:
        reason = why.reason
    elif reason is Reason.WAITING_FOR_PREEMPTED:
        message, remedy = "it fits as soon as workloads that are being preempted have left", "wait"
    elif reason is Reason.ADMISSION_GATED:
        message, remedy = "others would have to leave for it, and its preemption gate is closed", "open the gate"
    return Decision(pending.key, outcome, reason, message, remedy, parked=found.parked)


class Explainer:
    """Explains on the state after a cycle. Answers are shared by equivalent workloads."""

    def __init__(
        self,
        world: World,
        state: State,
        lines: list[Line],
        listed: list[Running],
        now: float,
        preempting: Sequence[Preempting] = (),
    ) -> None:
        self.world, self.state, self.lines, self.now = world, state, lines, now
        self._preempting = preempting
        self._whys: dict[int, Why] = {}
        self._fronts = {id(line): line.front() for line in lines}
        self._behind: dict[int, Why] = {}
        self._holders = Holders(world, state, listed)

    def unqueued(self, pending: Pending) -> Why:
        """For a workload whose queue does not take part at all."""
        queue = self.world.queues.get(pending.queue)
        if queue is None:
            known = words.names(sorted(self.world.queues), 5) or "none exists yet"
            return Why(
                Outcome.NEVER,
                Reason.QUEUE_NOT_FOUND,
                f"queue {pending.queue} does not exist",
                f"create ClusterQueue {pending.queue}, or use one of: {known}",
            )
        if pending.queue in self.world.misconfigured:
            message = f"queue {queue.name} cannot work: {self.world.misconfigured[pending.queue]}"
            return Why(Outcome.NEVER, Reason.MISCONFIGURED, message, f"correct ClusterQueue {queue.name}")
        if pending.invalid:
            return Why(Outcome.NEVER, Reason.MISCONFIGURED, pending.invalid, "correct the workload, or what limits it")
        plan = self.world.plan(queue, pending.pod_sets)
        if not possible(plan, self.world):
            return self.plan(plan)
        if pending.failed_checks:
            message, remedy = "an admission check has failed", "wait until it is tried again"
            return Why(Outcome.WAIT, Reason.PENDING_EVALUATION, message, remedy)
        return Why(
            Outcome.WAIT, Reason.QUEUE_STOPPED, f"queue {queue.name} is stopped", "set the queue's stopPolicy to None"
        )

    def waiting(self, line: Line, rank: int) -> Why:
        """For a workload in a line that was not admitted."""
        group = line.group_of[rank]
        front = self._fronts[id(line)]
        if line.strict and front is not None and front.head != rank and possible(group.plan, self.world):
            why = self._behind.get(id(line))
            if why is None:
                why = self._behind[id(line)] = self._behind_head(line, front.head, front.plan)
            return why
        return self.plan(group.plan)

    def _behind_head(self, line: Line, rank: int, plan: Plan) -> Why:
        head = line.waiting[rank].key
        message = f"behind {head} in StrictFIFO queue {line.queue.name}"
        if possible(plan, self.world):
            remedy = f"wait for {head}, raise the priority, or use a BestEffortFIFO queue"
            return Why(Outcome.WAIT, Reason.BEHIND_HEAD, message, remedy)
        message += ", which can never start as it is"
        return Why(Outcome.WAIT, Reason.BEHIND_HEAD, message, f"change or delete {head}")

    def plan(self, plan: Plan) -> Why:
        """For a workload that is not behind anybody."""
        why = self._whys.get(id(plan))
        if why is None:
            why = self._whys[id(plan)] = self._explain(plan)
        return why

    def _explain(self, plan: Plan) -> Why:
        if not possible(plan, self.world):
            return never(plan, self.world)
        if nominate(plan, self.state, self.world) is not None:
            return self._kept_for_head(plan)
        for choice, need in choices(plan):
            if self.state.quotas.fits(plan.node, need):
                return self._wait_for_nodes(plan, choice)
        return self._wait_for_quota(plan)

    def _kept_for_head(self, plan: Plan) -> Why:
        root = self.world.tree.top[plan.node]
        for p in self._preempting:
            if p.line.root == root or p.holding.taken:
                return Why(
                    Outcome.WAIT,
                    Reason.WAITING_FOR_QUOTA,
                    f"the room is kept for {p.pending.key}, for which others are leaving",
                    f"wait until {p.pending.key} has started",
                )
        for line in self.lines:
            front = self._fronts[id(line)]
            if line.strict and line.root == root and front is not None and claim(front.plan, self.state)[1]:
                head = line.waiting[front.head].key
                return Why(
                    Outcome.WAIT,
                    Reason.WAITING_FOR_QUOTA,
                    f"the free quota is kept for {head}, the head of StrictFIFO queue {line.queue.name}",
                    f"wait until {head} has started",
                )
        return Why(Outcome.WAIT, Reason.WAITING_FOR_QUOTA, "it fits and starts with the next cycle", "")

    def _wait_for_quota(self, plan: Plan) -> Why:
        needs = choices(plan)
        need = next((n for _, n in needs if self.world.pristine.quotas.fits(plan.node, n)), needs[0][1])
        quotas = self.state.quotas
        cell, amount = next((c, n) for c, n in need if n > quotas.available(plan.node, c))
        flavor, resource = self.world.tree.cell_names[cell]
        free = quotas.available(plan.node, cell)
        room = words.amount(resource, free)
        smaller = f", ask for at most {room}" if free else ""
        held = self._held(words.bare(resource, amount - free), self._holders.quota(plan.node, cell, amount))
        return Why(
            Outcome.WAIT,
            Reason.WAITING_FOR_QUOTA,
            f"needs {words.amount(resource, amount)} of flavor {flavor}; queue {plan.queue.name} may take {room} now"
            f"{held}",
            f"wait{smaller}, or raise the quota of queue {plan.queue.name}",
        )

    def _held(self, missing: str, release: Release | None) -> str:
        if release is None:
            return f", {words.more(missing)} needed"
        until = words.clock(release.end, self.now)
        return f", {words.more(missing)} held by {words.names(release.queues)} until about {until}"

    def _wait_for_nodes(self, plan: Plan, choice: Choice) -> Why:
        stuck = [(s, o) for s, o in zip(plan.sets, choice, strict=True) if not placeable(s, o, self.state, self.world)]
        if not stuck:
            this, option = plan.sets[0], choice[0]
            where, free, missing = " for all its pod sets at once", "", "room for the rest is"
            remedy = "wait, or ask for fewer pods"
        else:
            this, option = stuck[0]
            where, free, missing, remedy = f" on nodes of flavor {flavor_names(option)}", "", "the rest is", "wait"
            if option.shape is not None and option.ask is not None:
                table = self.state.nodes.table(option.slot, option.kind, option.shape)
                room, together = table.total, ""
                if option.ask.required:
                    level = words.level(table.arrangement.levels[option.ask.level])
                    room, together = table.most(option.ask.level), " together"
                    where = f" in one {level}"
                    remedy += ", or make the topology preferred instead of required"
                if option.ask.layers:
                    room, cut = slices.room(table, option.ask), in_slices(option.ask, table.arrangement.levels)
                    where, together = f"{cut}{where}", f"{together} in whole slices"
                free = f"; {of_pods(this, room)} are free{together}"
                each = this.pod_set.requests.get(GPU, 0) or 1
                missing = words.more(str(each * (this.pod_set.count - room)))
                if room:
                    remedy += f", or ask for at most {of_pods(this, room)}"
        release, known = self._holders.nodes(plan)
        if release is not None:
            until = words.clock(release.end, self.now)
            rest = f", {missing} held by {words.names(release.queues)} until about {until}"
        else:
            down = words.names([n.name for n in self.world.fleet.nodes if not n.ready])
            rest = f", {missing} {_out_of_reach(down)}" if known else ""
            if known and down:
                remedy += f", or bring {down} back"
        return Why(
            Outcome.WAIT,
            Reason.TOPOLOGY_PLACEMENT_FAILED,
            f"needs {of_pods(this, this.pod_set.count)}{where}{free}{rest}",
            remedy,
        )


def _out_of_reach(down: str) -> str:
    """Where room is that the end of all running workloads would not give back, at least not enough of it."""
    if down:
        return f"in use or on nodes that are not ready ({down})"
    return "in use, in part by pods outside any queue"
