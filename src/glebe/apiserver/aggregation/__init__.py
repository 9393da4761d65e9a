"""API aggregation: parts of a logical cluster's API that another server answers (``apiregistration.k8s.io``)."""
