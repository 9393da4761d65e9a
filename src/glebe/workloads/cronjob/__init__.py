"""The CronJob controller: a Job at each time of a schedule.

``reconcile`` (pure) turns what is known into a :class:`~glebe.workloads.cronjob.plan.Plan`; ``controller`` observes
and carries plans out.
"""
