"""The controllers behind identities and rights: certificates, tokens in secrets, aggregated roles."""

from __future__ import annotations

from glebe.kube.client import Client
from glebe.kube.clock import Env
from glebe.kube.controller import Controller
from glebe.kube.informer import Informers
from glebe.workloads.accounttokens import IssueToken
from glebe.workloads.certificates import CertificateSigner


def controllers(
    client: Client,
    informers: Informers,
    env: Env,
    *,
    signer: CertificateSigner,
    issue_token: IssueToken,
    root_ca: str = "",
) -> list[Controller]:
    """All of them, not yet running, for what ``client`` sees: one logical cluster, or all.

    :param signer: holds the key of the CA. :param issue_token: signs service account tokens without an end.
    :param root_ca: PEM of the API server's CA, put beside such tokens.
    """
    from glebe.workloads import accounttokens, certificates, roles

    return [
        certificates.build(client, informers, env, signer),
        roles.build(client, informers, env),
        *accounttokens.build(client, informers, env, issue_token, root_ca),
    ]
