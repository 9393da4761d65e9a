"""Calling servers that tenants run: webhooks, conversion webhooks, aggregated APIs.

A target is a URL or a Service of the tenant's own logical cluster. A Service is reached at the addresses of its ready
endpoints (this server stands in no pod network that would know the ClusterIP), and at its ClusterIP when it has none.

What tenants name decides where this process connects to, so that it could be sent to places that only it can reach
(its own loopback ports, a cloud's metadata service). :class:`DialRules` says which addresses each logical cluster may
name: ``root`` any, the others neither loopback nor link-local ones unless they are allowed.
"""

from glebe.apiserver.dialing.dialer import Answer, Dialer
from glebe.apiserver.dialing.rules import DialError, DialRules, Network
from glebe.apiserver.dialing.targets import Target, Targets, decode_bundle

__all__ = ["Answer", "DialError", "DialRules", "Dialer", "Network", "Target", "Targets", "decode_bundle"]
