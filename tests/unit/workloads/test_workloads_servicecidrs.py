"""Further ranges of Service addresses."""

from __future__ import annotations

import asyncio

import pytest
from workloads_stage import gone, stage, until

from glebe.kube.client import Client
from glebe.kube.errors import ApiError
from glebe.kube.objects import Object, get_condition
from glebe.kube.resources import SERVICES
from glebe.workloads.servicecidrs import DEFAULT, FINALIZER, RANGES, build


def made(name: str, cidr: str) -> Object:
    return {
        "apiVersion": "networking.k8s.io/v1",
        "kind": "ServiceCIDR",
        "metadata": {"name": name},
        "spec": {"cidrs": [cidr]},
    }


def service(address: str) -> Object:
    spec = {"ports": [{"port": 80}], "clusterIP": address}
    return {"apiVersion": "v1", "kind": "Service", "metadata": {"name": "s", "namespace": "default"}, "spec": spec}


async def ready(client: Client, name: str, status: str = "True") -> Object | None:
    found = await client.get(RANGES, name)
    condition = get_condition(found, "Ready")
    return condition if condition and condition["status"] == status else None


async def test_addresses_come_from_a_range_that_is_ready_and_keep_it() -> None:
    async with stage([build], "a", kubelet=False) as here:
        client = here["a"]
        with pytest.raises(ApiError, match=r"10\.77\.0\.9"):
            await client.create(SERVICES, service("10.77.0.9"))
        await client.create(RANGES, made("more", "10.77.0.0/24"))
        condition = await until(lambda: ready(client, "more"))
        assert condition["message"] == "Kubernetes Service CIDR is ready"
        assert (await client.get(RANGES, "more"))["metadata"]["finalizers"] == [FINALIZER]
        await client.create(SERVICES, service("10.77.0.9"))

        await client.delete(RANGES, "more")
        condition = await until(lambda: ready(client, "more", "False"))
        assert condition["reason"] == "Terminating"
        await asyncio.sleep(60)
        assert not await gone(client, RANGES, "more", None)
        await client.delete(SERVICES, "s", "default")
        await until(lambda: gone(client, RANGES, "more", None))


async def test_another_range_may_take_the_addresses_over() -> None:
    async with stage([build], kubelet=False) as here:
        await here.root.create(RANGES, made("small", "10.77.0.0/24"))
        await until(lambda: ready(here.root, "small"))
        await here.root.create(SERVICES, service("10.77.0.9"))
        await here.root.delete(RANGES, "small")
        await until(lambda: ready(here.root, "small", "False"))
        await here.root.create(RANGES, made("large", "10.77.0.0/16"))
        await until(lambda: gone(here.root, RANGES, "small", None))


async def test_the_default_range_costs_no_write() -> None:
    async with stage([build], "a", kubelet=False) as here:
        await asyncio.sleep(30)
        found = await here["a"].get(RANGES, DEFAULT)
        assert get_condition(found, "Ready")
        assert "finalizers" not in found["metadata"]
