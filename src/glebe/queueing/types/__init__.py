"""The kinds of the queue as typed structs: the source of their CRDs, and what hot paths decode into.

Field names, enums and defaults are those of ``kueue.x-k8s.io/v1beta2``; ``status.forecast`` of Workload and the kind
WorkloadClass (``glebe.dev/v1alpha1``) are Glebe's own.
"""
