"""Who must leave so that a workload can start: victims within its queue and its cohort tree.

One search per preemptor, on the state as it is; it tries by ``release`` and ``hold`` and leaves the state as it was.

    roster = Roster(world, snapshot.admitted, holdings, now)   # once per cycle: everybody who could be preempted
    want = Want(pending, node, need, short, places)            # one per (workload, assignment)
    found = victims(world, state, roster, want)                # tuple[Victim, ...]; empty: nothing can be done
    said = possibility(world, state, roster, pending, node, cell, amount)   # Outlook(possibility, level): the oracle

* ``node`` is the queue's index in the quota tree, ``need`` the whole request by cell (amounts of 0 count as asked for),
  ``short`` the cells whose mode is Preempt: only who uses one of those is a candidate.
* ``places`` says whether the workload's pods have nodes in a state, e.g. ``partial(placed, plan, choice, world)``;
  ``None`` when the core places none of them: then only quota is tried, which is much faster. It must not change the
  state. It is only asked when the quota fits.
* ``roster.without(keys)`` is the same roster without some of its holders (victims of others in this cycle, whose usage
  the caller has released). ``roster.holding(key)`` is what a victim holds. Who is admitted during the cycle is in no
  roster, and so is not preempted in it.
* ``roster.protected_until`` is the next time at which a protected minimum run time ends (``None``: none is running):
  before it, a preemptor that found nobody need not look again on its account.

Classical preemption (KEP-1337, hierarchical cohorts by KEP-79) or fair sharing (KEP-1714, KEP-4136), whichever the
preemptor's root cohort follows: ``fair_sharing(world, node)``. Victims are minimal: with any one of them left in place
the workload would not fit. Ties in Kueue's order go to who loses fewer GPU-seconds. Nobody is among them who could
preempt the preemptor in return (``cycles``), unless the roster is ``to_the_letter``.
"""
