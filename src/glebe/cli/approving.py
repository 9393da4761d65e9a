"""A person's answer to an admission check: what ``glebe approve`` and ``glebe deny`` share."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from glebe.cli.command import Session
from glebe.cli.exits import Exit, Failure

if TYPE_CHECKING:
    from glebe.kube.client import Client
    from glebe.kube.objects import Object


async def answer(session: Session, name: str, check: str, words: str, *, yes: bool) -> None:
    """Answer the open checks of one job or workload, or the one that is named.

    :raises Failure: there is no such job, or nothing of it waits for a person.
    """
    from glebe.kube import resources as r
    from glebe.kube.clock import SystemClock
    from glebe.kube.errors import is_conflict
    from glebe.queueing.admissionchecks.approvals import decided

    async with session.connect() as client:
        who, of_people = await _who(client), await _of_people(client)
        for last in (False, False, True):
            workload = await _workload(client, session.namespace, name)
            names = _asked(workload, of_people, check)
            answered = decided(workload, names, yes, who, words, SystemClock().now())
            try:
                await client.update_status(r.WORKLOADS, answered)
                break
            except Exception as error:
                if last or not is_conflict(error):
                    raise
    done = "approved" if yes else "denied"
    session.out.line(f"{name}: {', '.join(names)} {done} as {who}")


async def waiting(session: Session, *, everywhere: bool) -> list[dict[str, Any]]:
    """What waits for a person: one row per open check."""
    from glebe.cli.read import items
    from glebe.kube import resources as r
    from glebe.kube.objects import get_condition
    from glebe.queueing.admissionchecks.approvals import undecided

    async with session.connect() as client:
        of_people = await _of_people(client)
        found = await items(client, r.WORKLOADS, None if everywhere else session.namespace)
    rows = []
    for workload in found:
        reserved = (get_condition(workload, "QuotaReserved") or {}).get("status") == "True"
        for check in undecided(workload, of_people):
            meta = workload["metadata"]
            rows.append(
                {
                    "namespace": meta["namespace"],
                    "name": _job(workload),
                    "check": check,
                    "quota": "reserved" if reserved else "not yet",
                    "queue": workload["spec"].get("queueName", ""),
                    "created": meta.get("creationTimestamp", ""),
                }
            )
    return sorted(rows, key=lambda row: (row["created"], row["namespace"], row["name"], row["check"]))


def _job(workload: Object) -> str:
    """The name that people know: the owner's, or the workload's own."""
    owners = workload["metadata"].get("ownerReferences") or ()
    return str(owners[0]["name"] if owners else workload["metadata"]["name"])


def _asked(workload: Object, of_people: list[str], check: str) -> list[str]:
    from glebe.queueing.admissionchecks.approvals import undecided

    names = undecided(workload, of_people)
    if check:
        if check not in names:
            wait = f"open are: {', '.join(names)}" if names else "none of its checks waits for a person"
            raise Failure(Exit.BAD_INPUT, f'check "{check}" of {_job(workload)} does not wait for a person', wait)
        return [check]
    if not names:
        listed = (workload.get("status") or {}).get("admissionChecks") or ()
        states = ", ".join(f"{c['name']} is {c['state']}" for c in listed) or "it has no checks"
        raise Failure(Exit.BAD_INPUT, f"nothing of {_job(workload)} waits for a person", states)
    return names


async def _workload(client: Client, namespace: str, name: str) -> Object:
    from glebe.cli.read import items
    from glebe.kube import resources as r

    found = await items(client, r.WORKLOADS, namespace)
    for workload in found:
        if workload["metadata"]["name"] == name or _job(workload) == name:
            return workload
    raise Failure(
        Exit.NOT_FOUND,
        f'there is no queued job "{name}" in namespace {namespace}',
        "glebe approve shows what waits for an answer; -n NAMESPACE chooses another namespace",
    )


async def _of_people(client: Client) -> list[str]:
    from glebe.cli.read import items
    from glebe.kube import resources as r
    from glebe.queueing.admissionchecks.activity import APPROVAL, controller_name

    return [c["metadata"]["name"] for c in await items(client, r.ADMISSION_CHECKS) if controller_name(c) == APPROVAL]


async def _who(client: Client) -> str:
    """The user as the server knows him."""
    from glebe.kube.errors import ApiError
    from glebe.kube.resources import Resource

    kind = Resource("authentication.k8s.io", "v1", "selfsubjectreviews", "SelfSubjectReview", namespaced=False)
    try:
        found = await client.create(kind, {"apiVersion": kind.api_version, "kind": kind.kind, "metadata": {}})
    except ApiError:
        return "a user whom the server does not name"
    return str(found["status"]["userInfo"].get("username") or "anonymous")
