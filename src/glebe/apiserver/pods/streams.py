"""exec, attach, portforward and logs of pods whose node has a kubelet: passed on to it over HTTPS."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

from glebe.apiserver.proxying import forwarding, locations
from glebe.apiserver.request.call import Call
from glebe.apiserver.verbs import admitting
from glebe.kube import errors
from glebe.kube.objects import Object
from glebe.kube.transport import Response

Query = list[tuple[str, str]]

_LONGEST_REFUSAL = 10_000
#: The API's parameters and the kubelet's names for them.
_STREAMS = {"stdin": "input", "stdout": "output", "stderr": "error", "tty": "tty"}


def container_of(call: Call, pod: Object) -> str:
    """The container that is asked for: the one named, the one marked as the default, or the only one.

    :raises ApiError: 400.
    """
    spec, name = pod["spec"], call.route.name
    regular = [c["name"] for c in spec.get("containers") or ()]
    inits = [c["name"] for c in spec.get("initContainers") or ()]
    debuggers = [c["name"] for c in spec.get("ephemeralContainers") or ()]
    asked = call.request.param("container")
    if asked:
        if asked not in (*regular, *inits, *debuggers):
            raise errors.bad_request(f"container {asked} is not valid for pod {name}")
        return asked
    if len(regular) == 1:
        return str(regular[0])
    listed = f"[{' '.join(regular)}]"
    if inits:
        listed += f" or one of the init containers: [{' '.join(inits)}]"
    raise errors.bad_request(f"a container name must be specified for pod {name}, choose one of: {listed}")


async def exec_(call: Call) -> Response:
    """``pods/NAME/exec``."""
    query: Query = [("command", value) for name, value in call.request.query if name == "command"]
    return await _stream(call, "PodExecOptions", "exec", query)


async def attach(call: Call) -> Response:
    """``pods/NAME/attach``."""
    return await _stream(call, "PodAttachOptions", "attach", [])


async def _stream(call: Call, kind: str, action: str, query: Query) -> Response:
    flags = {name: call.request.param(name) in ("true", "1") for name in _STREAMS}
    options: dict[str, Any] = {"apiVersion": "v1", "kind": kind, **{k: v for k, v in flags.items() if v}}
    if asked := call.request.param("container"):
        options["container"] = asked
    if query:
        options["command"] = [value for _, value in query]
    await admitting.connect(call, options)
    if action == "exec" and not query:
        raise errors.bad_request("you must specify at least 1 command for the container")
    if not any(flags[name] for name in ("stdin", "stdout", "stderr")):
        raise errors.bad_request("you must specify at least 1 of stdin, stdout, stderr")
    if flags["tty"] and flags["stderr"]:
        flags["stderr"] = False
    pod = _pod(call)
    container = container_of(call, pod)
    query = [*((_STREAMS[name], "1") for name, wanted in flags.items() if wanted), *query]
    meta = pod["metadata"]
    return await _to_kubelet(call, pod, f"/{action}/{meta['namespace']}/{meta['name']}/{container}", query)


async def portforward(call: Call) -> Response:
    """``pods/NAME/portforward``."""
    ports = [value for name, value in call.request.query if name == "ports"]
    numbers = [int(p) for text in ports for p in text.split(",") if p.isascii() and p.isdigit()]
    options: dict[str, Any] = {"apiVersion": "v1", "kind": "PodPortForwardOptions"}
    await admitting.connect(call, {**options, "ports": numbers} if numbers else options)
    pod = _pod(call)
    meta = pod["metadata"]
    query = [("port", str(number)) for number in numbers]
    return await _to_kubelet(call, pod, f"/portForward/{meta['namespace']}/{meta['name']}", query)


def has_kubelet(call: Call, pod: Object) -> bool:
    """Does the pod's node say where its kubelet listens?"""
    node = call.server.read(call.cluster, "nodes", "", pod["spec"].get("nodeName", "")) or {}
    status = node.get("status") or {}
    endpoint = (status.get("daemonEndpoints") or {}).get("kubeletEndpoint") or {}
    return bool(endpoint.get("Port") and status.get("addresses"))


async def logs(call: Call, pod: Object, container: str) -> Response:
    """The kubelet's answer to a request for logs."""
    known = ("follow", "previous", "sinceSeconds", "sinceTime", "timestamps", "tailLines", "limitBytes", "stream")
    query = [(name, value) for name, value in call.request.query if name in known]
    meta = pod["metadata"]
    path = f"/containerLogs/{meta['namespace']}/{meta['name']}/{container}"
    plain = {name: text for name, text in call.request.headers.items() if name not in ("connection", "upgrade")}
    call = replace(call, request=replace(call.request, headers=plain))
    answer = await _to_kubelet(call, pod, path, query)
    return answer if answer.status < 300 else await _refused(call, answer)


async def _refused(call: Call, answer: Response) -> Response:
    """
    :raises ApiError: what the kubelet said, as upstream passes it on.
    """
    said = bytearray(answer.body)
    if answer.stream is not None:
        async for chunk in answer.stream:
            said += chunk
            if len(said) > _LONGEST_REFUSAL:
                break
        await answer.close()
    text = bytes(said[:_LONGEST_REFUSAL]).decode(errors="replace")
    if answer.status == 400:
        raise errors.bad_request(text)
    if answer.status == 500:
        raise errors.internal(text)
    if answer.status == 404:
        where = f"the server could not find the requested resource ( pods/log {call.route.name})"
        raise errors.ApiError(404, "NotFound", where, details={"causes": [{"message": text}]})
    raise errors.ApiError(answer.status, "Unknown", text or f"the kubelet answered {answer.status}")


def _pod(call: Call) -> Object:
    """
    :raises ApiError: 404.
    """
    pod = call.server.read(call.cluster, "pods", call.route.namespace, call.route.name)
    if pod is None:
        raise call.not_found()
    return pod


async def _to_kubelet(call: Call, pod: Object, path: str, query: Query) -> Response:
    """
    :raises ApiError: 400 for a pod on no node, 503 when its kubelet does not answer.
    """
    name, node = call.route.name, pod["spec"].get("nodeName", "")
    if not node:
        raise errors.bad_request(f"pod {name} does not have a host assigned")
    refuses = getattr(call.server.pod_logs, "refuses_streams", None)
    if refuses is not None and (why := refuses(node)):
        raise errors.bad_request(why)
    location = locations.kubelet_of(call, node)
    asked = replace(call, request=replace(call.request, query=query))
    return await forwarding.forward(asked, location, path)
