"""The Kubernetes controllers that an embedded control plane needs."""

from __future__ import annotations

from glebe.kube.client import Client
from glebe.kube.clock import Env
from glebe.kube.controller import Controller
from glebe.kube.informer import Informers

__all__ = ["ROOT", "controllers"]

ROOT = "root"
"""The logical cluster of bare paths."""


def controllers(client: Client, informers: Informers, env: Env, *, root_ca: str = "") -> list[Controller]:
    """All controllers, not yet running.

    A client over all logical clusters (``EVERY``) makes controllers that serve them all.

    :param root_ca: PEM of the API server's CA, published in every namespace as ``kube-root-ca.crt``.
    """
    from glebe.workloads import namespaces, podgc, podgroups, protection, serviceaccounts, servicecidrs, volumes
    from glebe.workloads.autoscaling import controller as autoscaling
    from glebe.workloads.binder import controller as binder
    from glebe.workloads.claims import controller as claims
    from glebe.workloads.claims import taints
    from glebe.workloads.cronjob import controller as cronjob
    from glebe.workloads.daemonset import controller as daemonset
    from glebe.workloads.deployment import controller as deployment
    from glebe.workloads.disruption import controller as disruption
    from glebe.workloads.endpoints import slices as endpoints
    from glebe.workloads.garbage import collector
    from glebe.workloads.job import controller as job
    from glebe.workloads.nodes import controller as nodes
    from glebe.workloads.replicas import controller as replicas
    from glebe.workloads.statefulset import controller as statefulset

    return [
        namespaces.build(client, informers, env),
        serviceaccounts.build(client, informers, env, root_ca),
        job.build(client, informers, env),
        statefulset.build(client, informers, env),
        daemonset.build(client, informers, env),
        cronjob.build(client, informers, env),
        *replicas.build(client, informers, env),
        deployment.build(client, informers, env),
        binder.build(client, informers, env),
        collector.build(client, informers, env),
        *disruption.build(client, informers, env),
        autoscaling.build(client, informers, env),
        *protection.build(client, informers, env),
        *volumes.build(client, informers, env),
        *claims.build(client, informers, env),
        taints.build(client, informers, env),
        *endpoints.build(client, informers, env),
        *podgc.build(client, informers, env),
        podgroups.build(client, informers, env),
        servicecidrs.build(client, informers, env),
        *nodes.build(client, informers, env),
    ]
