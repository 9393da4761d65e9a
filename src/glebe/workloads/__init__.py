"""The Kubernetes controllers that an embedded control plane needs."""

from __future__ import annotations

from glebe.kube.client import Client
from glebe.kube.clock import Env
from glebe.kube.controller import Controller
from glebe.kube.informer import Informers

__all__ = ["controllers"]


def controllers(client: Client, informers: Informers, env: Env, *, root_ca: str = "") -> list[Controller]:
    """All controllers of one logical cluster, not yet running.

    :param root_ca: PEM of the API server's CA, published in every namespace as ``kube-root-ca.crt``.
    """
    from glebe.workloads import namespaces, serviceaccounts
    from glebe.workloads.binder import controller as binder
    from glebe.workloads.garbage import collector
    from glebe.workloads.job import controller as job
    from glebe.workloads.nodes import controller as nodes

    return [
        namespaces.build(client, informers, env),
        serviceaccounts.build(client, informers, env, root_ca),
        job.build(client, informers, env),
        binder.build(client, informers, env),
        collector.build(client, informers, env),
        *nodes.build(client, informers, env),
    ]
