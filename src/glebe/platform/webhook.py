"""The admission rules as a webhook, for clusters that do not serve MutatingAdmissionPolicy.

It answers from caches of the classes and never calls back into the cluster while a request waits. The cluster must be
able to reach the address given to ``--webhook-listen`` (:mod:`.door`).
"""

from __future__ import annotations

import asyncio
import base64
import logging
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress

from glebe.kube import resources as r
from glebe.kube.client import Client
from glebe.kube.clock import Env
from glebe.kube.informer import Informers
from glebe.kube.objects import Object, ObjectKey
from glebe.kube.resources import Resource
from glebe.platform.door import Door, json_answer
from glebe.queueing.gatekeeping.admission import review
from glebe.queueing.jobkinds.registry import shipped
from glebe.queueing.labels import QUEUE_NAME

log = logging.getLogger("glebe.platform")

NAME = "glebe-queue"
PATH = "/mutate"
CONFIGURATIONS = Resource(
    "admissionregistration.k8s.io",
    "v1",
    "mutatingwebhookconfigurations",
    "MutatingWebhookConfiguration",
    namespaced=False,
)
CLASSES = (r.WORKLOAD_CLASSES, r.WORKLOAD_PRIORITY_CLASSES, r.PRIORITY_CLASSES)


@asynccontextmanager
async def serve(client: Client, env: Env, namespace: str, door: Door) -> AsyncIterator[None]:
    """Answer at ``door`` and be registered while the block runs.

    :param namespace: exempt from the webhook, so that Glebe itself can always start.
    """
    informers = Informers(client, env)
    caches = {resource: informers.get(resource) for resource in CLASSES}
    feeding = asyncio.create_task(informers.run())

    def find(resource: Resource, name: str, namespace: str = "") -> Object | None:
        cache = caches.get(resource)
        return cache.store.get(ObjectKey(client.cluster, "", name)) if cache else None

    door.paths[PATH] = json_answer(lambda asked: review(asked, find))
    try:
        await informers.wait_synced()
        await client.apply(CONFIGURATIONS, configuration(f"{door.url}{PATH}", door.ca, namespace), force=True)
        log.info("the admission webhook is served at %s", door.url)
        yield
    finally:
        del door.paths[PATH]
        feeding.cancel()
        with suppress(asyncio.CancelledError):
            await feeding


def configuration(url: str, ca: bytes, namespace: str) -> Object:
    """What tells the cluster to ask this webhook. It fails closed: an unsuspended job would jump the queue."""
    rules = [
        {
            "apiGroups": [integration.resource.group],
            "apiVersions": [integration.resource.version],
            "resources": [integration.resource.plural],
            "operations": ["CREATE", "UPDATE"] if integration.held_by_pods and integration.pod_sets else ["CREATE"],
            "scope": "Namespaced",
        }
        for integration in shipped()
    ]
    exempt = {"key": "kubernetes.io/metadata.name", "operator": "NotIn", "values": ["kube-system", namespace]}
    return {
        "apiVersion": CONFIGURATIONS.api_version,
        "kind": CONFIGURATIONS.kind,
        "metadata": {"name": NAME},
        "webhooks": [
            {
                "name": "queue.glebe.dev",
                "admissionReviewVersions": ["v1"],
                "sideEffects": "None",
                "failurePolicy": "Fail",
                "timeoutSeconds": 5,
                "clientConfig": {"url": url, "caBundle": base64.b64encode(ca).decode()},
                "namespaceSelector": {"matchExpressions": [exempt]},
                "objectSelector": {"matchExpressions": [{"key": QUEUE_NAME, "operator": "Exists"}]},
                "rules": rules,
            }
        ],
    }
