"""The audit log: who asked what, on whose behalf, and what became of it (``audit.k8s.io/v1``)."""
