"""Pods that are queued themselves: single ones, groups, and those of Deployments, StatefulSets and LeaderWorkerSets.

They have no switch. They are held by a scheduling gate from their creation (:mod:`.holding`) until a workload that
stands for one or several of them is admitted; a workload that is evicted has its running pods deleted. What belongs
together is told in :mod:`.gathering`, one reconciler (:mod:`.reconcile`) does the rest.
"""
