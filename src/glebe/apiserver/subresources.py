"""What stands below one object: which handler serves which subresource."""

from __future__ import annotations

from glebe.apiserver.auth import tokenrequest as tokens
from glebe.apiserver.contracts import Handler
from glebe.apiserver.pods import eviction, streams
from glebe.apiserver.pods import operations as pods
from glebe.apiserver.proxying import forwarding
from glebe.apiserver.request.call import Call
from glebe.apiserver.verbs import finalize, patching, reading, scale, writing
from glebe.kube import errors

_STATUS: dict[str, Handler] = {"get": reading.get, "update": writing.update, "patch": patching.patch}
_SCALE: dict[str, Handler] = {"get": scale.get, "update": scale.update, "patch": scale.patch}
_SPECIAL: dict[tuple[str, str], dict[str, Handler]] = {
    ("pods", "binding"): {"create": pods.bind},
    ("pods", "eviction"): {"create": eviction.evict},
    ("pods", "log"): {"get": pods.log},
    ("pods", "ephemeralcontainers"): _STATUS,
    ("pods", "resize"): _STATUS,
    ("namespaces", "finalize"): {"update": finalize.finalize},
    ("serviceaccounts", "token"): {"create": tokens.request},
    ("certificatesigningrequests.certificates.k8s.io", "approval"): _STATUS,
}
#: Connections take any verb: what it means is the other side's business.
_CONNECTIONS: dict[tuple[str, str], Handler] = {
    ("nodes", "proxy"): forwarding.node,
    ("pods", "attach"): streams.attach,
    ("pods", "exec"): streams.exec_,
    ("pods", "portforward"): streams.portforward,
    ("pods", "proxy"): forwarding.pod,
    ("services", "proxy"): forwarding.service,
}


def subresource_handler(call: Call) -> Handler:
    """The handler of the call's subresource and verb.

    :raises ApiError: 404 for an unknown subresource, 405 for a verb that it has not.
    """
    name, verb = call.route.subresource, call.route.verb
    if name not in call.info.subresources:
        raise errors.path_not_found()
    if (connect := _CONNECTIONS.get((call.info.group_resource, name))) is not None:
        return connect
    if name == "status":
        table = _STATUS
    elif name == "scale":
        table = _SCALE
    else:
        table = _SPECIAL.get((call.info.group_resource, name), {})
    handler = table.get(verb)
    if handler is None:
        raise errors.method_not_allowed()
    return handler
