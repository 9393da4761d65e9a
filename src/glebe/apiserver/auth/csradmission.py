"""Admission of certificate signing requests: who asks is written down, who approves or signs must have the right to."""

from __future__ import annotations

from base64 import b64decode
from typing import TYPE_CHECKING

from glebe.apiserver.admission.base import AdmissionAttributes, BuiltinPlugin
from glebe.apiserver.auth.rules import Attributes
from glebe.apiserver.auth.scope import MASTERS

if TYPE_CHECKING:
    from glebe.apiserver.assembly import Assembly
    from glebe.apiserver.server import ApiServer

GROUP = "certificates.k8s.io"
REQUESTS = f"certificatesigningrequests.{GROUP}"
API_CLIENT = "kubernetes.io/kube-apiserver-client"


class Requester:
    """Writes into a new request who made it. Not a plugin that could be turned off: approvers rely on it."""

    resources = frozenset({REQUESTS})

    async def admit(self, a: AdmissionAttributes) -> None:
        if a.operation != "CREATE" or a.subresource or a.obj is None:
            return
        spec = a.obj.setdefault("spec", {})
        for field in ("username", "uid", "groups", "extra"):
            spec.pop(field, None)
        user = a.user
        spec["username"] = user.name
        if user.uid:
            spec["uid"] = user.uid
        if user.groups:
            spec["groups"] = list(user.groups)
        if user.extra:
            spec["extra"] = {k: list(v) for k, v in user.extra.items()}


class _SignerRight(BuiltinPlugin):
    """The right to a verb on the signer of a request."""

    resources = frozenset({REQUESTS})
    subresource: str
    verb: str

    def __init__(self, server: ApiServer) -> None:
        self._server = server

    async def validate(self, a: AdmissionAttributes) -> None:
        if a.operation != "UPDATE" or a.subresource != self.subresource or a.old is None or not self._concerns(a):
            return
        signer = str((a.old.get("spec") or {}).get("signerName") or "")
        if not await self._may(a, signer):
            raise a.refusal(f'user not permitted to {self.verb} requests with signerName "{signer}"')

    def _concerns(self, a: AdmissionAttributes) -> bool:
        return True

    async def _may(self, a: AdmissionAttributes, signer: str) -> bool:
        authorizer = self._server.authorizer
        if authorizer is None or MASTERS in a.user.groups:
            return True
        domain = signer.partition("/")[0]
        for name in (signer, f"{domain}/*"):
            asked = Attributes(self.verb, GROUP, "signers", name=name)
            allowed, _ = await authorizer.authorize(
                a.user, a.cluster, asked.verb, asked.group, asked.resource, "", "", asked.name, ""
            )
            if allowed:
                return True
        return False


class Approval(_SignerRight):
    """``approve`` on the signer, besides the right to the subresource."""

    name = "CertificateApproval"
    subresource = "approval"
    verb = "approve"


class Signing(_SignerRight):
    """``sign`` on the signer for whoever writes the certificate or conditions."""

    name = "CertificateSigning"
    subresource = "status"
    verb = "sign"

    def _concerns(self, a: AdmissionAttributes) -> bool:
        new, old = ((o or {}).get("status") or {} for o in (a.obj, a.old))
        return any(new.get(k) != old.get(k) for k in ("certificate", "conditions"))


class SubjectRestriction(BuiltinPlugin):
    """Nobody asks for a client certificate of ``system:masters``."""

    name = "CertificateSubjectRestriction"
    resources = frozenset({REQUESTS})

    async def validate(self, a: AdmissionAttributes) -> None:
        spec = (a.obj or {}).get("spec") or {}
        if a.operation != "CREATE" or a.subresource or spec.get("signerName") != API_CLIENT:
            return
        from cryptography import x509
        from cryptography.x509.oid import NameOID

        try:
            request = x509.load_pem_x509_csr(b64decode(spec.get("request") or ""))
            groups = [str(g.value) for g in request.subject.get_attributes_for_oid(NameOID.ORGANIZATION_NAME)]
        except (ValueError, TypeError) as error:
            raise a.refusal(f"failed to parse CSR: {error}") from None
        if MASTERS in groups:
            raise a.refusal(f"use of {API_CLIENT} signer with {MASTERS} group is not allowed")


def contribute(assembly: Assembly) -> None:
    """The three plugins of upstream's names."""
    server = assembly.server
    for plugin in (Approval(server), Signing(server), SubjectRestriction()):
        assembly.plugin(plugin.name, plugin)
