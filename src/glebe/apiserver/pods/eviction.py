"""``pods/NAME/eviction``: delete a pod, unless a disruption budget forbids it.

Upstream's ``registry/core/pod/storage/eviction.go``.

The budget is checked and decremented in one compare-and-set, so that evictions at the same time never take more than it
allows; its controller (:mod:`glebe.workloads.disruption`) counts anew what is there.
"""

from __future__ import annotations

from dataclasses import replace
from typing import Any

from glebe.apiserver.request import media, options
from glebe.apiserver.request.call import Call, respond
from glebe.apiserver.request.options import DeleteOptions, delete_options_from
from glebe.apiserver.verbs import admitting
from glebe.apiserver.verbs.deleting import delete_one
from glebe.apiserver.verbs.modify import modify
from glebe.kube import errors
from glebe.kube.objects import Object, condition_is_true, get_condition, is_deleting, set_condition
from glebe.kube.selectors import LabelSelector
from glebe.kube.transport import Response

BUDGETS = "poddisruptionbudgets.policy"
_SUCCESS = {"kind": "Status", "apiVersion": "v1", "metadata": {}, "status": "Success", "code": 201}
_VERSIONS = ("policy/v1", "policy/v1beta1")
_MOST_DISRUPTED = 2000
_REFUSED = "Cannot evict pod as it would violate the pod's disruption budget."
_RETRY_AFTER = 10
_ATTEMPTS = 20


async def evict(call: Call) -> Response:
    """Answer the request."""
    chosen = await _read(call)
    for _ in range(_ATTEMPTS):
        entry = call.server.store.get(call.key())
        if entry is None:
            raise call.not_found()
        pod = entry.view()
        if not _is_free(pod):
            break
        # Nothing guards it. While it can still become ready, it must be the one that was looked at.
        pinned = _pin(chosen, pod, needed=not _has_ended(pod))
        try:
            await _end(call, pinned)
        except errors.ApiError as error:
            if chosen.resource_version or not errors.is_conflict(error):
                raise
        else:
            return respond(_SUCCESS, media.Wanted(), 201)
    budgets = _budgets_of(call, pod)
    if len(budgets) > 1:
        text = "This pod has more than one PodDisruptionBudget, which the eviction subresource does not support."
        return respond({**_SUCCESS, "status": "Failure", "message": text, "code": 500}, media.Wanted(), 500)
    name = budgets[0]["metadata"]["name"] if budgets else ""
    spared = bool(budgets) and _takes_nothing(budgets[0], pod)
    if budgets and not spared:
        await _take(call, name)
    try:
        await _end(call, _pin(chosen, pod, needed=spared))
    except errors.ApiError as error:
        if spared and not chosen.resource_version and errors.is_conflict(error):
            raise _later(name) from None
        raise
    return respond(_SUCCESS, media.Wanted(), 201)


async def _read(call: Call) -> DeleteOptions:
    """What the Eviction asks, after admission has seen it."""
    body = media.decode(call.request.body, call.request.headers.get("content-type", ""))
    if body.get("kind", "Eviction") != "Eviction" or body.get("apiVersion", _VERSIONS[0]) not in _VERSIONS:
        raise errors.bad_request(f"expected an Eviction, got {body.get('apiVersion')} {body.get('kind')}")
    meta = body.setdefault("metadata", {})
    if meta.get("name") != call.route.name:
        raise errors.bad_request("name in URL does not match name in Eviction object")
    meta.setdefault("namespace", call.route.namespace)
    asked = body.get("deleteOptions") or {}
    if asked.get("ignoreStoreReadErrorWithClusterBreakingPotential"):
        why = "Invalid value: true: can not be set for pod eviction, try after removing the option"
        field = "deleteOptions.ignoreStoreReadErrorWithClusterBreakingPotential"
        cause = errors.Cause("FieldValueInvalid", why, field)
        raise errors.invalid("policy", "Eviction", call.route.name, [cause])
    chosen = delete_options_from(asked, call.request)
    call.dry_run = chosen.dry_run = chosen.dry_run or options.dry_run(call.request)
    await admitting.mutate(call, "CREATE", body, None)
    await admitting.judge(call)
    return chosen


def _pin(chosen: DeleteOptions, pod: Object, *, needed: bool) -> DeleteOptions:
    """The deletion of exactly this state of the pod, unless another one was asked for."""
    if not needed or chosen.resource_version:
        return chosen
    return replace(chosen, resource_version=str(pod["metadata"]["resourceVersion"]))


async def _end(call: Call, chosen: DeleteOptions) -> None:
    """Say on the pod why it ends, and delete it."""
    now = call.server.now_text()

    def edit(pod: Object) -> None:
        meta = pod["metadata"]
        if chosen.uid and chosen.uid != meta["uid"]:
            raise _differs("UID", chosen.uid, meta["uid"], meta["name"], "deleted and then recreated")
        if chosen.resource_version and chosen.resource_version != meta["resourceVersion"]:
            raise _differs(
                "ResourceVersion", chosen.resource_version, meta["resourceVersion"], meta["name"], "modified"
            )
        status = pod.setdefault("status", {})
        conditions = status.get("conditions") or []
        reason, message = "EvictionByEvictionAPI", "Eviction API: evicting"
        status["conditions"] = set_condition(conditions, "DisruptionTarget", "True", reason, message, now)

    if not call.dry_run:
        _, marked = await modify(call, edit)
        if chosen.resource_version:
            chosen = replace(chosen, resource_version=str(marked["metadata"]["resourceVersion"]))
    await delete_one(call, call.key(), chosen, admission=False)


def _differs(what: str, asked: str, found: str, name: str, how: str) -> errors.ApiError:
    text = f"the {what} in the precondition ({asked}) does not match the {what} in record ({found})"
    return errors.conflict("", "Pod", name, f"{text}. The object might have been {how}")


def _has_ended(pod: Object) -> bool:
    return (pod.get("status") or {}).get("phase") in ("Succeeded", "Failed") or is_deleting(pod)


def _is_free(pod: Object) -> bool:
    """Does its end disrupt nothing any more?"""
    return _has_ended(pod) or (pod.get("status") or {}).get("phase", "Pending") == "Pending"


def _budgets_of(call: Call, pod: Object) -> list[Object]:
    meta, found = pod["metadata"], []
    for budget in call.server.read_all(call.cluster, BUDGETS, meta["namespace"]):
        selector = (budget.get("spec") or {}).get("selector")
        if selector is not None and LabelSelector.from_object(selector).matches(meta.get("labels") or {}):
            found.append(budget)
    return found


def _takes_nothing(budget: Object, pod: Object) -> bool:
    """A pod that is not ready may go when its budget says so, or when enough others are."""
    if condition_is_true(pod, "Ready"):
        return False
    if budget["spec"].get("unhealthyPodEvictionPolicy") == "AlwaysAllow":
        return True
    status = budget.get("status") or {}
    desired = status.get("desiredHealthy", 0)
    return bool(desired > 0 and status.get("currentHealthy", 0) >= desired)


async def _take(call: Call, name: str) -> None:
    """Check and decrement the budget.

    :raises ApiError: 429 when it allows nothing now.
    """
    info = call.server.registry.lookup(call.cluster, "policy", "v1", "poddisruptionbudgets")
    assert info is not None
    route = replace(
        call.route, group="policy", version="v1", resource="poddisruptionbudgets", name=name, subresource="status"
    )
    now, pod = call.server.now_text(), call.route.name

    def edit(budget: Object) -> None:
        status = budget.setdefault("status", {})
        _check(budget, status)
        status["disruptionsAllowed"] -= 1
        status["disruptedPods"] = {**(status.get("disruptedPods") or {}), pod: now}
        if not status["disruptionsAllowed"]:
            status["conditions"] = allowed_condition(status, now)

    await modify(replace(call, info=info, route=route, admission=None), edit)


def _check(budget: Object, status: dict[str, Any]) -> None:
    name = budget["metadata"]["name"]
    if status.get("observedGeneration", 0) < budget["metadata"].get("generation", 0):
        raise _later(name)
    allowed = status.get("disruptionsAllowed", 0)
    if allowed < 0:
        raise errors.forbidden("policy", "poddisruptionbudget", name, "pdb disruptions allowed is negative")
    if len(status.get("disruptedPods") or {}) > _MOST_DISRUPTED:
        why = "DisruptedPods map too big - too many evictions not confirmed by PDB controller"
        raise errors.forbidden("policy", "poddisruptionbudget", name, why)
    if not allowed:
        raise _refusal(_why(budget, status, name), None)


def _why(budget: Object, status: dict[str, Any], name: str) -> str:
    condition = get_condition(budget, "DisruptionAllowed") or {}
    text = condition.get("message", "") if condition.get("status") == "False" else ""
    now, wanted = status.get("currentHealthy", 0), status.get("desiredHealthy", 0)
    if text and condition.get("reason") == "SyncFailed":
        return f"The disruption budget {name} does not allow evicting pods currently because it failed sync: {text}"
    if now <= wanted:
        return f"The disruption budget {name} needs {wanted} healthy pods and has {now} currently"
    if text:
        return f"The disruption budget {name} does not allow evicting pods currently ({condition['reason']}): {text}"
    return f"The disruption budget {name} does not allow evicting pods currently"


def _later(name: str) -> errors.ApiError:
    return _refusal(f"The disruption budget {name} is still being processed by the server.", _RETRY_AFTER)


def _refusal(why: str, retry_after: int | None) -> errors.ApiError:
    causes = [{"reason": "DisruptionBudget", "message": why}]
    return errors.ApiError(429, "TooManyRequests", _REFUSED, details={"causes": causes}, retry_after=retry_after)


def allowed_condition(status: dict[str, Any], now: str) -> list[dict[str, Any]]:
    """The conditions with ``DisruptionAllowed`` as the number says."""
    some = status.get("disruptionsAllowed", 0) > 0
    value, reason = ("True", "SufficientPods") if some else ("False", "InsufficientPods")
    conditions = status.get("conditions") or []
    return set_condition(conditions, "DisruptionAllowed", value, reason, "", now, status.get("observedGeneration", 0))
