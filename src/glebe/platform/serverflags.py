"""What the flags of ``glebe up`` about identity, audit and admission mean: files read, options made."""

from __future__ import annotations

import ipaddress
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

from glebe.apiserver.assembly import ALWAYS_ON, PLUGINS, TOLERATION_SECONDS, ServerOptions
from glebe.apiserver.auth.options import IdentityOptions
from glebe.apiserver.dialing import DialRules, Network
from glebe.apiserver.fairness.options import FairnessOptions
from glebe.apiserver.types import release, runtimeconfig

if TYPE_CHECKING:
    from cryptography import x509

    from glebe.apiserver.audit.options import AuditOptions
    from glebe.apiserver.auth.authconfig import AuthenticationConfiguration
    from glebe.apiserver.auth.requestheader import FrontProxy


class FlagError(Exception):
    """A flag, or the file that it names, cannot be used."""

    def __init__(self, flag: str, problem: str) -> None:
        super().__init__(f"--{flag}: {problem}")


@dataclass(frozen=True, slots=True)
class ServerFlags:
    """What was asked for."""

    identity: IdentityOptions = field(default_factory=IdentityOptions)
    server: ServerOptions = field(default_factory=ServerOptions)

    @property
    def further_cas(self) -> tuple[x509.Certificate, ...]:
        """CAs whose certificates TLS must let through, besides the platform's own."""
        proxy = self.identity.proxy
        return (*self.identity.client_cas, *(proxy.cas if proxy is not None else ()))


def read(flags: Mapping[str, Any]) -> ServerFlags:
    """The options for flags by their names with underscores; what is missing has its default.

    :raises FlagError: what is wrong with which flag.
    """
    if not any(flags.values()):
        return ServerFlags()
    given = _Given(flags)
    _use_release(given)
    identity = IdentityOptions(
        static_tokens=given.parsed("token-auth-file", _tokens) or {},
        client_cas=given.parsed("client-ca-file", _certificates) or (),
        proxy=_proxy(given),
        anonymous=bool(flags.get("anonymous_auth", True)),
        issuer=given.issuer(),
        longest_token=given.number("service-account-max-token-expiration", 0),
        further_keys=tuple(given.each("service-account-key-file", _key)),
        authentication=_authentication(given),
    )
    return ServerFlags(identity, _server(given))


class _Given:
    """The flags, with errors that name them."""

    def __init__(self, flags: Mapping[str, Any]) -> None:
        self._flags = flags

    def text(self, flag: str, default: str = "") -> str:
        return str(self._flags.get(flag.replace("-", "_")) or default)

    def number(self, flag: str, default: int) -> int:
        value = self._flags.get(flag.replace("-", "_"))
        value = default if value is None else int(value)
        if value < 0:
            raise FlagError(flag, "must not be negative")
        return value

    def yes(self, flag: str) -> bool:
        return bool(self._flags.get(flag.replace("-", "_"), True))

    def words(self, flag: str, default: str = "") -> tuple[str, ...]:
        return tuple(w.strip() for w in self.text(flag, default).split(",") if w.strip())

    def parsed(self, flag: str, parse: Callable[[Path], Any]) -> Any:
        """What ``parse`` makes of the flag's file; ``None`` without the flag."""
        path = self.text(flag)
        return self._read(flag, path, parse) if path else None

    def each(self, flag: str, parse: Callable[[Path], Any]) -> list[Any]:
        return [self._read(flag, path, parse) for path in self._flags.get(flag.replace("-", "_")) or ()]

    def issuer(self) -> str:
        from glebe.apiserver.auth.tokens import DEFAULT_ISSUER

        url = self.text("service-account-issuer", DEFAULT_ISSUER)
        if not url.startswith("https://"):
            raise FlagError("service-account-issuer", f"{url!r} is no https URL")
        return url

    @staticmethod
    def _read(flag: str, path: str, parse: Callable[[Path], Any]) -> Any:
        try:
            return parse(Path(path).expanduser())
        except OSError as error:
            raise FlagError(flag, f"{path}: {error.strerror}") from error
        except ValueError as error:
            text = str(error)
            raise FlagError(flag, text if path in text else f"{path}: {text}") from error


def _tokens(path: Path) -> Any:
    from glebe.apiserver.auth.authn import read_static_tokens

    return read_static_tokens(path)


def _certificates(path: Path) -> tuple[x509.Certificate, ...]:
    from cryptography import x509

    return tuple(x509.load_pem_x509_certificates(path.read_bytes()))


def _key(path: Path) -> Any:
    """A service account key, public or private."""
    from cryptography.hazmat.primitives import serialization
    from cryptography.hazmat.primitives.asymmetric import ec, rsa

    pem = path.read_bytes()
    try:
        private = b"PRIVATE KEY" in pem
        key = serialization.load_pem_private_key(pem, None) if private else serialization.load_pem_public_key(pem)
    except TypeError as error:
        raise ValueError(str(error)) from error
    kinds = ec.EllipticCurvePrivateKey | rsa.RSAPrivateKey | ec.EllipticCurvePublicKey | rsa.RSAPublicKey
    if not isinstance(key, kinds):
        raise ValueError("neither an RSA nor an EC key")
    if isinstance(key, ec.EllipticCurvePrivateKey | ec.EllipticCurvePublicKey) and key.curve.name != "secp256r1":
        raise ValueError("an EC key must be on the curve P-256")
    return key


def _yaml(path: Path) -> Any:
    import yaml

    try:
        return yaml.safe_load(path.read_text(encoding="utf-8"))
    except yaml.YAMLError as error:
        raise ValueError(str(error)) from error


def _proxy(given: _Given) -> FrontProxy | None:
    cas = given.parsed("requestheader-client-ca-file", _certificates)
    if cas is None:
        return None
    from glebe.apiserver.auth.requestheader import FrontProxy

    return FrontProxy(
        cas,
        given.words("requestheader-allowed-names"),
        given.words("requestheader-username-headers", "X-Remote-User"),
        given.words("requestheader-uid-headers", "X-Remote-Uid"),
        given.words("requestheader-group-headers", "X-Remote-Group"),
        given.words("requestheader-extra-headers-prefix", "X-Remote-Extra-"),
    )


def _authentication(given: _Given) -> AuthenticationConfiguration | None:
    from glebe.apiserver.auth import authconfig

    configured: AuthenticationConfiguration | None = given.parsed(
        "authentication-config", lambda path: authconfig.read(_yaml(path))
    )
    if not given.text("oidc-issuer-url"):
        return configured
    if configured is not None:
        raise FlagError("oidc-issuer-url", "cannot be used together with --authentication-config")
    ca = given.parsed("oidc-ca-file", lambda path: path.read_text(encoding="utf-8"))
    names = ("issuer_url", "client_id", "username_claim", "username_prefix", "groups_claim", "groups_prefix")
    flags: dict[str, Any] = {name: given.text("oidc-" + name.replace("_", "-")) for name in names}
    flags |= {"ca": ca, "signing_algs": given.words("oidc-signing-algs", "RS256")}
    flags["required_claim"] = given.each("oidc-required-claim", str)
    try:
        return authconfig.AuthenticationConfiguration((authconfig.from_flags(flags),))
    except authconfig.ConfigError as error:
        raise FlagError("oidc-issuer-url", str(error)) from error


def _use_release(given: _Given) -> None:
    wanted = given.text("kubernetes-version")
    if wanted:
        try:
            release.use(wanted.removeprefix("v"))
        except ValueError as error:
            raise FlagError("kubernetes-version", str(error)) from error
    if versions := given.text("runtime-config"):
        try:
            runtimeconfig.use(runtimeconfig.parse(versions))
        except ValueError as error:
            raise FlagError("runtime-config", str(error)) from error


def _server(given: _Given) -> ServerOptions:
    on, off = "enable-admission-plugins", "disable-admission-plugins"
    for flag in (on, off):
        unknown = [name for name in given.words(flag) if name not in PLUGINS and (name, flag) != (ALWAYS_ON, on)]
        if unknown:
            raise FlagError(flag, f"there is no plugin {', '.join(unknown)} to turn {'on' if flag == on else 'off'}")
    enable, disable = (frozenset(given.words(flag)) - {ALWAYS_ON} for flag in (on, off))
    if enable & disable:
        raise FlagError(off, f"{', '.join(sorted(enable & disable))} is in --{on}, too")
    return ServerOptions(
        enable=enable,
        disable=disable,
        not_ready_seconds=given.number("default-not-ready-toleration-seconds", TOLERATION_SECONDS),
        unreachable_seconds=given.number("default-unreachable-toleration-seconds", TOLERATION_SECONDS),
        pod_security=given.parsed("admission-control-config-file", _pod_security) or {},
        dial=DialRules(_networks(given, "tenant-dial-allow"), _networks(given, "tenant-dial-deny")),
        audit=_audit(given),
        fairness=_fairness(given),
    )


def _fairness(given: _Given) -> FairnessOptions:
    usual = FairnessOptions()
    seconds = given.number("request-timeout", int(usual.request_seconds))
    if not seconds:
        raise FlagError("request-timeout", "must be at least 1")
    return FairnessOptions(
        enabled=given.yes("enable-priority-and-fairness"),
        seats=given.number("max-requests-inflight", usual.seats) or 1_000_000,
        request_seconds=float(seconds),
        cluster_requests=float(given.number("max-requests-per-cluster", 0)),
        cluster_watches=given.number("max-watches-per-cluster", 0),
        user_requests=float(given.number("max-requests-per-user", 0)),
        user_watches=given.number("max-watches-per-user", 0),
    )


def _networks(given: _Given, flag: str) -> tuple[Network, ...]:
    try:
        return tuple(ipaddress.ip_network(word) for word in given.words(flag))
    except ValueError as error:
        raise FlagError(flag, str(error)) from None


def _pod_security(path: Path) -> dict[str, Any]:
    """PodSecurity's configuration out of an AdmissionConfiguration, where it stands inline or in a file of its own."""
    from glebe.apiserver.admission.podsecurity.policy import defaults_from

    found: dict[str, Any] = {}
    for plugin in _yaml(path).get("plugins") or ():
        if plugin.get("name") != "PodSecurity":
            raise ValueError(f"plugin {plugin.get('name')} takes no configuration here")
        found = plugin.get("configuration") or _yaml(path.parent / plugin.get("path", ""))
        if found.get("kind") != "PodSecurityConfiguration":
            raise ValueError(f"expected a PodSecurityConfiguration, got {found.get('kind')}")
    defaults_from(found)
    return found


def _audit(given: _Given) -> AuditOptions | None:
    path = given.text("audit-log-path")
    if not path:
        if given.text("audit-policy-file"):
            raise FlagError("audit-policy-file", "without --audit-log-path nothing is written")
        return None
    from glebe.apiserver.audit import policy
    from glebe.apiserver.audit.options import AuditOptions, Rotation

    rules = given.parsed("audit-policy-file", lambda file: policy.read(_yaml(file)))
    sizes = [given.number(f"audit-log-{name}", default) for name, default in _ROTATION]
    return AuditOptions(rules or policy.everything_metadata(), path, Rotation(*sizes))


_ROTATION = (("maxsize", 100), ("maxage", 0), ("maxbackup", 0))
