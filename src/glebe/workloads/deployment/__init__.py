"""Deployments: one ReplicaSet per version of a pod template, and the way from one version to the next.

``plan`` (pure) turns what is known into a :class:`~glebe.workloads.deployment.plan.Plan`; ``controller`` observes and
carries plans out. The modules between them are the parts of that decision: ``sets`` (which ReplicaSet is which),
``strategy`` (amounts), ``rolling`` and ``proportions`` (new sizes), ``progress`` (conditions and status), ``annotate``
(revisions and what else stands in annotations).
"""
