"""NodeRestriction: a kubelet changes its own node and what runs on it (``plugin/pkg/admission/noderestriction``).

The Node authorizer decides what a node may read; this plugin looks into what it writes.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Mapping
from typing import Any

from glebe.apiserver.admission.base import AdmissionAttributes, BuiltinPlugin, Read
from glebe.apiserver.admission.serviceaccount import MIRROR
from glebe.kube import errors
from glebe.kube.objects import Object, annotations_of, labels_of

PREFIX, GROUP = "system:node:", "system:nodes"
_KUBELET_LABELS = frozenset(
    {
        "kubernetes.io/hostname",
        "topology.kubernetes.io/zone",
        "topology.kubernetes.io/region",
        "failure-domain.beta.kubernetes.io/zone",
        "failure-domain.beta.kubernetes.io/region",
        "beta.kubernetes.io/instance-type",
        "node.kubernetes.io/instance-type",
        "kubernetes.io/os",
        "kubernetes.io/arch",
        "beta.kubernetes.io/os",
        "beta.kubernetes.io/arch",
    }
)
_KUBELET_DOMAINS = ("kubelet.kubernetes.io", "node.kubernetes.io")
_RESTRICTED = "node-restriction.kubernetes.io"
_SIGNERS = ("kubernetes.io/kubelet-serving", "kubernetes.io/kube-apiserver-client-kubelet")

Authorize = Callable[..., Awaitable[tuple[bool, str]]]


def node_of(user_name: str, groups: tuple[str, ...]) -> str | None:
    """The node whose kubelet a user is; None for everybody else."""
    if GROUP not in groups or not user_name.startswith(PREFIX):
        return None
    return user_name[len(PREFIX) :]


class NodeRestriction(BuiltinPlugin):
    """:param authorize: asks the server's authorizer, as it is at that moment; None allows nothing more."""

    name = "NodeRestriction"
    resources = frozenset(
        {
            "pods",
            "nodes",
            "persistentvolumeclaims",
            "serviceaccounts",
            "leases.coordination.k8s.io",
            "csinodes.storage.k8s.io",
            "resourceslices.resource.k8s.io",
            "certificatesigningrequests.certificates.k8s.io",
        }
    )

    def __init__(self, read: Read, authorize: Authorize) -> None:
        self._read = read
        self._authorize = authorize
        self._checks: dict[str, Callable[[AdmissionAttributes, str], None]] = {
            "pods": self._pod,
            "nodes": self._node,
            "persistentvolumeclaims": _claim,
            "leases.coordination.k8s.io": _lease,
            "csinodes.storage.k8s.io": _csi_node,
            "resourceslices.resource.k8s.io": _slice,
            "certificatesigningrequests.certificates.k8s.io": _request,
        }

    async def admit(self, a: AdmissionAttributes) -> None:
        node = node_of(a.user.name, tuple(a.user.groups))
        if node is None or a.operation == "CONNECT":
            return
        if not node:
            raise a.refusal(f'could not determine node from user "{a.user.name}"')
        if a.info.group_resource == "serviceaccounts":
            await self._token(a, node)
        else:
            self._checks[a.info.group_resource](a, node)

    # -- pods

    def _pod(self, a: AdmissionAttributes, node: str) -> None:
        match a.subresource, a.operation:
            case "", "CREATE":
                self._new_pod(a, node)
            case "", "DELETE":
                if a.old is not None and a.old["spec"].get("nodeName") != node:
                    raise a.refusal(f'node "{node}" can only delete pods with spec.nodeName set to itself')
            case "", _:
                raise a.refusal(
                    f'unexpected operation "{a.operation}", node "{node}" can only create and delete mirror pods'
                )
            case "status", "UPDATE":
                _pod_status(a, node)
            case "eviction", "CREATE":
                pod = self._read(a.cluster, "pods", a.namespace, a.name)
                if pod is None:
                    raise errors.not_found("", "pods", a.name)
                if pod["spec"].get("nodeName") != node:
                    raise a.refusal(f"node {node} can only evict pods with spec.nodeName set to itself")
            case "status" | "eviction", _:
                raise a.refusal(f'unexpected operation "{a.operation}"')
            case _:
                text = f"unexpected pod subresource \"{a.subresource}\", only 'status' and 'eviction' are allowed"
                raise a.refusal(text)

    def _new_pod(self, a: AdmissionAttributes, node: str) -> None:
        pod = a.obj
        assert pod is not None
        if MIRROR not in annotations_of(pod):
            raise a.refusal(f'pod does not have "{MIRROR}" annotation, node "{node}" can only create mirror pods')
        only = f'node "{node}" can only create pods with'
        if pod["spec"].get("nodeName") != node:
            raise a.refusal(f"{only} spec.nodeName set to itself")
        owners = pod["metadata"].get("ownerReferences") or []
        if len(owners) > 1:
            raise a.refusal(f"{only} a single owner reference set to itself")
        owner = owners[0] if owners else {}
        if (owner.get("apiVersion"), owner.get("kind"), owner.get("name")) != ("v1", "Node", node):
            raise a.refusal(f"{only} an owner reference set to itself")
        if not owner.get("controller"):
            raise a.refusal(f"{only} a controller owner reference set to itself")
        if owner.get("blockOwnerDeletion"):
            raise a.refusal(f'node "{node}" must not set blockOwnerDeletion on an owner reference')
        found = self._read(a.cluster, "nodes", "", node)
        if found is None:
            raise errors.not_found("", "nodes", node)
        uid = found["metadata"]["uid"]
        if owner.get("uid") != uid:
            raise a.refusal(f"node {node} UID mismatch: expected {owner.get('uid')} got {uid}")
        named = _references(pod["spec"])
        if named:
            raise a.refusal(f'node "{node}" can not create pods that reference {named}')

    # -- nodes

    def _node(self, a: AdmissionAttributes, node: str) -> None:
        if a.name != node:
            raise a.refusal(f'node "{node}" is not allowed to modify node "{a.name}"')
        if a.obj is None or a.operation not in ("CREATE", "UPDATE"):
            return
        spec, old = a.obj.get("spec") or {}, a.old or {"metadata": {}}
        before = old.get("spec") or {}
        if a.operation == "CREATE":
            if spec.get("configSource") is not None:
                raise a.refusal(f'node "{node}" is not allowed to create pods with a non-nil configSource')
        else:
            if spec.get("configSource") is not None and spec["configSource"] != before.get("configSource"):
                raise a.refusal(f'node "{node}" is not allowed to update configSource to a new non-nil configSource')
            if (spec.get("taints") or []) != (before.get("taints") or []):
                raise a.refusal(f'node "{node}" is not allowed to modify taints')
            owners, owned = (o["metadata"].get("ownerReferences") or [] for o in (a.obj, old))
            if owners != owned:
                raise a.refusal(f'node "{node}" is not allowed to modify ownerReferences')
        forbidden = ", ".join(_forbidden_labels(labels_of(a.obj), labels_of(old)))
        if forbidden and a.operation == "CREATE":
            raise a.refusal(f'node "{node}" is not allowed to set the following labels: {forbidden}')
        if forbidden:
            raise a.refusal(f"is not allowed to modify labels: {forbidden}")

    # -- tokens

    async def _token(self, a: AdmissionAttributes, node: str) -> None:
        if a.operation != "CREATE" or a.subresource != "token" or a.obj is None:
            return
        spec = a.obj.get("spec") or {}
        reference = spec.get("boundObjectRef") or {}
        if (reference.get("apiVersion"), reference.get("kind")) != ("v1", "Pod") or not reference.get("name"):
            raise a.refusal("node requested token not bound to a pod")
        if not reference.get("uid"):
            raise a.refusal("node requested token with a pod binding without a uid")
        pod = self._read(a.cluster, "pods", a.namespace, reference["name"])
        if pod is None:
            raise errors.not_found("", "pods", reference["name"])
        if reference["uid"] != pod["metadata"]["uid"]:
            raise a.refusal(
                f"the UID in the bound object reference ({reference['uid']}) does not match the UID in record. "
                "The object might have been deleted and then recreated"
            )
        if pod["spec"].get("nodeName") != node:
            raise a.refusal("node requested token bound to a pod scheduled on a different node")
        await self._audience(a, pod, spec.get("audiences") or [])

    async def _audience(self, a: AdmissionAttributes, pod: Object, audiences: list[str]) -> None:
        """A node gets tokens for the audiences that the pod's volumes name, or that it was given a right to."""
        if len(audiences) > 1:
            raise a.refusal("node may only request 0 or 1 audiences")
        wanted = audiences[0] if audiences else ""
        if wanted in self._audiences(a, pod):
            return
        verb = "request-serviceaccounts-token-audience"
        allowed, _ = await self._authorize(a.user, a.cluster, verb, "", wanted, "", a.namespace, a.name, "")
        if not allowed:
            text = f'audience "{wanted}" not found in pod spec volume, {a.user.name} is not authorized'
            raise a.refusal(f"{text} to request tokens for this audience")

    def _audiences(self, a: AdmissionAttributes, pod: Object) -> set[str]:
        found: set[str] = set()
        for volume in pod["spec"].get("volumes") or ():
            for source in (volume.get("projected") or {}).get("sources") or ():
                if "serviceAccountToken" in source:
                    found.add(source["serviceAccountToken"].get("audience") or "")
            driver = self._driver(a, pod, volume)
            csi = self._read(a.cluster, "csidrivers.storage.k8s.io", "", driver) if driver else None
            for request in ((csi or {}).get("spec") or {}).get("tokenRequests") or ():
                found.add(request.get("audience") or "")
        return found

    def _driver(self, a: AdmissionAttributes, pod: Object, volume: Mapping[str, Any]) -> str:
        """The CSI driver that serves a volume: its own, or its claim's volume's."""
        if "csi" in volume:
            return str(volume["csi"].get("driver", ""))
        claim = (volume.get("persistentVolumeClaim") or {}).get("claimName", "")
        if "ephemeral" in volume:
            claim = f"{pod['metadata']['name']}-{volume['name']}"
        found = self._read(a.cluster, "persistentvolumeclaims", a.namespace, claim) if claim else None
        bound = ((found or {}).get("spec") or {}).get("volumeName", "")
        source = self._read(a.cluster, "persistentvolumes", "", bound) if bound else None
        return str(((((source or {}).get("spec") or {}).get("csi")) or {}).get("driver", ""))


def _pod_status(a: AdmissionAttributes, node: str) -> None:
    assert a.obj is not None
    assert a.old is not None
    if a.old["spec"].get("nodeName") != node:
        raise a.refusal(f'node "{node}" can only update pod status for pods with spec.nodeName set to itself')
    if labels_of(a.obj) != labels_of(a.old):
        raise a.refusal(f'node "{node}" cannot update labels through pod status')
    new, old = a.obj.get("status") or {}, a.old.get("status") or {}
    if (new.get("resourceClaimStatuses") or []) != (old.get("resourceClaimStatuses") or []):
        raise a.refusal(f'node "{node}" cannot update resource claim statues')
    if new.get("extendedResourceClaimStatus") != old.get("extendedResourceClaimStatus"):
        raise a.refusal(f'node "{node}" cannot update extended resource claim status')


def _claim(a: AdmissionAttributes, node: str) -> None:
    if a.subresource != "status":
        raise a.refusal("may only update PVC status")
    if a.operation != "UPDATE" or a.obj is None or a.old is None:
        raise a.refusal(f'unexpected operation "{a.operation}"')
    if _without_sizes(a.obj) != _without_sizes(a.old):
        text = f'node "{node}" is not allowed to update fields other than status.quantity and status.conditions'
        raise a.refusal(text)


def _without_sizes(claim: Object) -> Object:
    sizes = ("capacity", "conditions", "allocatedResources", "allocatedResourceStatuses")
    status = {k: v for k, v in (claim.get("status") or {}).items() if k not in sizes}
    meta = {k: v for k, v in claim["metadata"].items() if k not in ("resourceVersion", "managedFields")}
    return {**claim, "metadata": meta, "status": status}


def _lease(a: AdmissionAttributes, node: str) -> None:
    if a.namespace != "kube-node-lease":
        raise a.refusal('can only access leases in the "kube-node-lease" system namespace')
    if a.name != node:
        raise a.refusal("can only access node lease with the same name as the requesting node")


def _csi_node(a: AdmissionAttributes, node: str) -> None:
    if a.name != node:
        raise a.refusal("can only access CSINode with the same name as the requesting node")


def _slice(a: AdmissionAttributes, node: str) -> None:
    checked = {"CREATE": a.obj, "DELETE": a.old}.get(a.operation)
    if checked is not None and (checked.get("spec") or {}).get("nodeName") != node:
        word = a.operation.lower()
        raise a.refusal(f"can only {word} ResourceSlice with the same NodeName as the requesting node")


def _request(a: AdmissionAttributes, node: str) -> None:
    """A kubelet asks for certificates in its own name."""
    spec = (a.obj or {}).get("spec") or {}
    if a.operation != "CREATE" or a.subresource or spec.get("signerName") not in _SIGNERS:
        return
    import base64  # late: few servers have kubelets that ask

    from cryptography import x509

    try:
        asked = x509.load_pem_x509_csr(base64.b64decode(spec.get("request") or ""))
    except ValueError as error:
        raise a.refusal(f"unable to parse csr: {error}") from None
    names = [str(n.value) for n in asked.subject.get_attributes_for_oid(x509.NameOID.COMMON_NAME)]
    if names != [PREFIX + node]:
        raise a.refusal(f"can only create a node CSR with CN={PREFIX}{node}")


def _forbidden_labels(new: Mapping[str, str], old: Mapping[str, str]) -> list[str]:
    """Changed labels by which a node could draw pods to itself."""
    changed = sorted(key for key in {**new, **old} if new.get(key) != old.get(key))
    return [key for key in changed if _is_restricted(key) or (_is_kubernetes(key) and not _is_kubelet(key))]


def _within(domain: str, parents: tuple[str, ...]) -> bool:
    return any(domain == parent or domain.endswith("." + parent) for parent in parents)


def _domain(label: str) -> str:
    domain, slash, _ = label.partition("/")
    return domain if slash else ""


def _is_restricted(label: str) -> bool:
    return _within(_domain(label), (_RESTRICTED,))


def _is_kubernetes(label: str) -> bool:
    return _within(_domain(label), ("kubernetes.io", "k8s.io"))


def _is_kubelet(label: str) -> bool:
    return label in _KUBELET_LABELS or _within(_domain(label), _KUBELET_DOMAINS)


_VOLUMES = {
    "configMap": "configmaps (via configmap volumes)",
    "secret": "secrets (via secret volumes)",
    "csi": "csidrivers (via CSI volumes)",
    "glusterfs": "endpoints (via glusterFS volumes)",
    "persistentVolumeClaim": "persistentvolumeclaims",
    "ephemeral": "persistentvolumeclaims (via ephemeral volumes)",
    "azureFile": "secrets (via azureFile volumes)",
}
_SOURCES = {
    "configMap": "configmaps (via projected volumes)",
    "secret": "secrets (via projected volumes)",
    "serviceAccountToken": "serviceaccounts (via projected volumes)",
    "clusterTrustBundle": "clustertrustbundles",
    "podCertificate": "podcertificates",
}


def _references(spec: Mapping[str, Any]) -> str:
    """What of the API a pod names; empty: nothing."""
    if spec.get("serviceAccountName"):
        return "serviceaccounts"
    for kind, plural in (("secret", "secrets"), ("configMap", "configmaps")):
        if kind == "secret" and spec.get("imagePullSecrets"):
            return plural
        for field in ("initContainers", "containers", "ephemeralContainers"):
            for container in spec.get(field) or ():
                named = any((e.get("valueFrom") or {}).get(f"{kind}KeyRef") for e in container.get("env") or ())
                if named or any(e.get(f"{kind}Ref") for e in container.get("envFrom") or ()):
                    return plural
    if spec.get("resourceClaims"):
        return "resourceclaims"
    for volume in spec.get("volumes") or ():
        for kind, words in _VOLUMES.items():
            if volume.get(kind) is not None:
                return words
        for source in (volume.get("projected") or {}).get("sources") or ():
            for kind, words in _SOURCES.items():
                if source.get(kind) is not None:
                    return words
    return ""
