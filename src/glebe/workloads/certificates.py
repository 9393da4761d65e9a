"""Certificate signing requests: kubelets' own are approved, approved ones are signed, old ones go."""

from __future__ import annotations

from base64 import b64encode
from typing import Protocol

from glebe.kube.client import Client
from glebe.kube.clock import Env, format_time, parse_time
from glebe.kube.controller import Controller, Result
from glebe.kube.errors import ApiError, is_not_found
from glebe.kube.informer import Informers
from glebe.kube.objects import Object, ObjectKey, condition_is_true
from glebe.kube.resources import Resource

REQUESTS = Resource("certificates.k8s.io", "v1", "certificatesigningrequests", "CertificateSigningRequest", False)
REVIEWS = Resource("authorization.k8s.io", "v1", "subjectaccessreviews", "SubjectAccessReview", False)
SIGNERS = (
    "kubernetes.io/kube-apiserver-client",
    "kubernetes.io/kube-apiserver-client-kubelet",
    "kubernetes.io/kubelet-serving",
)
DECIDED_KEPT = 3600.0
"""Seconds for which an approved or denied request is kept; one that nobody decides on stays for 24 h."""
PENDING_KEPT = 24 * 3600.0

_SELF = "Auto approving self kubelet client certificate after SubjectAccessReview."
_OTHER = "Auto approving kubelet client certificate after SubjectAccessReview."


class CertificateSigner(Protocol):
    """Who holds the CA's key."""

    def recognise(self, obj: Object) -> str:
        """The user for whom a kubelet's client certificate is asked; "" for all other requests."""
        ...

    def sign(self, cluster: str, obj: Object) -> bytes:
        """The certificate (PEM).

        :raises ValueError: why it will never be signed.
        """
        ...


class CertificateController:
    """Approver, signer and cleaner in one, since all three look at the same few objects."""

    def __init__(self, client: Client, informers: Informers, env: Env, signer: CertificateSigner) -> None:
        self._client = client
        self._env = env
        self._signer = signer
        self._requests = informers.get(REQUESTS)

    def controller(self) -> Controller:
        controller = Controller("certificates", self.reconcile, self._env)
        controller.watch(self._requests)
        return controller

    async def reconcile(self, key: ObjectKey) -> Result | None:
        request = self._requests.store.get(key)
        if request is None:
            return None
        client = self._client.at(key.cluster)
        try:
            left = _time_left(request, self._env.clock.now())
            if left <= 0:
                await client.delete(REQUESTS, key.name, uid=request["metadata"]["uid"])
                return None
            await self._advance(client, key.cluster, request)
        except ApiError as error:
            if not is_not_found(error):
                raise
        return Result(requeue_after=left)

    async def _advance(self, client: Client, cluster: str, request: Object) -> None:
        status = request.get("status") or {}
        if status.get("certificate") or condition_is_true(request, "Failed") or condition_is_true(request, "Denied"):
            return
        if not condition_is_true(request, "Approved"):
            await self._approve(client, request)
        elif request["spec"].get("signerName") in SIGNERS:
            await self._sign(client, cluster, request)

    async def _approve(self, client: Client, request: Object) -> None:
        """A kubelet's request for itself, or somebody's who may ask for kubelets."""
        wanted = self._signer.recognise(request)
        if not wanted:
            return
        tries = [("nodeclient", _OTHER)]
        if wanted == request["spec"].get("username"):
            tries.insert(0, ("selfnodeclient", _SELF))
        for subresource, message in tries:
            if await self._may(client, request["spec"], subresource):
                condition = {"type": "Approved", "status": "True", "reason": "AutoApproved", "message": message}
                await self._write(client, request, "approval", conditions=condition)
                return

    async def _may(self, client: Client, spec: Object, subresource: str) -> bool:
        asked = {
            "group": REQUESTS.group,
            "resource": REQUESTS.plural,
            "subresource": subresource,
            "verb": "create",
            "version": "*",
        }
        about = {name: spec[key] for name, key in _SUBJECT.items() if spec.get(key)}
        review = {
            "apiVersion": "authorization.k8s.io/v1",
            "kind": "SubjectAccessReview",
            "metadata": {},
            "spec": {**about, "resourceAttributes": asked},
        }
        answer = await client.create(REVIEWS, review)
        return bool(answer["status"].get("allowed"))

    async def _sign(self, client: Client, cluster: str, request: Object) -> None:
        try:
            certificate = self._signer.sign(cluster, request)
        except ValueError as error:
            why = {"reason": "SignerValidationFailure", "message": str(error)}
            await self._write(client, request, "status", conditions={"type": "Failed", "status": "True", **why})
            return
        await self._write(client, request, "status", certificate=b64encode(certificate).decode())

    async def _write(
        self,
        client: Client,
        request: Object,
        subresource: str,
        *,
        conditions: Object | None = None,
        certificate: str = "",
    ) -> None:
        status = dict(request.get("status") or {})
        if conditions is not None:
            conditions["lastUpdateTime"] = format_time(self._env.clock.now())
            status["conditions"] = [*(status.get("conditions") or ()), conditions]
        if certificate:
            status["certificate"] = certificate
        await client.update(REQUESTS, {**request, "status": status}, subresource=subresource)


_SUBJECT = {"user": "username", "uid": "uid", "groups": "groups", "extra": "extra"}


def _time_left(request: Object, now: float) -> float:
    """Seconds until the request has been kept long enough."""
    status = request.get("status") or {}
    decided = [c for c in status.get("conditions") or () if c.get("type") in ("Approved", "Denied", "Failed")]
    times = [parse_time(c["lastUpdateTime"]) for c in decided if c.get("lastUpdateTime")]
    is_over = bool(times) and (status.get("certificate") or any(c["type"] != "Approved" for c in decided))
    if is_over:
        return max(times) + DECIDED_KEPT - now
    return parse_time(request["metadata"]["creationTimestamp"]) + PENDING_KEPT - now


def build(client: Client, informers: Informers, env: Env, signer: CertificateSigner) -> Controller:
    """The controller of what ``client`` sees: one logical cluster, or all."""
    return CertificateController(client, informers, env, signer).controller()
