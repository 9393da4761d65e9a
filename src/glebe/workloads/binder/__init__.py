"""The binder: gives every schedulable pod of an embedded host a node. A real host has kube-scheduler for this."""
