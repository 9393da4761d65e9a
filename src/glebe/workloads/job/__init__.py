"""The Job controller: pods run to completion, counted exactly once each.

``reconcile`` (pure) turns what is known into a :class:`~glebe.workloads.job.plan.Plan`; ``controller`` observes and
carries plans out.
"""
