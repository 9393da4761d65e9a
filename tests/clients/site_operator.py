"""An operator for `kopf run`: makes a Deployment for each Site, follows it, refuses bad ones, converts old ones.

Its replicas agree by a KopfPeering on who works. ``CERTIFICATE`` is a PEM file with its key and certificate;
``CONVERSION`` the port of the conversion webhook; ``VALIDATION`` that of the validating one.
"""

from __future__ import annotations

import os
import ssl
from typing import Any

import kopf
import kubernetes
from aiohttp import web

CERTIFICATE = os.environ["CERTIFICATE"]


@kopf.on.startup()
async def start(settings: kopf.OperatorSettings, memo: kopf.Memo, **_: Any) -> None:
    settings.peering.lifetime = 4
    settings.persistence.finalizer = "charts.example.org/kopf"
    settings.posting.enabled = False
    if port := os.environ.get("VALIDATION"):
        settings.admission.server = kopf.WebhookServer(
            addr="127.0.0.1", host="127.0.0.1", port=int(port), certfile=CERTIFICATE, pkeyfile=CERTIFICATE,
            cafile=CERTIFICATE,
        )  # fmt: skip
        settings.admission.managed = "sites.charts.example.org"
    if port := os.environ.get("CONVERSION"):
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        context.load_cert_chain(CERTIFICATE)
        application = web.Application()
        application.router.add_post("/convert", convert)
        runner = web.AppRunner(application)
        await runner.setup()
        await web.TCPSite(runner, "127.0.0.1", int(port), ssl_context=context).start()
        memo["runner"] = runner


async def convert(request: web.Request) -> web.Response:
    review = await request.json()
    asked = review["request"]
    converted = [_converted(obj, asked["desiredAPIVersion"]) for obj in asked["objects"]]
    response = {"uid": asked["uid"], "result": {"status": "Success"}, "convertedObjects": converted}
    return web.json_response({"apiVersion": review["apiVersion"], "kind": review["kind"], "response": response})


def _converted(obj: dict[str, Any], version: str) -> dict[str, Any]:
    """v1alpha1 calls the number of replicas ``size``."""
    old, new = ("size", "replicas") if version.endswith("/v1") else ("replicas", "size")
    spec = dict(obj.get("spec") or {})
    if old in spec:
        spec[new] = spec.pop(old)
    return {**obj, "apiVersion": version, "spec": spec}


@kopf.on.validate("charts.example.org", "v1", "sites")
def check(spec: Any, **_: Any) -> None:
    if spec.get("replicas", 0) > 5:
        raise kopf.AdmissionError("a site has at most 5 replicas", code=400)


@kopf.on.create("charts.example.org", "v1", "sites")
@kopf.on.update("charts.example.org", "v1", "sites", field="spec")
def wanted(spec: Any, name: str, namespace: str, body: Any, patch: Any, **_: Any) -> None:
    kubernetes.config.load_kube_config()
    apps = kubernetes.client.AppsV1Api()
    container = {"name": "site", "image": "site:1", "env": [{"name": "TEXT", "value": spec.get("text", "")}]}
    made = {
        "apiVersion": "apps/v1",
        "kind": "Deployment",
        "metadata": {"name": name},
        "spec": {
            "replicas": spec["replicas"],
            "selector": {"matchLabels": {"site": name}},
            "template": {"metadata": {"labels": {"site": name}}, "spec": {"containers": [container]}},
        },
    }
    kopf.adopt(made, owner=body)
    try:
        apps.create_namespaced_deployment(namespace, made)
    except kubernetes.client.ApiException as error:
        if error.status != 409:
            raise
        apps.patch_namespaced_deployment(name, namespace, made)
    patch.status["by"] = os.environ["REPLICA"]


@kopf.on.event("apps", "v1", "deployments", labels={"site": kopf.PRESENT})
def nothing(**_: Any) -> None:
    """Deployments are watched, too, as most operators do."""
