"""The StatefulSet controller: pods with names, order and claims of their own.

``reconcile`` (pure) turns what is known into a :class:`~glebe.workloads.statefulset.plan.Plan`; ``controller``
observes and carries plans out.
"""
