"""Puts authentication and authorization into a server."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from glebe.apiserver.auth import issuer
from glebe.apiserver.auth.authn import Authenticator, TokenUsers
from glebe.apiserver.auth.authorizer import Authorizers
from glebe.apiserver.auth.bootstrap import BINDINGS, CLUSTER_BINDINGS, CLUSTER_ROLES, ROLES
from glebe.apiserver.auth.bootstraptokens import BootstrapTokens
from glebe.apiserver.auth.csradmission import Requester
from glebe.apiserver.auth.csrsigning import Signer
from glebe.apiserver.auth.escalation import EscalationCheck
from glebe.apiserver.auth.issuer import IssuerDocuments
from glebe.apiserver.auth.nodes import NodeAuthorizer
from glebe.apiserver.auth.options import IdentityOptions
from glebe.apiserver.auth.pki import Pki
from glebe.apiserver.auth.rbac import RbacAuthorizer
from glebe.apiserver.auth.requestheader import RequestHeaders
from glebe.apiserver.auth.reviews import Reviews
from glebe.apiserver.auth.seeding import Seeding
from glebe.apiserver.auth.tokens import ServiceAccountTokens
from glebe.apiserver.request.routing import ROOT
from glebe.kube.clock import Env

if TYPE_CHECKING:
    from glebe.apiserver.server import ApiServer


@dataclass(frozen=True, slots=True)
class Identity:
    """What the controllers behind identities need of the server's keys."""

    tokens: ServiceAccountTokens
    signer: Signer


def secure(server: ApiServer, pki: Pki, env: Env, options: IdentityOptions | None = None) -> Identity:
    """Give ``server`` an authenticator, an authorizer, a token issuer, reviews and the escalation check.

    Requests of trusted in-process transports are not touched by this. Call after ``pki.ensure``.
    """
    options = options or IdentityOptions()
    uid_of = server.clusters.uid
    tokens = ServiceAccountTokens(
        (pki.signing_key(), *options.further_keys),
        env,
        server,
        uid_of=uid_of,
        issuer=options.issuer,
        longest_life=options.longest_token,
    )
    configured = options.authentication
    anonymous = options.anonymous if configured is None or configured.anonymous is None else configured.anonymous
    authenticator = Authenticator(
        env.clock,
        cas=(pki.ca_certificate, *options.client_cas),
        tokens=tokens,
        bootstrap=BootstrapTokens(env.clock, server),
        static_tokens=options.static_tokens,
        proxy=RequestHeaders(env.clock, options.proxy) if options.proxy is not None else None,
        users=_users(env, options),
        uid_of=uid_of,
        anonymous=anonymous,
        anonymous_paths=None if configured is None else configured.anonymous_paths,
    )
    rbac = RbacAuthorizer(server)
    authorizer = Authorizers(rbac, NodeAuthorizer(lambda: server.store))
    server.authenticator = authenticator
    server.authorizer = authorizer
    server.token_issuer = tokens
    _know_front_proxy(server, pki, env)
    server.reviews = Reviews(env.clock, authorizer, authenticator)
    server.admission = (*server.admission, Requester())
    server.validating = (*server.validating, EscalationCheck(rbac))
    seeding = Seeding(server)
    for resource in (ROLES, CLUSTER_ROLES, BINDINGS, CLUSTER_BINDINGS):
        server.preparing[resource] = seeding
    documents = IssuerDocuments(tokens)
    server.paths[issuer.CONFIGURATION] = documents.configuration
    server.paths[issuer.KEYS] = documents.keys
    return Identity(tokens, Signer(pki, env.clock, lambda name: uid_of(name or ROOT)))


def _know_front_proxy(server: ApiServer, pki: Pki, env: Env) -> None:
    """Servers behind aggregation believe this one, and learn from a ConfigMap whom else."""
    from glebe.apiserver.aggregation.identity import FrontProxy

    front = FrontProxy(pki, env.clock.now())
    server.front_proxy = front.identity()
    server.clusters.first_objects = (
        *server.clusters.first_objects,
        ("configmaps", front.config_map(pki.ca_pem)),
    )


def _users(env: Env, options: IdentityOptions) -> TokenUsers | None:
    if options.authentication is None or not options.authentication.issuers:
        return None
    from glebe.apiserver.auth.oidc import OidcUsers  # late: brings an HTTP client

    return OidcUsers(env, options.authentication.issuers)
