"""The flags about identity and audit: files read, mistakes named."""

from __future__ import annotations

import inspect
from pathlib import Path
from typing import Any

import pytest
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric import ec

from glebe.apiserver.auth.pki import Pki
from glebe.cli.serverflags import FLAGS
from glebe.cli.verbs.up import up
from glebe.kube.clock import LoopClock
from glebe.platform.serverflags import FlagError, ServerFlags, read

POLICY = "apiVersion: audit.k8s.io/v1\nkind: Policy\nrules: [{level: Metadata}]\n"
PROVIDERS = """apiVersion: apiserver.config.k8s.io/v1
kind: AuthenticationConfiguration
jwt:
- issuer: {url: "https://idp.example.org", audiences: [glebe]}
  claimMappings: {username: {claim: sub, prefix: ""}}
"""


def defaults() -> dict[str, Any]:
    return {name.replace("-", "_"): default for name, _, default, _, _ in FLAGS}


def test_the_defaults_change_nothing() -> None:
    assert read({}) == ServerFlags()
    assert read(defaults()) == ServerFlags()


def test_every_flag_is_an_option_of_up() -> None:
    assert {name.replace("-", "_") for name, *_ in FLAGS} <= set(inspect.signature(up).parameters)


def test_what_flags_name_is_read(tmp_path: Path) -> None:
    pki = Pki(tmp_path / "pki")
    pki.ensure([], LoopClock.EPOCH)
    (tmp_path / "tokens").write_text("t,ann,7,dev\n")
    (tmp_path / "policy").write_text(POLICY)
    (tmp_path / "providers").write_text(PROVIDERS)
    public = ec.generate_private_key(ec.SECP256R1()).public_key()
    pem = public.public_bytes(serialization.Encoding.PEM, serialization.PublicFormat.SubjectPublicKeyInfo)
    (tmp_path / "key").write_bytes(pem)
    flags = read(
        {
            **defaults(),
            "token_auth_file": str(tmp_path / "tokens"),
            "client_ca_file": str(pki.ca_file),
            "requestheader_client_ca_file": str(pki.ca_file),
            "requestheader_allowed_names": "front, other",
            "authentication_config": str(tmp_path / "providers"),
            "service_account_issuer": "https://glebe.example.org",
            "service_account_key_file": [str(tmp_path / "key")],
            "audit_policy_file": str(tmp_path / "policy"),
            "audit_log_path": str(tmp_path / "log"),
            "audit_log_maxbackup": 3,
            "anonymous_auth": False,
        }
    )
    identity = flags.identity
    assert identity.static_tokens["t"].name == "ann"
    assert identity.proxy
    assert identity.proxy.allowed_names == ("front", "other")
    assert identity.authentication
    assert identity.authentication.issuers[0].url == "https://idp.example.org"
    assert (identity.issuer, identity.anonymous) == ("https://glebe.example.org", False)
    assert identity.further_keys[0] == public
    assert len(flags.further_cas) == 2
    assert flags.server.audit
    assert flags.server.audit.rotation.max_backups == 3


@pytest.mark.parametrize(
    ("flags", "why"),
    [
        ({"token_auth_file": "/nowhere"}, "--token-auth-file: /nowhere: No such file"),
        ({"client_ca_file": "BAD"}, "--client-ca-file"),
        ({"service_account_key_file": ["BAD"]}, "--service-account-key-file"),
        ({"authentication_config": "BAD"}, "--authentication-config: .*kind"),
        ({"audit_policy_file": "BAD", "audit_log_path": "-"}, "--audit-policy-file: .*kind"),
        ({"audit_policy_file": "BAD"}, "--audit-policy-file: without --audit-log-path"),
        ({"oidc_issuer_url": "https://x"}, "--oidc-client-id"),
        ({"oidc_issuer_url": "http://x", "oidc_client_id": "y"}, "https"),
        ({"service_account_issuer": "glebe"}, "--service-account-issuer"),
        ({"audit_log_maxage": -1, "audit_log_path": "-"}, "--audit-log-maxage"),
    ],
)
def test_mistakes_name_the_flag(tmp_path: Path, flags: dict[str, Any], why: str) -> None:
    bad = tmp_path / "bad"
    bad.write_text("what: is this\n")
    given = {k: str(bad) if v == "BAD" else [str(bad)] if v == ["BAD"] else v for k, v in flags.items()}
    with pytest.raises(FlagError, match=why):
        read({**defaults(), **given})


def test_admission(tmp_path: Path) -> None:
    (tmp_path / "pods").write_text(
        "apiVersion: pod-security.admission.config.k8s.io/v1\nkind: PodSecurityConfiguration\n"
        "defaults: {enforce: baseline}\nexemptions: {namespaces: [kube-system]}\n"
    )
    (tmp_path / "admission").write_text("plugins: [{name: PodSecurity, path: pods}]\n")
    options = read(
        {
            **defaults(),
            "enable_admission_plugins": "AlwaysPullImages,NamespaceLifecycle",
            "disable_admission_plugins": "PodSecurity, Priority",
            "default_not_ready_toleration_seconds": 300,
            "admission_control_config_file": str(tmp_path / "admission"),
            "max_requests_per_cluster": 100,
            "max_watches_per_user": 20,
            "request_timeout": 30,
        }
    ).server
    fair = options.fairness
    assert (fair.enabled, fair.seats, fair.request_seconds) == (True, 600, 30.0)
    assert (fair.cluster_requests, fair.user_watches, fair.user_requests) == (100.0, 20, 0.0)
    assert options.enable == {"AlwaysPullImages"}
    assert options.disable == {"PodSecurity", "Priority"}
    assert (options.not_ready_seconds, options.unreachable_seconds) == (300, 15)
    assert options.pod_security["defaults"] == {"enforce": "baseline"}


@pytest.mark.parametrize(
    ("flags", "text"),
    [
        ({"enable_admission_plugins": "Nothing"}, "there is no plugin Nothing to turn on"),
        ({"disable_admission_plugins": "NamespaceLifecycle"}, "there is no plugin NamespaceLifecycle to turn off"),
        ({"enable_admission_plugins": "Priority", "disable_admission_plugins": "Priority"}, "Priority is in"),
    ],
)
def test_plugins_that_cannot_be_chosen(flags: dict[str, str], text: str) -> None:
    with pytest.raises(FlagError, match=text):
        read({**defaults(), **flags})


@pytest.mark.parametrize(
    ("content", "text"),
    [
        ("plugins: [{name: ImagePolicyWebhook}]", "plugin ImagePolicyWebhook takes no configuration here"),
        ("plugins: [{name: PodSecurity, configuration: {kind: Pod}}]", "expected a PodSecurityConfiguration, got Pod"),
        (
            "plugins: [{name: PodSecurity, configuration: {kind: PodSecurityConfiguration, defaults: {warn: odd}}}]",
            "must be one of privileged, baseline, restricted",
        ),
    ],
)
def test_wrong_configurations(content: str, text: str, tmp_path: Path) -> None:
    (tmp_path / "admission").write_text(content)
    with pytest.raises(FlagError, match=text):
        read({**defaults(), "admission_control_config_file": str(tmp_path / "admission")})
