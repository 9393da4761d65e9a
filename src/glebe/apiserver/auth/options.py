"""What may be chosen about identity and rights; the flags of ``glebe up`` end here."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from glebe.apiserver.auth.tokens import DEFAULT_ISSUER
from glebe.kube.transport import User

if TYPE_CHECKING:
    from cryptography import x509

    from glebe.apiserver.auth.authconfig import AuthenticationConfiguration
    from glebe.apiserver.auth.jwt import PrivateKey, PublicKey
    from glebe.apiserver.auth.requestheader import FrontProxy


@dataclass(frozen=True, slots=True)
class IdentityOptions:
    """Whom the server believes."""

    static_tokens: Mapping[str, User] = field(default_factory=dict)
    client_cas: tuple[x509.Certificate, ...] = ()
    """Further CAs of client certificates, beside the server's own."""
    proxy: FrontProxy | None = None
    anonymous: bool = True
    issuer: str = DEFAULT_ISSUER
    """URL of the issuer of service account tokens; a cluster's is ``ISSUER/clusters/NAME``."""
    longest_token: int = 0
    """Seconds to which longer token requests are shortened; 0: they are not."""
    further_keys: tuple[PrivateKey | PublicKey, ...] = ()
    """Former (or next) service account keys whose tokens are good, too."""
    authentication: AuthenticationConfiguration | None = None
    """Identity providers."""
