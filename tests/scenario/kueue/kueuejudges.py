"""Runs one of Kueue's cases through the production core and says what differs from Kueue's outcome ("" = nothing).

What must be equal is what the data's README says under "How to judge"; for cycles also the reasons for which heads
wait. A case whose world the model cannot say counts as failed.
"""

from __future__ import annotations

import sys
from collections import Counter
from collections.abc import Callable, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import kueueworlds as k

from glebe.scheduling.cycle.nominations import Nominator
from glebe.scheduling.cycle.turns import entry_penalty
from glebe.scheduling.decide import decide_one_cycle
from glebe.scheduling.flavoring.assign import Mode, Rank, Standing
from glebe.scheduling.model import (
    Admitted,
    Decision,
    Node,
    Outcome,
    PodSetAssignment,
    Reason,
    Snapshot,
    VictimReason,
)
from glebe.scheduling.preemption import search
from glebe.scheduling.preemption.roster import Roster
from glebe.scheduling.preemption.trial import Want
from glebe.scheduling.quotas.quota import QuotaState, QuotaTree
from glebe.scheduling.quotas.shares import MOST, share
from glebe.scheduling.world import World

sys.path.append(str(Path(__file__).parents[1] / "kueue_topology"))
import topologycases

#: Tags of worlds that the model cannot say yet.
UNSAID = ("injectedError",)


def judge(case: k.Case) -> str:
    """What differs; empty if the outcome is Kueue's."""
    unsaid = [tag for tag in UNSAID if tag in case["tags"]]
    if unsaid and case["kind"] not in ("topology", "preemption"):
        return f"cannot be said in the model: {', '.join(unsaid)}"
    return JUDGES[case["kind"]](case)


def cycle(case: k.Case) -> str:
    snapshot = k.cycle_snapshot(case)
    decisions = cycles(snapshot, k.time(case["now"]), case.get("cycles", 1))
    return (
        _reserved(case, snapshot, decisions)
        or _evictions(case, decisions)
        or _finished(case, decisions)
        or _waiting(case, snapshot, decisions)
        or _reasons(case, decisions)
    )


def cycles(snapshot: Snapshot, now: float, count: int) -> list[Decision]:
    """So many cycles, one after the other; who is parked in one is not looked at in the next."""
    started: list[Decision] = []
    parked: list[Decision] = []
    decisions: list[Decision] = []
    for _ in range(count):
        decisions = decide_one_cycle(snapshot, now)
        started += [d for d in decisions if d.outcome is not Outcome.WAIT and d.outcome is not Outcome.NEVER]
        parked += [d for d in decisions if d.parked]
        snapshot = after(snapshot, decisions, now)
    rest = [d for d in decisions if d not in started and d not in parked]
    return [*started, *parked, *rest]


def after(snapshot: Snapshot, decisions: list[Decision], now: float) -> Snapshot:
    """What the next cycle sees: admissions stand, with what they cost their local queues at once."""
    by_key = {d.key: d for d in decisions}
    admitted, waiting = list(snapshot.admitted), []
    used = {} if snapshot.afs is None else {queue: dict(use) for queue, use in snapshot.afs.usage.items()}
    for p in snapshot.pending:
        d = by_key[p.key]
        if d.outcome is Outcome.ADMIT:
            held = Admitted(
                p.key, p.queue, p.priority, now, p.pod_sets, d.assignments, p.run_time, p.local_queue, p.uid
            )
            admitted.append(held)
            if snapshot.afs is not None:
                mine = used.setdefault(p.local_queue, {})
                for r, n in entry_penalty(p.pod_sets, snapshot.afs.half_life, snapshot.afs.sampling).items():
                    mine[r] = mine.get(r, 0.0) + n
        elif not d.parked:
            waiting.append(p)
    afs = None if snapshot.afs is None else replace(snapshot.afs, usage=used)
    return replace(snapshot, admitted=tuple(admitted), pending=tuple(waiting), afs=afs)


def _reserved(case: k.Case, snapshot: Snapshot, decisions: list[Decision]) -> str:
    nodes = {n.name: n for n in snapshot.nodes}
    queues = {w.key: w.queue for w in (*snapshot.pending, *snapshot.admitted)}
    started = {d.key: d for d in decisions if d.outcome is Outcome.ADMIT}
    expected = case["expect"]["reserved"]
    if set(started) != set(expected):
        return f"reserved {sorted(started)} instead of {sorted(expected)}"
    for key, want in expected.items():
        if queues[key] != want["clusterQueue"]:
            return f"{key} in {queues[key]} instead of {want['clusterQueue']}"
        by_name = {a.pod_set: a for a in started[key].assignments}
        if set(by_name) != {p["name"] for p in want["podSets"]}:
            return f"{key}: pod sets {sorted(by_name)}"
        for p in want["podSets"]:
            a = by_name[p["name"]]
            usage = _positive(a.usage)
            if a.count != p["count"] or usage != _positive(k.amounts(p.get("resourceUsage"))):
                return f"{key}/{p['name']}: {a.count} pods with {dict(a.usage)} instead of {p}"
            if {r: a.flavors.get(r) for r in usage} != {r: f for r, f in p["flavors"].items() if r in usage}:
                return f"{key}/{p['name']}: flavors {dict(a.flavors)} instead of {p['flavors']}"
            if not same_topology(p.get("topologyAssignment"), a, nodes):
                return f"{key}/{p['name']}: on {a.nodes} instead of {p['topologyAssignment']['domains']}"
    return ""


def _positive(amounts: Mapping[str, int]) -> dict[str, int]:
    return {r: n for r, n in amounts.items() if n}


def _evictions(case: k.Case, decisions: list[Decision]) -> str:
    have = set()
    for d in decisions:
        if d.outcome is Outcome.EVICT:
            have.add((d.key, d.reason.value, ""))
        for victim in d.victims:
            if victim.reason is VictimReason.FLAVOR_MIGRATION:
                have.add((victim.key, victim.reason.value, ""))
            else:
                have.add((victim.key, "Preempted", victim.reason.value))
    evicted = {w["metadata"]["name"] for w in case["input"]["workloads"] if k.condition(w, "Evicted")}
    have = {e for e in have if e[0].partition("/")[2] not in evicted}  # not anew
    listed = case["expect"].get("evictions", [])
    want = {(e["workload"], e["reason"], e.get("preemptionReason") or "") for e in listed}
    return "" if have == want else f"evictions {sorted(have)} instead of {sorted(want)}"


def _finished(case: k.Case, decisions: list[Decision]) -> str:
    have = {d.replaces for d in decisions if d.outcome is Outcome.ADMIT and d.replaces}
    want = {f["workload"] for f in case["expect"].get("finished", [])}
    return "" if have == want else f"finished {sorted(have)} instead of {sorted(want)}"


def _waiting(case: k.Case, snapshot: Snapshot, decisions: list[Decision]) -> str:
    queues = {p.key: p.queue for p in snapshot.pending}
    have: dict[str, dict[str, set[str]]] = {"active": {}, "inadmissible": {}}
    for d in decisions:
        if d.key in queues and d.outcome is not Outcome.ADMIT and d.reason is not Reason.QUEUE_NOT_FOUND:
            have["inadmissible" if d.parked else "active"].setdefault(queues[d.key], set()).add(d.key)
    want: dict[str, dict[str, set[str]]] = {"active": {}, "inadmissible": {}}
    for kind, listed in case["expect"].get("pending", {}).items():
        want[kind] = {queue: set(keys) for queue, keys in (listed or {}).items() if keys}
    return "" if have == want else f"waiting {have} instead of {want}"


def _reasons(case: k.Case, decisions: list[Decision]) -> str:
    """Why heads that were looked at wait. That the fleet is too small even when it is empty, Kueue does not say."""
    finer = {Reason.EXCEEDS_CAPACITY: Reason.TOPOLOGY_PLACEMENT_FAILED}
    have = {d.key: finer.get(d.reason, d.reason).value for d in decisions}
    want = {key: said["reason"] for key, said in case["expect"].get("pendingReasons", {}).items()}
    return "" if all(have.get(key) == reason for key, reason in want.items()) else f"reasons {have} instead of {want}"


def same_topology(expected: Mapping[str, Any] | None, assigned: PodSetAssignment, nodes: Mapping[str, Node]) -> bool:
    if not expected:
        return not assigned.nodes
    found: Counter[tuple[str, ...]] = Counter()
    for name, pods in assigned.nodes:
        found[tuple(nodes[name].labels[level] for level in expected["levels"])] += pods
    return found == Counter({tuple(d["values"]): d["count"] for d in expected["domains"]})


STANDINGS = {"NoCandidates": Standing.NO_CANDIDATES, "Preempt": Standing.PREEMPT, "Reclaim": Standing.RECLAIM}
MODES = {"NoFit": Mode.NO_FIT, "Preempt": Mode.PREEMPT, "DeferredFit": Mode.DEFERRED_FIT, "Fit": Mode.FIT}


def flavors(case: k.Case) -> str:
    """The search for flavors alone: what preemption could do is told."""
    snapshot = k.flavor_snapshot(case)
    world = World(snapshot)
    state, holdings = world.state(snapshot.admitted)
    given, expected = case["input"], case["expect"]
    told = {(r["flavor"], r["resource"]): r for r in given["oracle"].get("results", [])}

    def oracle(cell: int, amount: int) -> Rank:
        said = told.get(world.tree.cell_names[cell], given["oracle"]["default"])
        return Rank(STANDINGS[said["result"]], said["borrowAfter"])

    (waiting,) = snapshot.pending
    if waiting.queue in world.misconfigured:
        return f"{waiting.queue} cannot work: {world.misconfigured[waiting.queue]}"
    nominator = Nominator(world, Roster(world, (), holdings, 0.0), holdings)
    found = nominator.assigned(waiting, world.plan(world.queues[waiting.queue], waiting.pod_sets), state, oracle)
    if found.mode is not MODES[expected["mode"]]:
        return f"{found.mode.name} instead of {expected['mode']}"
    if found.mode is Mode.NO_FIT:
        reason = expected["noFitReason"]
        return f"{found.reason} instead of {reason}" if reason and found.reason != reason else ""
    if found.level != expected["borrowing"]:
        return f"borrows at level {found.level} instead of {expected['borrowing']}"
    for i, p in enumerate(expected["podSets"]):
        have = {r: (pick.flavor, pick.mode) for r, pick in found.picks[i].items()}
        wanted = {r: (f["flavor"], MODES[f["mode"]]) for r, f in p["flavors"].items()}
        if found.plan.sets[i].pod_set.count != p["count"] or have != wanted:
            return f"{p['name']}: {have} instead of {wanted}"
    used = {world.tree.cell_names[cell]: n for cell, n in found.need if n}
    wanted_use = {(u["flavor"], u["resource"]): k.quantity(u["quantity"], u["resource"]) for u in expected["usage"]}
    wanted_use = {cell: n for cell, n in wanted_use.items() if n}
    return "" if used == wanted_use else f"uses {used}, expected {wanted_use}"


def topology(case: k.Case) -> str:
    """As the tests of placement judge it, which list their own exceptions."""
    want = {name: domains for name, (_, domains) in topologycases.expected(case).items()}
    found = topologycases.outcome(case)
    return "" if found == want else f"{found} instead of {want}"


def victims(case: k.Case) -> str:
    """The search alone: flavors and their modes are given."""
    snapshot, pending = k.preemption_snapshot(case)
    world = World(snapshot)
    state, holdings = world.state(snapshot.admitted)
    before = [list(row) for row in state.quotas.usage]
    roster = Roster(world, snapshot.admitted, holdings, k.time(case["now"]), to_the_letter=True)
    need: Counter[int] = Counter()
    short = set()
    by_name = {s.name: s for s in pending.pod_sets}
    for p in case["input"]["assignment"]["podSets"]:
        for resource, given in p["flavors"].items():
            cell = world.tree.cells[given["flavor"], resource]
            need[cell] += by_name[p["name"]].requests.get(resource, 0) * p["count"]
            if given["mode"] == "Preempt":
                short.add(cell)
    want = Want(pending, world.tree.queue_index[pending.queue], tuple(sorted(need.items())), frozenset(short))
    found = {(v.key, str(v.reason)) for v in search.victims(world, state, roster, want)}
    if state.quotas.usage != before:
        return "the state is not as it was"
    expected = {(v["workload"], v["reason"]) for v in case["expect"]["victims"]}
    return "" if found == expected else f"{sorted(found)} instead of {sorted(expected)}"


def shares(case: k.Case) -> str:
    """Use is given by queue, flavor and resource; ``additionalRequest`` counts at the queue ``cq`` only."""
    base, given = k.base_snapshot(case), case["input"]
    tree = QuotaTree(base.queues, base.cohorts)
    state = QuotaState(tree)
    for u in given["usage"]:
        cell = tree.cell(u["flavor"], u["resource"])
        state.add(tree.queue_index[u["clusterQueue"]], ((cell, k.quantity(u["quantity"], u["resource"])),))
    more = {
        tree.cell(u["flavor"], u["resource"]): k.quantity(u["quantity"], u["resource"])
        for u in given["additionalRequest"]
    }
    found = set()
    for kind, index in (("ClusterQueue", tree.queue_index), ("Cohort", tree.cohort_index)):
        for name, node in index.items():
            s = share(state, node, more if name == "cq" else {})
            found.add((name, kind, "inf" if s.rounded == MOST else s.rounded, s.resource, s.borrowing))
    columns = ("name", "kind", "weightedShare", "dominantResource", "borrowing")
    expected = {tuple(row[c] for c in columns) for row in case["expect"]["shares"]}
    return "" if found == expected else f"{sorted(found)} instead of {sorted(expected)}"


JUDGES: dict[str, Callable[[k.Case], str]] = {
    "cycle": cycle,
    "fairShare": shares,
    "flavorAssignment": flavors,
    "preemption": victims,
    "topology": topology,
}
