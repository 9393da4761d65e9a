"""PersistentVolumes and their claims: who gets which volume, what is made for whom, what becomes of it."""

from __future__ import annotations

from glebe.kube.client import Client
from glebe.kube.clock import Env
from glebe.kube.controller import Controller
from glebe.kube.informer import Informers


def build(client: Client, informers: Informers, env: Env) -> list[Controller]:
    """All controllers of volumes, for one cluster or (with a client over all) for all."""
    from glebe.workloads.volumes import classes, controller, ephemeral

    return [
        *controller.Binding(client, informers, env).controllers(),
        ephemeral.build(client, informers, env),
        classes.build(client, informers, env),
    ]
