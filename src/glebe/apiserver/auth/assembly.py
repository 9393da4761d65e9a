"""Puts authentication and authorization into a server."""

from __future__ import annotations

from collections.abc import Mapping

from glebe.apiserver.auth.authn import Authenticator
from glebe.apiserver.auth.escalation import EscalationCheck
from glebe.apiserver.auth.pki import Pki
from glebe.apiserver.auth.rbac import RbacAuthorizer
from glebe.apiserver.auth.reviews import Reviews
from glebe.apiserver.auth.tokens import ServiceAccountTokens
from glebe.apiserver.server import ApiServer
from glebe.kube.clock import Env
from glebe.kube.transport import User


def secure(server: ApiServer, pki: Pki, env: Env, *, static_tokens: Mapping[str, User] | None = None) -> None:
    """Give ``server`` an authenticator, an authorizer, a token issuer, reviews and the escalation check.

    Requests of trusted in-process transports are not touched by this. Call after ``pki.ensure``.
    """
    tokens = ServiceAccountTokens(pki.signing_key(), env, server)
    authenticator = Authenticator(env.clock, ca=pki.ca_certificate, tokens=tokens, static_tokens=static_tokens)
    authorizer = RbacAuthorizer(server)
    server.authenticator = authenticator
    server.authorizer = authorizer
    server.token_issuer = tokens
    server.reviews = Reviews(env.clock, authorizer, authenticator)
    server.admission = (*server.admission, EscalationCheck(authorizer))
