"""ServiceAccount: who a pod is, and the token by which it says so (``plugin/pkg/admission/serviceaccount``)."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from glebe.apiserver.admission.base import AdmissionAttributes, BuiltinPlugin, Read, is_new_pod
from glebe.kube.clock import Env
from glebe.kube.objects import Object, annotations_of

MIRROR = "kubernetes.io/config.mirror"
ENFORCE = "kubernetes.io/enforce-mountable-secrets"
TOKEN_PATH = "/var/run/secrets/kubernetes.io/serviceaccount"
VOLUME = "kube-api-access-"
TOKEN_SECONDS = 3607
"""How long the token lives (upstream's ``WarnOnlyBoundTokenExpirationSeconds``)."""

_LETTERS = "bcdfghjklmnpqrstvwxz2456789"
_REFUSED_IN_MIRRORS = "a mirror pod may not "


class ServiceAccount(BuiltinPlugin):
    """A pod runs as a service account that exists, and gets its token as a projected volume unless it opts out.

    One difference to upstream, which waits up to two seconds for the namespace's ``default`` account: here a pod does
    not wait for the controller that makes it.
    """

    name = "ServiceAccount"
    resources = frozenset({"pods"})

    def __init__(self, read: Read, env: Env) -> None:
        self._read = read
        # Upstream draws a name for each pod; it need only differ from the pod's other volumes. Pods that are stamped
        # from one template stay equal, so that what is found out about one is known of all.
        self._volume = VOLUME + "".join(env.rng.choices(_LETTERS, k=5))

    async def admit(self, a: AdmissionAttributes) -> None:
        if not is_new_pod(a) or a.obj is None:
            return
        spec = a.obj["spec"]
        if MIRROR in annotations_of(a.obj):
            return
        name = spec.get("serviceAccountName") or spec.get("serviceAccount") or "default"
        account = self._account(a, name)
        spec["serviceAccountName"] = spec["serviceAccount"] = name
        if _wants_token(account, spec):
            self._mount(spec)
        if not spec.get("imagePullSecrets") and account.get("imagePullSecrets"):
            spec["imagePullSecrets"] = [{"name": s.get("name", "")} for s in account["imagePullSecrets"]]

    async def validate(self, a: AdmissionAttributes) -> None:
        if a.obj is None or a.operation not in ("CREATE", "UPDATE"):
            return
        ephemeral = a.operation == "UPDATE" and a.subresource == "ephemeralcontainers"
        if not ephemeral and not is_new_pod(a):
            return
        spec = a.obj["spec"]
        if not ephemeral and MIRROR in annotations_of(a.obj):
            _check_mirror(a, spec)
            return
        name = spec.get("serviceAccountName") or ""
        if not name:
            raise a.refusal(f"no service account specified for pod {a.namespace}/{a.name}")
        account = self._account(a, name)
        if annotations_of(account).get(ENFORCE, "").lower() in ("true", "t", "1"):
            why = _forbidden_secret(account, spec, ephemeral)
            if why:
                raise a.refusal(why)

    def _account(self, a: AdmissionAttributes, name: str) -> Object:
        found = self._read(a.cluster, "serviceaccounts", a.namespace, name)
        if found is None:
            if name != "default":
                raise a.refusal(
                    f'error looking up service account {a.namespace}/{name}: serviceaccount "{name}" not found'
                )
            return {"metadata": {"name": name}}
        return found

    def _mount(self, spec: Object) -> None:
        present = next((v["name"] for v in spec.get("volumes") or () if v.get("name", "").startswith(VOLUME)), "")
        volume = present or self._volume
        needed = False
        for kind in ("initContainers", "containers"):
            for container in spec.get(kind) or ():
                mounts = container.get("volumeMounts") or []
                if any(m.get("mountPath") == TOKEN_PATH for m in mounts):
                    continue
                mount = {"name": volume, "readOnly": True, "mountPath": TOKEN_PATH}
                container["volumeMounts"] = [*mounts, mount]
                needed = True
        if needed and not present:
            spec["volumes"] = [*(spec.get("volumes") or ()), {"name": volume, "projected": token_volume()}]


def token_volume() -> dict[str, Any]:
    """What the token's volume holds: ``token``, ``ca.crt``, ``namespace``."""
    where = {"path": "namespace", "fieldRef": {"apiVersion": "v1", "fieldPath": "metadata.namespace"}}
    return {
        "sources": [
            {"serviceAccountToken": {"expirationSeconds": TOKEN_SECONDS, "path": "token"}},
            {"configMap": {"name": "kube-root-ca.crt", "items": [{"key": "ca.crt", "path": "ca.crt"}]}},
            {"downwardAPI": {"items": [where]}},
        ],
        "defaultMode": 0o644,
    }


def _wants_token(account: Object, spec: Object) -> bool:
    """The pod's word counts before its account's; by default the token is mounted."""
    for asked in (spec.get("automountServiceAccountToken"), account.get("automountServiceAccountToken")):
        if asked is not None:
            return bool(asked)
    return True


def _check_mirror(a: AdmissionAttributes, spec: Object) -> None:
    """A static pod's image in the API names nothing that is in the API."""
    if spec.get("serviceAccountName"):
        raise a.refusal(_REFUSED_IN_MIRRORS + "reference service accounts")
    volumes = spec.get("volumes") or ()
    if spec.get("imagePullSecrets") or any("secret" in v for v in volumes) or any(_uses(spec)):
        raise a.refusal(_REFUSED_IN_MIRRORS + "reference secrets")
    for volume in volumes:
        for source in (volume.get("projected") or {}).get("sources") or ():
            if "secret" in source:
                raise a.refusal(_REFUSED_IN_MIRRORS + "reference secrets")
            if "serviceAccountToken" in source:
                raise a.refusal(_REFUSED_IN_MIRRORS + "use ServiceAccountToken volume projections")


_KINDS = (("initContainers", "init container"), ("containers", "container"))
_EPHEMERAL = (("ephemeralContainers", "ephemeral container"),)


def _uses(spec: Object, kinds: tuple[tuple[str, str], ...] = _KINDS + _EPHEMERAL) -> Iterator[tuple[str, str]]:
    """(where, name) of every secret that the containers' environments name."""
    for field, words in kinds:
        for container in spec.get(field) or ():
            where = f"{words} {container.get('name', '')} with"
            for item in container.get("env") or ():
                ref = (item.get("valueFrom") or {}).get("secretKeyRef")
                if ref:
                    yield f"{where} envVar {item.get('name', '')}", ref.get("name", "")
            for item in container.get("envFrom") or ():
                if item.get("secretRef"):
                    yield f"{where} envFrom", item["secretRef"].get("name", "")


def _forbidden_secret(account: Object, spec: Object, ephemeral: bool) -> str:
    """Why the pod may not use a secret that its account does not list; empty when it names none."""
    name = account["metadata"]["name"]
    allowed = {s.get("name") for s in account.get("secrets") or ()}
    tail = f"is not allowed because service account {name} does not reference that"
    if not ephemeral:
        for volume in spec.get("volumes") or ():
            secret = (volume.get("secret") or {}).get("secretName")
            if "secret" in volume and secret not in allowed:
                return f'volume with secret.secretName="{secret}" {tail} secret'
    for where, secret in _uses(spec, _EPHEMERAL if ephemeral else _KINDS):
        if secret not in allowed:
            return f'{where} referencing secret.secretName="{secret}" {tail} secret'
    if not ephemeral:
        pulls = {s.get("name") for s in account.get("imagePullSecrets") or ()}
        for i, ref in enumerate(spec.get("imagePullSecrets") or ()):
            if ref.get("name") not in pulls:
                return f'imagePullSecrets[{i}].name="{ref.get("name", "")}" {tail} imagePullSecret'
    return ""
