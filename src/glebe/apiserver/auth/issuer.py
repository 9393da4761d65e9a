"""What others need to check our service account tokens themselves (OpenID Connect discovery), per logical cluster."""

from __future__ import annotations

import orjson

from glebe.apiserver.auth import jwt
from glebe.apiserver.auth.tokens import ServiceAccountTokens
from glebe.apiserver.flight import Flight
from glebe.kube.transport import Response

CONFIGURATION, KEYS = "/.well-known/openid-configuration", "/openid/v1/jwks"
_CACHE = "public, max-age=3600"


class IssuerDocuments:
    """Serves both documents to whoever may read the paths (``system:service-account-issuer-discovery``)."""

    def __init__(self, tokens: ServiceAccountTokens) -> None:
        self._tokens = tokens
        self._keys = [jwt.to_jwk(key) for key in tokens.public_keys]

    def configuration(self, flight: Flight) -> Response:
        issuer = self._tokens.issuer_of(flight.route.cluster)
        body = {
            "issuer": issuer,
            "jwks_uri": issuer + KEYS,
            "response_types_supported": ["id_token"],
            "subject_types_supported": ["public"],
            "id_token_signing_alg_values_supported": sorted({k["alg"] for k in self._keys}),
        }
        return Response(200, {"content-type": "application/json", "cache-control": _CACHE}, orjson.dumps(body))

    def keys(self, flight: Flight) -> Response:
        headers = {"content-type": "application/jwk-set+json", "cache-control": _CACHE}
        return Response(200, headers, orjson.dumps({"keys": self._keys}))
