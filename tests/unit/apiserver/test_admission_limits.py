"""LimitRange: defaults, bounds, ratios."""

from __future__ import annotations

from typing import Any

from admission_world import CLAIMS, LIMITS, container, pod, refused, serve, thing

from glebe.kube.objects import Object
from glebe.kube.resources import PODS


def resources(cpu: str = "", memory: str = "", storage: str = "") -> dict[str, str]:
    return {k: v for k, v in (("cpu", cpu), ("memory", memory), ("ephemeral-storage", storage)) if v}


def limit_range(kind: str, **limits: Any) -> Object:
    return thing(LIMITS, "limit-range", spec={"limits": [{"type": kind, **limits}]})


def conformance_range() -> Object:
    return limit_range(
        "Container",
        min=resources("50m", "100Mi", "100Gi"),
        max=resources("500m", "500Mi", "500Gi"),
        default=resources("500m", "500Mi", "500Gi"),
        defaultRequest=resources("100m", "200Mi", "200Gi"),
    )


def asking(name: str, requests: dict[str, str], limits: dict[str, str] | None = None) -> Object:
    return pod(name, "default", container(requests=requests, limits=limits or {}))


async def test_defaults_are_filled_in() -> None:
    _, api = await serve()
    await api.create(LIMITS, conformance_range())
    made = await api.create(PODS, pod("none", initContainers=[container("i")]))
    for one in (*made["spec"]["containers"], *made["spec"]["initContainers"]):
        assert one["resources"] == {
            "requests": resources("100m", "200Mi", "200Gi"),
            "limits": resources("500m", "500Mi", "500Gi"),
        }
    names = "cpu, ephemeral-storage, memory"
    assert made["metadata"]["annotations"]["kubernetes.io/limit-ranger"] == (
        f"LimitRanger plugin set: {names} request for container main; {names} limit for container main; "
        f"{names} request for init container i; {names} limit for init container i"
    )
    part = await api.create(PODS, asking("part", resources("", "150Mi", "150Gi"), resources("300m")))
    assert part["spec"]["containers"][0]["resources"] == {
        "requests": resources("300m", "150Mi", "150Gi"),
        "limits": resources("300m", "500Mi", "500Gi"),
    }


async def test_bounds_of_containers() -> None:
    _, api = await serve()
    made = await api.create(LIMITS, conformance_range())
    text = await refused(api.create(PODS, asking("p", resources("10m", "50Mi", "50Gi"))))
    assert text == (
        'pods "p" is forbidden: [minimum cpu usage per Container is 50m, but request is 10m, '
        "minimum ephemeral-storage usage per Container is 100Gi, but request is 50Gi, "
        "minimum memory usage per Container is 100Mi, but request is 50Mi]"
    )
    text = await refused(api.create(PODS, asking("p", resources("100m"), resources("600m"))))
    assert text.endswith("maximum cpu usage per Container is 500m, but limit is 600m")
    made["spec"]["limits"][0]["min"] = resources("9m", "49Mi", "49Gi")
    await api.update(LIMITS, made)
    await api.create(PODS, asking("p", resources("10m", "50Mi", "50Gi")))
    await api.delete(LIMITS, "limit-range", "default")
    await api.create(PODS, asking("q", resources("600m", "600Mi", "600Gi")))


async def test_what_is_not_said_is_not_enough() -> None:
    _, api = await serve()
    await api.create(LIMITS, limit_range("Pod", max={"memory": "1Gi"}, min={"cpu": "1"}))
    text = await refused(api.create(PODS, pod("p")))
    assert "minimum cpu usage per Pod is 1.  No request is specified" in text
    assert "maximum memory usage per Pod is 1Gi.  No limit is specified" in text
    half = container(requests={"cpu": "600m"}, limits={"memory": "600Mi"})
    text = await refused(api.create(PODS, pod("p", "default", half, {**half, "name": "b"})))
    assert text.endswith("maximum memory usage per Pod is 1Gi, but limit is 1200Mi")


async def test_ratio() -> None:
    _, api = await serve()
    await api.create(LIMITS, limit_range("Container", maxLimitRequestRatio={"cpu": "2"}))
    text = await refused(api.create(PODS, asking("p", resources("100m"), resources("300m"))))
    assert text.endswith("cpu max limit to request ratio per Container is 2, but provided ratio is 3.000000")
    text = await refused(api.create(PODS, pod("p")))
    assert text.endswith("but no request is specified or request is 0")
    await api.create(PODS, asking("p", resources("100m"), resources("200m")))


async def test_claims() -> None:
    _, api = await serve()
    bounds = {"min": {"storage": "1Gi"}, "max": {"storage": "2Gi"}}
    await api.create(LIMITS, limit_range("PersistentVolumeClaim", **bounds))

    def claim(size: str) -> Object:
        spec = {"accessModes": ["ReadWriteOnce"], "resources": {"requests": {"storage": size}}}
        return thing(CLAIMS, "c", spec=spec)

    assert "minimum storage usage per PersistentVolumeClaim is 1Gi, but request is 1Mi" in await refused(
        api.create(CLAIMS, claim("1Mi"))
    )
    assert "maximum storage usage per PersistentVolumeClaim is 2Gi, but request is 3Gi" in await refused(
        api.create(CLAIMS, claim("3Gi"))
    )
    await api.create(CLAIMS, claim("2Gi"))
