"""What must hold for applications after every committed write, and once everything has come to rest."""

from __future__ import annotations

import math
from collections.abc import Iterator
from typing import Any

from glebe.kube.objects import Object, condition_is_true
from glebe.platform.simulation import world as w
from glebe.platform.simulation.applications import LEAST, MOST, NAMESPACE
from glebe.platform.simulation.world import World

# --- after every write


def sets_have_no_more_pods_than_asked_for(world: World, old: Object | None, new: Object | None) -> str:
    """A ReplicaSet never has more live pods than the most replicas that it was ever to have."""
    if new is None or old is not None:
        return ""
    owner = world.highest.get(w.owner_uid(new))
    if owner is None:
        return ""
    live = sum(1 for pod in world.pods_of_job(w.owner_uid(new)) if _live(pod))
    return f"{live} live pods of a set that was to have at most {owner}" if live > owner else ""


def roll_outs_keep_their_surge(world: World, old: Object | None, new: Object | None) -> str:
    """The ReplicaSets of a Deployment ask together for no more than its replicas and the surge."""
    if new is None or not (uid := w.owner_uid(new)):
        return ""
    if old is not None and old["spec"].get("replicas") == new["spec"].get("replicas"):
        return ""
    most = world.highest.get(uid)
    if most is None:
        return ""
    asked = sum(int(s["spec"].get("replicas", 1)) for s in world.all("replicasets.apps") if w.owner_uid(s) == uid)
    return f"its Deployment's sets ask for {asked} pods of at most {most}" if asked > most else ""


def remember_replicas(world: World, old: Object | None, new: Object | None) -> str:
    """The most pods that a set or a Deployment (with its surge) may ever have had."""
    if new is not None:
        spec, uid = new["spec"], new["metadata"]["uid"]
        replicas = int(spec.get("replicas", 1))
        surge = ((spec.get("strategy") or {}).get("rollingUpdate") or {}).get("maxSurge", 0)
        if isinstance(surge, str):
            surge = math.ceil(replicas * int(surge[:-1]) / 100)
        world.highest[uid] = max(world.highest.get(uid, 0), replicas + surge)
    return ""


def scale_stays_in_the_autoscalers_range(world: World, old: Object | None, new: Object | None) -> str:
    if new is None or new["metadata"]["namespace"] != NAMESPACE or new["metadata"]["name"] != "web":
        return ""
    replicas = new["spec"].get("replicas")
    return "" if LEAST <= replicas <= MOST else f"{replicas} replicas, of {LEAST} to {MOST}"


def members_have_their_disk_first(world: World, old: Object | None, new: Object | None) -> str:
    """A pod of the StatefulSet is made after its claim."""
    if new is None or old is not None or not (claims := _claims(new)):
        return ""
    missing = [c for c in claims if world.get("persistentvolumeclaims", new["metadata"]["namespace"], c) is None]
    return f"made before its claims {', '.join(missing)}" if missing else ""


def disks_stay(world: World, old: Object | None, new: Object | None) -> str:
    """Nobody deletes claims here: the set retains them."""
    kept = (old or new or {})["metadata"]["namespace"] == NAMESPACE
    return "a claim that is retained was removed" if kept and (new is None or w.is_deleting(new)) else ""


def one_daemon_on_each_node(world: World, old: Object | None, new: Object | None) -> str:
    if new is None or old is not None or not (node := _pinned(new)):
        return ""
    same = [p for p in world.pods_of_job(w.owner_uid(new)) if _live(p) and _pinned(p) == node]
    return f"{len(same)} daemons for node {node}" if len(same) > 1 else ""


def forbidden_jobs_do_not_overlap(world: World, old: Object | None, new: Object | None) -> str:
    if new is None or old is not None:
        return ""
    for cron in world.all("cronjobs.batch"):
        if cron["metadata"]["uid"] == w.owner_uid(new) and cron["spec"].get("concurrencyPolicy") == "Forbid":
            others = [j for j in world.all("jobs.batch") if w.owner_uid(j) == w.owner_uid(new) and not w.is_finished(j)]
            return f"{len(others)} jobs at once of a CronJob that forbids it" if len(others) > 1 else ""
    return ""


# --- at rest


def unfinished(world: World) -> Iterator[str]:
    """What applications still have to do, in words."""
    for deployment in world.all("deployments.apps"):
        yield from _deployment(world, deployment)
    for stateful in world.all("statefulsets.apps"):
        yield from _stateful_set(world, stateful)
    for daemons in world.all("daemonsets.apps"):
        yield from _daemon_set(world, daemons)
    for budget in world.all("poddisruptionbudgets.policy"):
        yield from _budget(world, budget)
    for autoscaler in world.all("horizontalpodautoscalers.autoscaling"):
        yield from _autoscaler(world, autoscaler)
    yield from _left_over(world)


def _deployment(world: World, obj: Object) -> Iterator[str]:
    uid, wanted = obj["metadata"]["uid"], int(obj["spec"]["replicas"])
    status, name = obj.get("status") or {}, f"deployment {obj['metadata']['name']}"
    said = {k: status.get(k, 0) for k in ("replicas", "updatedReplicas", "availableReplicas")}
    if _is_stale(obj) or any(count != wanted for count in said.values()):
        yield f"{name}: wants {wanted}, says {said}"
    sets = [s for s in world.all("replicasets.apps") if w.owner_uid(s) == uid]
    busy = [s for s in sets if s["spec"].get("replicas", 1)]
    if len(busy) > 1 or len(sets) > 3:
        yield f"{name}: {len(busy)} sets of {len(sets)} have replicas"
    pods = [p for s in sets for p in world.pods_of_job(s["metadata"]["uid"]) if _live(p)]
    if len(pods) != wanted or any(not _ready(p) or _image(p) != _image(obj["spec"]["template"]) for p in pods):
        yield f"{name}: has {len(pods)} pods of {wanted}, or old ones"


def _stateful_set(world: World, obj: Object) -> Iterator[str]:
    wanted, name = int(obj["spec"]["replicas"]), obj["metadata"]["name"]
    status = obj.get("status") or {}
    said = {k: status.get(k, 0) for k in ("replicas", "readyReplicas", "availableReplicas", "updatedReplicas")}
    if _is_stale(obj) or any(count != wanted for count in said.values()):
        yield f"stateful set {name}: wants {wanted}, says {said}"
    elif wanted and status.get("currentRevision") != status.get("updateRevision"):
        yield f"stateful set {name}: its update has not ended"
    pods = sorted(p["metadata"]["name"] for p in world.pods_of_job(obj["metadata"]["uid"]))
    if pods != [f"{name}-{n}" for n in range(wanted)]:
        yield f"stateful set {name}: has {pods}"
    for claim in world.all("persistentvolumeclaims"):
        if (claim.get("status") or {}).get("phase") != "Bound":
            yield f"claim {claim['metadata']['name']} is not bound"


def _daemon_set(world: World, obj: Object) -> Iterator[str]:
    nodes = sorted(n["metadata"]["name"] for n in world.all("nodes"))
    live = [p for p in world.pods_of_job(obj["metadata"]["uid"]) if _live(p)]
    new = [p for p in live if _ready(p) and _image(p) == _image(obj["spec"]["template"])]
    on = sorted(p["spec"].get("nodeName", "") for p in live)
    if on != nodes or len(new) != len(live):
        yield f"daemon set {obj['metadata']['name']}: {len(new)} new ones of {len(live)} on {on}"
    status, count = obj.get("status") or {}, len(nodes)
    fields = ("desiredNumberScheduled", "currentNumberScheduled", "numberAvailable", "updatedNumberScheduled")
    if _is_stale(obj) or any(status.get(f, 0) != count for f in fields):
        yield f"daemon set {obj['metadata']['name']}: says { ({f: status.get(f, 0) for f in fields}) }, {count} nodes"


def _budget(world: World, obj: Object) -> Iterator[str]:
    labels = obj["spec"]["selector"]["matchLabels"]
    pods = [p for p in world.all("pods") if labels.items() <= (p["metadata"].get("labels") or {}).items()]
    healthy = sum(1 for p in pods if _ready(p) and not w.is_deleting(p))
    said = (obj.get("status") or {}).get("currentHealthy", 0)
    if said != healthy or _is_stale(obj):
        yield f"budget {obj['metadata']['name']}: says {said} of {healthy} healthy pods"


def _autoscaler(world: World, obj: Object) -> Iterator[str]:
    target = world.get("deployments.apps", NAMESPACE, obj["spec"]["scaleTargetRef"]["name"])
    desired = (obj.get("status") or {}).get("desiredReplicas")
    if target is not None and (desired != target["spec"]["replicas"] or not condition_is_true(obj, "ScalingActive")):
        yield f"autoscaler {obj['metadata']['name']}: desires {desired} of {target['spec']['replicas']}, or cannot tell"


def _left_over(world: World) -> Iterator[str]:
    owners = {
        obj["metadata"]["uid"]
        for kind in ("deployments.apps", "replicasets.apps", "statefulsets.apps", "daemonsets.apps", "cronjobs.batch")
        for obj in world.all(kind)
    }
    for kind in ("replicasets.apps", "controllerrevisions.apps"):
        for obj in world.all(kind):
            if (uid := w.owner_uid(obj)) and uid not in owners:
                yield f"{kind} {obj['metadata']['name']} outlived its owner"
    for pod in world.all("pods"):
        if pod["metadata"]["namespace"] == NAMESPACE and _kind(pod) != "Job" and w.owner_uid(pod) not in owners:
            yield f"pod {pod['metadata']['name']} outlived its owner"


# --- words


def _live(pod: Object) -> bool:
    return w.phase(pod) not in w.TERMINAL and not w.is_deleting(pod)


def _ready(pod: Object) -> bool:
    return condition_is_true(pod, "Ready")


def _image(template: Object) -> str:
    return str(template["spec"]["containers"][0]["image"])


def _is_stale(obj: Object) -> bool:
    return bool((obj.get("status") or {}).get("observedGeneration") != obj["metadata"].get("generation"))


def _kind(obj: Object) -> str:
    return next(
        (str(r.get("kind", "")) for r in obj["metadata"].get("ownerReferences") or () if r.get("controller")), ""
    )


def _claims(pod: Object) -> list[str]:
    volumes: list[Any] = pod["spec"].get("volumes") or []
    return [v["persistentVolumeClaim"]["claimName"] for v in volumes if "persistentVolumeClaim" in v]


def _pinned(pod: Object) -> str:
    """The node that a daemon is made for."""
    if _kind(pod) != "DaemonSet":
        return ""
    node = (pod["spec"].get("affinity") or {}).get("nodeAffinity") or {}
    terms = (node.get("requiredDuringSchedulingIgnoredDuringExecution") or {}).get("nodeSelectorTerms") or ()
    return next((str(f["values"][0]) for t in terms for f in t.get("matchFields") or ()), "")
