"""The conversion webhook of a custom kind: ``ConversionReview`` of apiextensions.k8s.io, v1 and v1beta1.

Called with every object that is stored in another version than the one that is asked for, and with every object that is
written in another version than the stored one; objects of one list go in one review. A webhook that this process itself
is (``ApiServer.converters``) is called without a review.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import orjson

from glebe.apiserver.dialing import DialError, decode_bundle
from glebe.kube import errors
from glebe.kube.objects import Object

if TYPE_CHECKING:
    from glebe.apiserver.custom.sharing import CustomKind
    from glebe.apiserver.server import ApiServer

#: As upstream: nobody waits longer for a conversion.
TIMEOUT = 30.0
_SPOKEN = ("v1", "v1beta1")
_KEPT = ("labels", "annotations")


async def convert(
    server: ApiServer, cluster: str, kind: CustomKind, objects: list[Object], api_version: str
) -> list[Object]:
    """``objects`` in ``api_version``, made by the kind's webhook.

    :raises ApiError: 500, the webhook does not answer or answers what cannot be used.
    """
    if not objects:
        return []
    webhook = kind.conversion.get("webhook") or {}
    first = objects[0]
    subject = f"{first.get('apiVersion', '')}, Kind={first.get('kind', '')}"
    service = (webhook.get("clientConfig") or {}).get("service") or {}
    if (own := server.converters.get((service.get("namespace", ""), service.get("name", "")))) is not None:
        try:
            return own(objects, api_version)
        except ValueError as error:
            raise errors.internal(f"conversion webhook for {subject} failed: {error}") from None
    spoken = next((v for v in webhook.get("conversionReviewVersions") or () if v in _SPOKEN), "")
    if not spoken:
        raise errors.internal("no supported conversion review versions")
    uid = server.env.new_uid()
    review = {
        "kind": "ConversionReview",
        "apiVersion": f"apiextensions.k8s.io/{spoken}",
        "request": {"uid": uid, "desiredAPIVersion": api_version, "objects": objects},
    }
    try:
        answer = await _post(server, cluster, webhook.get("clientConfig") or {}, orjson.dumps(review))
        converted = _read(answer, spoken, uid)
    except (DialError, TimeoutError, _Refused) as error:
        why = "context deadline exceeded" if isinstance(error, TimeoutError) else str(error)
        raise errors.internal(f"conversion webhook for {subject} failed: {why}") from None
    if len(converted) != len(objects):
        raise errors.internal(
            f"conversion webhook for {subject} returned {len(converted)} objects, expected {len(objects)}"
        )
    return [
        _checked(subject, index, original, made, api_version)
        for index, (original, made) in enumerate(zip(objects, converted, strict=True))
    ]


async def _post(server: ApiServer, cluster: str, config: dict[str, Any], body: bytes) -> Any:
    """Ask the webhook.

    :raises DialError: it cannot be reached. :raises TimeoutError: it does not answer in time.
    """
    target = await server.dialer.of_client_config(cluster, config)
    context = server.dialer.context(decode_bundle(config.get("caBundle")), name=target.server_name)
    headers = {"content-type": "application/json", "accept": "application/json"}
    answer = await server.dialer.request(
        target, "POST", body, headers=headers, context=context, timeout=TIMEOUT, query="?timeout=30s"
    )
    if answer.status >= 300:
        raise _Refused(f"the server responded with the status code {answer.status}")
    try:
        return orjson.loads(answer.body)
    except orjson.JSONDecodeError as error:
        raise _Refused(f"couldn't get version/kind; json parse error: {error}") from None


class _Refused(Exception):
    """The answer is no conversion."""


def _read(answer: Any, spoken: str, uid: str) -> list[Any]:
    """The converted objects of an answer.

    :raises _Refused: there are none.
    """
    version = answer.get("apiVersion") if isinstance(answer, dict) else None
    want = f"apiextensions.k8s.io/{spoken}"
    if version != want or answer.get("kind") != "ConversionReview":
        got = f"{version or ''}, Kind={answer.get('kind', '') if isinstance(answer, dict) else ''}"
        raise _Refused(f"expected webhook response of {want}, Kind=ConversionReview, got {got}")
    response = answer.get("response")
    if not isinstance(response, dict):
        raise _Refused("no response provided")
    if spoken == "v1" and response.get("uid") != uid:
        raise _Refused(f'expected response.uid="{uid}", got "{response.get("uid") or ""}"')
    result = response.get("result") or {}
    if result.get("status") != "Success":
        message = result.get("message")
        raise _Refused(message or f"response.result.status was '{result.get('status') or ''}', not 'Success'")
    converted = response.get("convertedObjects") or []
    return list(converted) if isinstance(converted, list) else []


def _checked(subject: str, index: int, original: Object, made: Any, api_version: str) -> Object:
    """The converted object with the original's metadata: a webhook may change labels and annotations only.

    :raises ApiError: 500, it is not what was asked for.
    """
    start = f"conversion webhook for {subject} returned invalid converted object at index {index}:"
    if not isinstance(made, dict):
        raise errors.internal(f"{start} expected an object")
    if made.get("apiVersion") != api_version:
        got = made.get("apiVersion") or ""
        raise errors.internal(f"{start} invalid groupVersion (expected {api_version}, received {got})")
    if made.get("kind") != original.get("kind"):
        got = made.get("kind") or ""
        raise errors.internal(f"{start} invalid kind (expected {original.get('kind')}, received {got})")
    meta, before = made.get("metadata"), original["metadata"]
    if not isinstance(meta, dict):
        raise errors.internal(
            f"conversion webhook for {subject} returned invalid metadata in object at index {index}: "
            "missing metadata in converted object"
        )
    for field, shown in (("name", "name"), ("namespace", "namespace"), ("uid", "UID")):
        if meta.get(field, "") != before.get(field, ""):
            raise errors.internal(
                f"{start} must have the same {shown}: {before.get(field, '')} != {meta.get(field, '')}"
            )
    restored = {name: value for name, value in before.items() if name not in _KEPT}
    for field in _KEPT:
        values = meta.get(field)
        if values is None:
            continue
        if not isinstance(values, dict) or any(not isinstance(v, str) for v in values.values()):
            raise errors.internal(
                f"conversion webhook for {subject} returned invalid metadata in object at index {index}: "
                f"invalid metadata.{field} in converted object"
            )
        if values:
            restored[field] = values
    return {**made, "metadata": restored}
