"""Logical clusters: many small Kubernetes in one server."""

from glebe.apiserver.clusters.logical import LogicalCluster
from glebe.apiserver.clusters.register import Clusters

__all__ = ["Clusters", "LogicalCluster"]
