"""``serviceaccounts/NAME/token``: hands out a token through whoever signs them."""

from __future__ import annotations

from typing import Protocol

from glebe.apiserver.request import media, options
from glebe.apiserver.request.call import Call, respond
from glebe.apiserver.verbs import admitting
from glebe.kube import errors
from glebe.kube.objects import Object
from glebe.kube.transport import Response


class TokenIssuer(Protocol):
    """Signs service account tokens."""

    def issue(self, cluster: str, service_account: Object, request: Object) -> Object:
        """A TokenRequest with ``status.token`` and ``status.expirationTimestamp`` for the given TokenRequest.

        :raises ApiError: 422 for an expiry out of range, 404 for a bound object that does not exist.
        """
        ...


async def request(call: Call) -> Response:
    issuer = call.server.token_issuer
    if issuer is None:
        raise errors.method_not_allowed()
    entry = call.server.store.get(call.key())
    if entry is None:
        raise call.not_found()
    body = media.decode(call.request.body, call.request.headers.get("content-type", ""))
    if body.get("kind", "TokenRequest") != "TokenRequest":
        raise errors.bad_request(f"expected a TokenRequest, got {body.get('kind')}")
    call.dry_run = options.dry_run(call.request)
    body["apiVersion"], body["kind"] = "authentication.k8s.io/v1", "TokenRequest"
    body.setdefault("metadata", {})
    await admitting.mutate(call, "CREATE", body, None)
    await admitting.judge(call)
    return respond(issuer.issue(call.cluster, entry.view(), body), call.wanted, 201)
