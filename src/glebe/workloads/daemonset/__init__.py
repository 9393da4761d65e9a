"""The DaemonSet controller: one pod on every node that a template fits.

``reconcile`` (pure) turns what is known into a :class:`~glebe.workloads.daemonset.plan.Plan`; ``controller`` observes
and carries plans out.
"""
