"""The files of volumes that are made from the API: configMap, secret, downwardAPI, projected. Pure.

What they are made from is read before: ``read`` gives objects, ``token`` gives tokens.
"""

from __future__ import annotations

import base64
import binascii
from collections.abc import Callable, Mapping
from pathlib import PurePosixPath
from typing import Any, Final, NamedTuple, TypeAlias

from glebe.kube.objects import Object, labels_of
from glebe.kube.resources import CONFIGMAPS, SECRETS, Resource
from glebe.kube.selectors import LabelSelector
from glebe.node.contracts import VolumeError
from glebe.node.values.downward import ConfigError, field, resource

ROOT_CA: Final = "kube-root-ca.crt"
BUNDLES: Final = Resource("certificates.k8s.io", "v1beta1", "clustertrustbundles", "ClusterTrustBundle", False)
KINDS: Final = ("configMap", "secret", "downwardAPI", "projected")
"""Sources whose content comes from the API."""
FILE_MODE: Final = 0o644
_TOKEN_MODE: Final = 0o600


class File(NamedTuple):
    """Content and permission bits; ``owner`` is the only user of a token, where containers agree on one."""

    content: bytes
    mode: int
    owner: int | None = None


Files: TypeAlias = dict[str, File]


class Inputs(NamedTuple):
    """What content is made from.

    ``read(kind, name)`` is the ConfigMap ("configmap") or Secret ("secret") of the pod's namespace, ``token`` the text
    of a ``serviceAccountToken`` source ("" where the server issues none), ``bundles`` all ClusterTrustBundles.
    """

    read: Callable[[str, str], Object | None]
    token: Callable[[dict[str, Any]], str]
    bundles: Callable[[], list[Object]] = list
    allocatable: Mapping[str, str] | None = None


def references(volume: dict[str, Any]) -> list[tuple[Resource, str]]:
    """The ConfigMaps and Secrets that the volume is made from."""
    found = []
    for part in (volume, *((volume.get("projected") or {}).get("sources") or ())):
        if "configMap" in part:
            found.append((CONFIGMAPS, part["configMap"].get("name", "")))
        if "secret" in part:
            found.append((SECRETS, part["secret"].get("secretName") or part["secret"].get("name") or ""))
    return found


def token_sources(volume: dict[str, Any]) -> list[dict[str, Any]]:
    """The ``serviceAccountToken`` sources of a projected volume."""
    parts = (volume.get("projected") or {}).get("sources") or ()
    return [part["serviceAccountToken"] for part in parts if "serviceAccountToken" in part]


def wants_bundles(volume: dict[str, Any]) -> bool:
    """Whether ClusterTrustBundles are projected."""
    return any("clusterTrustBundle" in part for part in (volume.get("projected") or {}).get("sources") or ())


def files_of(pod: Object, volume: dict[str, Any], inputs: Inputs) -> Files:
    """Path below the volume -> file.

    :raises VolumeError: something it is made from is missing, or a path would leave the volume.
    """
    try:
        files = _files(pod, volume, inputs)
    except ConfigError as error:
        raise VolumeError(str(error)) from None
    for path in files:
        parts = PurePosixPath(path).parts
        if not parts or path.startswith("/") or ".." in parts or parts[0].startswith(".."):
            raise VolumeError(f'path "{path}" leaves its volume')
    return files


def _files(pod: Object, volume: dict[str, Any], inputs: Inputs) -> Files:
    if "configMap" in volume:
        return _config_map(volume["configMap"], None, inputs)
    if "secret" in volume:
        return _secret(volume["secret"], volume["secret"].get("secretName", ""), None, inputs)
    if "downwardAPI" in volume:
        return _downward(pod, volume["downwardAPI"], None, inputs)
    return _projected(pod, volume["projected"], inputs)


def _projected(pod: Object, options: dict[str, Any], inputs: Inputs) -> Files:
    out: Files = {}
    mode = options.get("defaultMode")
    parts = options.get("sources") or ()
    tokens = {id(p): inputs.token(p["serviceAccountToken"]) for p in parts if "serviceAccountToken" in p}
    # A server without certificates and accounts publishes no CA: the volume that every pod gets is then nearly empty.
    bare = bool(tokens) and not any(tokens.values())
    for part in parts:
        if "configMap" in part:
            keys = part["configMap"]
            optional = {"optional": True} if bare and keys.get("name") == ROOT_CA else {}
            out.update(_config_map({**keys, **optional}, mode, inputs))
        if "secret" in part:
            out.update(_secret(part["secret"], part["secret"].get("name", ""), mode, inputs))
        if "downwardAPI" in part:
            out.update(_downward(pod, part["downwardAPI"], mode, inputs))
        if tokens.get(id(part)):
            path = part["serviceAccountToken"].get("path", "token")
            out[path] = _token_file(pod, tokens[id(part)], mode)
        if "clusterTrustBundle" in part:
            bundle = part["clusterTrustBundle"]
            out[bundle["path"]] = File(trust(bundle, inputs.bundles()), _mode(mode))
        if "podCertificate" in part:
            raise VolumeError("podCertificate sources are not supported by this node")
    return out


def _token_file(pod: Object, text: str, mode: int | None) -> File:
    """Others than the containers' group or only user need not read it."""
    spec = pod["spec"]
    user = common_user(spec)
    group = (spec.get("securityContext") or {}).get("fsGroup")
    return File(text.encode(), _mode(mode) if user is None and group is None else _TOKEN_MODE, user)


def common_user(spec: Mapping[str, Any]) -> int | None:
    """The user as whom all containers run, if it is one."""
    default = (spec.get("securityContext") or {}).get("runAsUser")
    users = {
        (container.get("securityContext") or {}).get("runAsUser", default)
        for container in [*(spec.get("initContainers") or []), *(spec.get("containers") or [])]
    }
    return users.pop() if len(users) == 1 else None


def _mode(*modes: int | None) -> int:
    return next((int(mode) for mode in modes if mode is not None), FILE_MODE)


def _config_map(options: dict[str, Any], mode: int | None, inputs: Inputs) -> Files:
    name = options.get("name", "")
    obj = inputs.read("configmap", name)
    if obj is None:
        return _absent("configmap", name, options)
    data = {key: text.encode("utf-8", "surrogateescape") for key, text in (obj.get("data") or {}).items()}
    data.update(decoded(obj.get("binaryData") or {}))
    return _keys(data, options, mode, "configmap references non-existent config key: {}")


def _secret(options: dict[str, Any], name: str, mode: int | None, inputs: Inputs) -> Files:
    obj = inputs.read("secret", name)
    if obj is None:
        return _absent("secret", name, options)
    return _keys(decoded(obj.get("data") or {}), options, mode, "references non-existent secret key: {}")


def decoded(values: Mapping[str, str | None]) -> dict[str, bytes]:
    """Base64 values as bytes; those that are none are left out."""
    out = {}
    for key, value in values.items():
        try:
            out[key] = base64.b64decode(value or "")
        except binascii.Error:
            continue
    return out


def _absent(kind: str, name: str, options: dict[str, Any]) -> Files:
    if options.get("optional"):
        return {}
    raise VolumeError(f'{kind} "{name}" not found')


def _keys(data: Mapping[str, bytes], options: dict[str, Any], mode: int | None, missing: str) -> Files:
    default = _mode(options.get("defaultMode"), mode)
    items = options.get("items")
    if not items:
        return {key: File(content, default) for key, content in data.items()}
    out: Files = {}
    for item in items:
        if item["key"] in data:
            out[item["path"]] = File(data[item["key"]], _mode(item.get("mode"), default))
        elif not options.get("optional"):
            raise VolumeError(missing.format(item["key"]))
    return out


def _downward(pod: Object, options: dict[str, Any], mode: int | None, inputs: Inputs) -> Files:
    default = _mode(options.get("defaultMode"), mode)
    out: Files = {}
    for item in options.get("items") or ():
        if "fieldRef" in item:
            text = field(pod, item["fieldRef"].get("fieldPath", ""))
        else:
            text = resource(pod, {}, item.get("resourceFieldRef") or {}, inputs.allocatable)
        out[item["path"]] = File(text.encode("utf-8", "surrogateescape"), _mode(item.get("mode"), default))
    return out


def trust(options: dict[str, Any], bundles: list[Object]) -> bytes:
    """The certificates of the chosen bundles, each once, in a stable order.

    :raises VolumeError: none is chosen, and that is not optional.
    """
    if options.get("name"):
        chosen = [b for b in bundles if b["metadata"]["name"] == options["name"]]
        missing = f'clustertrustbundle "{options["name"]}" not found'
    else:
        selector = LabelSelector.from_object(options.get("labelSelector"))
        signer = options.get("signerName", "")
        chosen = [b for b in bundles if (b.get("spec") or {}).get("signerName", "") == signer]
        chosen = [b for b in chosen if selector.matches(labels_of(b))]
        missing = "combination of signerName and labelSelector matched zero ClusterTrustBundles"
    if not chosen and not options.get("optional"):
        raise VolumeError(missing)
    end = "-----END CERTIFICATE-----"
    blocks = {
        block.strip() + "\n" + end + "\n"
        for bundle in chosen
        for block in ((bundle.get("spec") or {}).get("trustBundle") or "").split(end)
        if block.strip()
    }
    return "".join(sorted(blocks)).encode()
