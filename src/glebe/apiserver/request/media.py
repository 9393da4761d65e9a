"""Content negotiation: what a client sends and what it is ready to take."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import lru_cache
from typing import Any

import orjson
import yaml

from glebe.apiserver.request import yamlbody
from glebe.kube.errors import ApiError, bad_request, unsupported_media_type

JSON = "application/json"
YAML = "application/yaml"
PROTOBUF = "application/vnd.kubernetes.protobuf"
BODY_TYPES = [JSON, YAML, PROTOBUF]
PATCH_TYPES = {
    "application/json-patch+json": "json",
    "application/merge-patch+json": "merge",
    "application/strategic-merge-patch+json": "strategic",
    "application/apply-patch+yaml": "apply",
}


@dataclass(frozen=True, slots=True)
class Wanted:
    """The form of a response: ``media`` is JSON, YAML or PROTOBUF; ``shape`` is "", Table or PartialObjectMetadata."""

    media: str = JSON
    shape: str = ""
    version: str = "v1"
    pretty: bool = False


_PLAIN = Wanted()
_PROTOBUF = Wanted(PROTOBUF)


@lru_cache(maxsize=256)
def negotiate(accept: str, protobuf: bool = True) -> Wanted:
    """The first acceptable form that we can give; ``protobuf``: the resource has that form, too (tables have not).

    :raises ApiError: 406 when there is none.
    """
    if not accept or accept == JSON:
        return _PLAIN
    for clause in _by_quality(accept):
        media, params = _parse(clause)
        shape = params.get("as", "")
        if media == PROTOBUF and protobuf and shape != "Table":
            if not shape:
                return _PROTOBUF
            if _is_known(shape, params):
                return Wanted(PROTOBUF, shape, params.get("v", "v1"))
        if media in (JSON, "*/*", "application/*") or (media in (YAML, "text/yaml", "application/x-yaml")):
            out = YAML if "yaml" in media else JSON
            if not shape:
                return Wanted(out)
            if _is_known(shape, params):
                return Wanted(out, shape, params.get("v", "v1"))
    raise not_acceptable(protobuf)


def not_acceptable(protobuf: bool = True) -> ApiError:
    """406: none of the forms that are asked for can be given."""
    known = f"{JSON}, {YAML}, {PROTOBUF}" if protobuf else f"{JSON}, {YAML}"
    return ApiError(406, "NotAcceptable", f"only the following media types are accepted: {known}")


def negotiate_for(accept: str, api_version: str, kind: str) -> Wanted:
    """:func:`negotiate` for one kind: custom ones have no protobuf form."""
    wanted = negotiate(accept)
    if wanted.media == PROTOBUF:
        from glebe.apiserver.protobuf.encode import message_name  # late: many servers are never asked for protobuf

        if message_name(api_version, kind) is None:
            return negotiate(accept, False)
    return wanted


def _is_known(shape: str, params: dict[str, str]) -> bool:
    """May a response have this shape?"""
    group, version = params.get("g", "meta.k8s.io"), params.get("v", "v1")
    known = shape in ("Table", "PartialObjectMetadata", "PartialObjectMetadataList")
    return known and group == "meta.k8s.io" and version in ("v1", "v1beta1")


def _by_quality(accept: str) -> list[str]:
    clauses = [c.strip() for c in accept.split(",") if c.strip()]
    return sorted(clauses, key=lambda c: -_quality(c))


def _quality(clause: str) -> float:
    text = _parse(clause)[1].get("q", "1")
    try:
        return float(text)
    except ValueError:
        return 0.0


def _parse(clause: str) -> tuple[str, dict[str, str]]:
    media, *rest = (part.strip() for part in clause.split(";"))
    params = dict(part.split("=", 1) for part in rest if "=" in part)
    return media.lower(), params


def content_type(header: str) -> str:
    return header.split(";", 1)[0].strip().lower()


def load_yaml(body: bytes) -> Any:
    """Decode one YAML document.

    :raises ApiError: 400.
    """
    try:
        return yamlbody.load(body)
    except yaml.YAMLError as error:
        raise bad_request(f"error converting YAML to JSON: {' '.join(str(error).split())}") from None


def load_json(body: bytes) -> Any:
    try:
        return orjson.loads(body)
    except orjson.JSONDecodeError as error:
        raise bad_request(f"couldn't get version/kind; json parse error: {error}") from None


def load_protobuf(body: bytes, warn: Callable[[str], None] | None = None) -> dict[str, Any]:
    """Decode a built-in kind's protobuf.

    :raises ApiError: 400 for malformed bytes, 415 for kinds without a protobuf form (custom ones).
    """
    from glebe.apiserver.protobuf import decode as protobuf  # late: many servers never see such a body
    from glebe.apiserver.protobuf.wire import MalformedError

    try:
        value, unknown = protobuf.decode(body)
    except protobuf.UnknownKindError as error:
        refused = unsupported_media_type(PROTOBUF, [JSON, YAML])
        raise ApiError(refused.code, refused.reason, f"{refused.message}: {error}") from None
    except MalformedError as error:
        raise bad_request(f"the body cannot be decoded as protobuf: {error}") from None
    if warn is not None:
        for line in unknown:
            warn(line)
    return value


def decode(body: bytes, header: str, warn: Callable[[str], None] | None = None) -> dict[str, Any]:
    """The object in a request's body; ``warn`` hears of parts that cannot be understood.

    :raises ApiError: 400 for what cannot be read, 415 for what we do not speak.
    """
    media = content_type(header)
    if media == PROTOBUF:
        return load_protobuf(body, warn)
    if media in ("", JSON, "text/json"):
        value = load_json(body) if body[:1] != b"" else None
    elif media in (YAML, "text/yaml", "application/x-yaml"):
        value = load_yaml(body)
    else:
        raise unsupported_media_type(media, BODY_TYPES)
    if not isinstance(value, dict):
        what = "the body is empty" if value is None else f"expected an object, got {type(value).__name__}"
        raise bad_request(f"couldn't get version/kind; {what}")
    return value


def encode(value: Any, wanted: Wanted) -> tuple[bytes, str]:
    """(body, content type)."""
    if wanted.media == YAML:
        return dump_yaml(value), YAML
    if wanted.media == PROTOBUF:
        from glebe.apiserver.protobuf import encode as protobuf  # late: many servers are never asked for protobuf

        if protobuf.message_name(value.get("apiVersion", ""), value.get("kind", "")) is not None:
            return protobuf.encode(value), PROTOBUF
    if wanted.pretty:
        return orjson.dumps(value, option=orjson.OPT_INDENT_2) + b"\n", JSON
    return orjson.dumps(value), JSON


def dump_yaml(value: Any) -> bytes:
    return yamlbody.dump(value)
