"""What every namespace has: ServiceAccount ``default`` and ConfigMap ``kube-root-ca.crt``."""

from __future__ import annotations

from collections.abc import Iterable

from glebe.kube.client import Client
from glebe.kube.clock import Env
from glebe.kube.controller import Controller, Result
from glebe.kube.errors import ApiError, is_already_exists, is_not_found
from glebe.kube.informer import Informers
from glebe.kube.objects import EVERY, Object, ObjectKey, is_deleting, key_of
from glebe.kube.resources import CONFIGMAPS, NAMESPACES, SERVICE_ACCOUNTS

DEFAULT = "default"
ROOT_CA = "kube-root-ca.crt"


class ServiceAccountController:
    """Creates what is missing, and repairs the certificate."""

    def __init__(self, client: Client, informers: Informers, env: Env, root_ca: str) -> None:
        self._client = client
        self._env = env
        self._root_ca = root_ca
        self._namespaces = informers.get(NAMESPACES)
        self._accounts = informers.get(SERVICE_ACCOUNTS, field_selector=f"metadata.name={DEFAULT}")
        self._certificates = informers.get(CONFIGMAPS, field_selector=f"metadata.name={ROOT_CA}")

    def controller(self) -> Controller:
        controller = Controller("serviceaccount", self.reconcile, self._env, workers=2)
        controller.watch(self._namespaces)
        controller.watch(self._accounts, self._namespace_of)
        controller.watch(self._certificates, self._namespace_of)
        return controller

    def _namespace_of(self, obj: Object) -> Iterable[ObjectKey]:
        yield key_of(obj, self._client.cluster)._replace(namespace="", name=obj["metadata"]["namespace"])

    async def reconcile(self, key: ObjectKey) -> Result | None:
        namespace = self._namespaces.store.get(key)
        if (namespace is None and self._client.cluster != EVERY) or (namespace is not None and is_deleting(namespace)):
            return None
        client = self._client.at(key.cluster)
        try:
            if namespace is None and is_deleting(await client.get(NAMESPACES, key.name)):
                return None  # over all clusters, a namespace that every cluster has is not seen before it is changed
            await self._ensure_account(client, key)
            await self._ensure_certificate(client, key)
        except ApiError as error:
            # The namespace ends at this moment: its own deletion event follows.
            if not is_not_found(error) and "being terminated" not in error.message:
                raise
        return None

    async def _ensure_account(self, client: Client, namespace: ObjectKey) -> None:
        if ObjectKey(namespace.cluster, namespace.name, DEFAULT) in self._accounts.store:
            return
        meta = {"name": DEFAULT, "namespace": namespace.name}
        try:
            await client.create(SERVICE_ACCOUNTS, {"apiVersion": "v1", "kind": "ServiceAccount", "metadata": meta})
        except ApiError as error:
            if not is_already_exists(error):
                raise

    async def _ensure_certificate(self, client: Client, namespace: ObjectKey) -> None:
        if not self._root_ca:
            return
        old = self._certificates.store.get(ObjectKey(namespace.cluster, namespace.name, ROOT_CA))
        if old is not None and (old.get("data") or {}).get("ca.crt") == self._root_ca:
            return
        text = "Contains a CA bundle that can be used to verify the kube-apiserver when using internal endpoints"
        meta = {"name": ROOT_CA, "namespace": namespace.name, "annotations": {"kubernetes.io/description": text}}
        config = {"apiVersion": "v1", "kind": "ConfigMap", "metadata": meta, "data": {"ca.crt": self._root_ca}}
        if old is not None:
            await client.update(CONFIGMAPS, {**old, "data": config["data"]})
            return
        try:
            await client.create(CONFIGMAPS, config)
        except ApiError as error:
            if not is_already_exists(error):
                raise


def build(client: Client, informers: Informers, env: Env, root_ca: str = "") -> Controller:
    """The controller of what ``client`` reads: one cluster, or all; without ``root_ca`` (PEM) no ConfigMap is made."""
    return ServiceAccountController(client, informers, env, root_ca).controller()
