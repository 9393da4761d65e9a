"""Life-cycle hooks: what is done to a container just after its start and just before its end."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping
from typing import Any

from glebe.node.process import actions, marks, webget
from glebe.node.process.actions import ActionError, Target
from glebe.node.process.context import WARNING, PodContext

POST_START_FAILED, PRE_STOP_FAILED = "FailedPostStartHook", "FailedPreStopHook"


class HookFailed(Exception):
    """The hook did not do its work; the message is for the container's status, not for events (it may tell secrets)."""


def hook_of(body: Mapping[str, Any], name: str) -> Mapping[str, Any] | None:
    """``postStart`` or ``preStop`` of a container."""
    return (body.get("lifecycle") or {}).get(name) or None


async def post_start(pod: PodContext, target: Target) -> None:
    """Run the hook after a start, unless it has been run; again after an agent died in it (at least once).

    :raises HookFailed: the container is to be killed.
    """
    hook = hook_of(target.body, "postStart")
    noted = marks.read(target.run.path, marks.POST_START) or {}
    if hook is None or noted.get("done"):
        return
    begun = noted.get("at", pod.now())
    marks.write(target.run.path, marks.POST_START, at=begun)
    await _run(pod, target, hook, pod.now() - begun)
    marks.write(target.run.path, marks.POST_START, at=begun, done=True)


async def pre_stop(pod: PodContext, target: Target) -> None:
    """Run the hook before an end; what an agent that died has begun is not begun again (a sleep goes on)."""
    hook = hook_of(target.body, "preStop")
    if hook is None:
        return
    noted = marks.read(target.run.path, marks.PRE_STOP)
    begun = float(noted["at"]) if noted else pod.now()
    if noted is not None and "sleep" not in hook:
        return
    marks.write(target.run.path, marks.PRE_STOP, at=begun)
    try:
        await _run(pod, target, hook, pod.now() - begun)
    except asyncio.CancelledError:
        if target.run.exit is None:  # this agent ends, not the container: the next one shall run the hook
            marks.erase(target.run.path, marks.PRE_STOP)
        raise
    except HookFailed:
        pod.say(WARNING, PRE_STOP_FAILED, "PreStopHook failed", target.body["name"])


async def _run(pod: PodContext, target: Target, hook: Mapping[str, Any], elapsed: float) -> None:
    whose = f'for Container "{target.body["name"]}" in Pod "{pod.full_name}" failed - error:'
    if "exec" in hook:
        command = hook["exec"].get("command") or []
        shown = f"Exec lifecycle hook ([{' '.join(command)}]) {whose}"
        try:
            code, text = await actions.execute(target, command)
        except ActionError as error:
            raise HookFailed(f'{shown} {error}, message: ""') from None
        if code:
            said = f"command '{' '.join(command)}' exited with {code}: {text}"
            raise HookFailed(f'{shown} {said}, message: "{text}"')
    elif "httpGet" in hook:
        try:
            await _http(pod, target, hook["httpGet"])
        except (ActionError, webget.GetError) as error:
            raise HookFailed(f"HTTP lifecycle hook ({hook['httpGet'].get('path', '')}) {whose} {error}") from None
    elif "sleep" in hook:
        await asyncio.sleep(max(0.0, float(hook["sleep"].get("seconds") or 0) - elapsed))


async def _http(pod: PodContext, target: Target, action: Mapping[str, Any]) -> None:
    """Any answer will do; a server without TLS is asked again without."""
    url, headers = actions.request_of(action, target, "lifecycle")
    try:
        await webget.get(url, headers, 3600.0)
    except webget.GetError as error:
        if not error.plain_http:
            raise
        plain = [(name, value) for name, value in headers if name.lower() != "authorization"]
        await webget.get(url.replace("https://", "http://", 1), plain, 3600.0)
        where = url.split("/")[2]
        text = f"request to HTTPS lifecycle hook {where} got HTTP response, retry with HTTP succeeded"
        pod.say(WARNING, "LifecycleHTTPFallback", text)
