"""The options of ``glebe up`` about identity, audit and admission, under upstream's names."""

from __future__ import annotations

import functools
import inspect
from collections.abc import Callable
from typing import Annotated, Any, Final

import typer

_API, _IDENTITY, _OIDC, _PROXY, _TOKENS, _AUDIT, _ADMISSION = (
    "API", "Who is believed", "Identity provider", "Front proxy", "Service account tokens", "Audit log", "Admission"
)  # fmt: skip
_FAIRNESS = "Fairness and limits"

#: (flag, type, default, panel, help)
FLAGS: Final[tuple[tuple[str, Any, Any, str, str], ...]] = (
    ("kubernetes-version", str, "", _API, "Release whose kinds are served: 1.36 (the default), 1.35 or 1.34."),
    ("runtime-config", str, "", _API, "Further API versions: GROUP/VERSION=true or api/all=true, with commas."),
    ("client-ca-file", str, "", _IDENTITY, "PEM file of further CAs whose client certificates are good."),
    ("token-auth-file", str, "", _IDENTITY, "CSV file of static tokens: token,user,uid,groups."),
    ("authentication-config", str, "", _IDENTITY, "AuthenticationConfiguration file: identity providers, anonymous."),
    ("anonymous-auth", bool, True, _IDENTITY, "Serve requests without credentials as system:anonymous."),
    ("oidc-issuer-url", str, "", _OIDC, "URL of the provider (https)."),
    ("oidc-client-id", str, "", _OIDC, "The audience that its tokens must name."),
    ("oidc-username-claim", str, "sub", _OIDC, "Claim with the user's name."),
    ("oidc-username-prefix", str, "", _OIDC, "Put before names ('-': nothing; else the issuer's URL, unless email)."),
    ("oidc-groups-claim", str, "", _OIDC, "Claim with the user's groups."),
    ("oidc-groups-prefix", str, "", _OIDC, "Put before groups."),
    ("oidc-required-claim", list[str], [], _OIDC, "KEY=VALUE that a token must hold; may be repeated."),
    ("oidc-signing-algs", str, "RS256", _OIDC, "Algorithms that are accepted, with commas."),
    ("oidc-ca-file", str, "", _OIDC, "PEM file of the CA of its HTTPS (else the system's)."),
    ("requestheader-client-ca-file", str, "", _PROXY, "PEM file of the CAs of the proxy's certificate."),
    ("requestheader-allowed-names", str, "", _PROXY, "Common names of its certificate, with commas (else any)."),
    ("requestheader-username-headers", str, "X-Remote-User", _PROXY, "Headers with the user's name."),
    ("requestheader-uid-headers", str, "X-Remote-Uid", _PROXY, "Headers with the user's uid."),
    ("requestheader-group-headers", str, "X-Remote-Group", _PROXY, "Headers with the user's groups."),
    (
        "requestheader-extra-headers-prefix",
        str,
        "X-Remote-Extra-",
        _PROXY,
        "How headers with more about the user begin.",
    ),
    ("service-account-issuer", str, "", _TOKENS, "URL under which others find the issuer's documents."),
    (
        "service-account-key-file",
        list[str],
        [],
        _TOKENS,
        "PEM file of a further key whose tokens are good; repeatable.",
    ),
    ("service-account-max-token-expiration", int, 0, _TOKENS, "Seconds to which longer requests are shortened."),
    ("audit-policy-file", str, "", _AUDIT, "What is written (audit.k8s.io/v1 Policy; else metadata of everything)."),
    ("audit-log-path", str, "", _AUDIT, "File of the log; '-' is standard output. No log without it."),
    ("audit-log-maxsize", int, 100, _AUDIT, "MiB after which the file is put aside."),
    ("audit-log-maxage", int, 0, _AUDIT, "Days for which files put aside are kept (0: for ever)."),
    ("audit-log-maxbackup", int, 0, _AUDIT, "How many files put aside are kept (0: all)."),
    ("enable-admission-plugins", str, "", _ADMISSION, "Plugins to turn on besides the usual ones, with commas."),
    ("disable-admission-plugins", str, "", _ADMISSION, "Plugins to turn off, with commas."),
    ("admission-control-config-file", str, "", _ADMISSION, "AdmissionConfiguration file (for PodSecurity)."),
    ("tenant-dial-allow", str, "", _ADMISSION, "Networks that tenants' webhooks may be in although they are local."),
    ("tenant-dial-deny", str, "", _ADMISSION, "Networks that tenants' webhooks may not be in."),
    ("default-not-ready-toleration-seconds", int, 15, _ADMISSION, "How long pods stay on a node that is not ready."),
    ("default-unreachable-toleration-seconds", int, 15, _ADMISSION, "How long pods stay on a node that is silent."),
    ("enable-priority-and-fairness", bool, True, _FAIRNESS, "Share the server fairly; without it nobody waits."),
    ("max-requests-inflight", int, 600, _FAIRNESS, "Seats of each logical cluster, for its priority levels (0: any)."),
    ("request-timeout", int, 60, _FAIRNESS, "Seconds after which a request that is not long-running gets 504."),
    ("max-requests-per-cluster", int, 0, _FAIRNESS, "Per second and logical cluster, unless its budget says (0: any)."),
    ("max-watches-per-cluster", int, 0, _FAIRNESS, "Open in a logical cluster, unless its budget says (0: any)."),
    ("max-requests-per-user", int, 0, _FAIRNESS, "Per second, of each user in each logical cluster (0: any)."),
    ("max-watches-per-user", int, 0, _FAIRNESS, "Open, of each user in each logical cluster (0: any)."),
)


def with_server_flags(function: Callable[..., None]) -> Callable[..., None]:
    """Give a verb all :data:`FLAGS`; it receives what was given as ``flags`` (names with underscores)."""
    signature = inspect.signature(function, eval_str=True)
    own = [p for p in signature.parameters.values() if p.name != "flags"]
    added = [_parameter(*flag) for flag in FLAGS]
    names = [p.name for p in added]

    @functools.wraps(function)
    def verb(**given: Any) -> None:
        flags = {name: given.pop(name) for name in names}
        function(**given, flags=flags)

    verb.__signature__ = signature.replace(parameters=[*own, *added])  # type: ignore[attr-defined]
    verb.__annotations__ = {p.name: p.annotation for p in (*own, *added)}
    return verb


def _parameter(flag: str, kind: Any, default: Any, panel: str, text: str) -> inspect.Parameter:
    names = (f"--{flag}/--no-{flag}",) if kind is bool else (f"--{flag}",)
    option = Annotated[kind, typer.Option(*names, help=text, rich_help_panel=panel)]
    name = flag.replace("-", "_")
    return inspect.Parameter(name, inspect.Parameter.KEYWORD_ONLY, default=default, annotation=option)
