"""What a simulated container has to say. Pure."""

from __future__ import annotations

from glebe.kube.objects import Object


def story(pod: Object, container: str) -> list[tuple[str, str]]:
    """(time, text) of everything there is to say about a simulated container."""
    out: list[tuple[str, str]] = []
    where = pod["spec"].get("nodeName", "")
    for status in (pod.get("status") or {}).get("containerStatuses") or ():
        state = status.get("state") or {}
        run = state.get("running") or state.get("terminated") or {}
        if status.get("name") != container or not run.get("startedAt"):
            continue
        text = (
            f"[simulated] container {container} of pod {pod['metadata']['name']} on node {where}: no program runs here"
        )
        out.append((run["startedAt"], text))
        if "terminated" in state:
            out.append((run["finishedAt"], f"[simulated] container {container} exited with code {run['exitCode']}"))
    return out
