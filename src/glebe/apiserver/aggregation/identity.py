"""How this server proves to others that it may say who asks: a CA and a client certificate of its own.

Extension servers read the CA from the ConfigMap ``kube-system/extension-apiserver-authentication``, together with the
CA of client certificates and the names of the headers.
"""

from __future__ import annotations

from datetime import timedelta

import orjson

from glebe.apiserver.auth.pki import Pki
from glebe.kube.objects import Object

CONFIG_MAP = "extension-apiserver-authentication"
_NAME = "front-proxy-client"
_LIFE = timedelta(days=365)


class FrontProxy:
    """A CA below the server's (made when missing); the client certificate is issued anew at each start."""

    def __init__(self, pki: Pki, now: float) -> None:
        self._pki = pki.below("front-proxy", now)
        self._now = now

    @property
    def ca_pem(self) -> bytes:
        return self._pki.ca_pem

    def identity(self) -> tuple[bytes, bytes]:
        """(certificate, key) in PEM."""
        pair = self._pki.issue_client(_NAME, (), self._now, scope=None, life=_LIFE)
        return pair.certificate, pair.key

    def config_map(self, client_ca: bytes) -> Object:
        """What extension servers need in order to believe this one, and the clients that this one believes."""
        return {
            "apiVersion": "v1",
            "kind": "ConfigMap",
            "metadata": {"name": CONFIG_MAP, "namespace": "kube-system"},
            "data": {
                "client-ca-file": client_ca.decode(),
                "requestheader-allowed-names": orjson.dumps([_NAME]).decode(),
                "requestheader-client-ca-file": self.ca_pem.decode(),
                "requestheader-extra-headers-prefix": '["X-Remote-Extra-"]',
                "requestheader-group-headers": '["X-Remote-Group"]',
                "requestheader-uid-headers": '["X-Remote-Uid"]',
                "requestheader-username-headers": '["X-Remote-User"]',
            },
        }
