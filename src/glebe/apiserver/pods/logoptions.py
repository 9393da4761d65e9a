"""``PodLogOptions``: what a request for a log asks, and what is wrong with it, by upstream's rules."""

from __future__ import annotations

from typing import Any

from glebe.apiserver.request.call import Call
from glebe.kube import errors
from glebe.kube.clock import parse_time

_TRUE = ("true", "1")
_LEAST = {"tailLines": 0, "sinceSeconds": 1, "limitBytes": 1}
_STREAMS = {"": "", "All": "", "Stdout": "stdout", "Stderr": "stderr"}


def read(call: Call) -> dict[str, Any]:
    """The arguments of :meth:`.operations.PodLogs.logs`.

    :raises ApiError: 400 for what cannot be read, 422 for what is not allowed.
    """
    param = call.request.param
    causes: list[errors.Cause] = []
    numbers = {name: _number(call, name, causes) for name in _LEAST}
    since = param("sinceTime")
    if since and param("sinceSeconds"):
        causes.append(_forbidden("", "at most one of `sinceTime` or `sinceSeconds` may be specified"))
    if param("stream") not in _STREAMS:
        supported = 'supported values: "All", "Stderr", "Stdout"'
        text = f'Unsupported value: "{param("stream")}": {supported}'
        causes.append(errors.Cause("FieldValueNotSupported", text, "stream"))
    elif _STREAMS[param("stream")] and numbers["tailLines"] is not None:
        causes.append(_forbidden("", "`tailLines` and specific `stream` are mutually exclusive for now"))
    if causes:
        raise errors.invalid("", "PodLogOptions", call.route.name, causes)
    out: dict[str, Any] = {
        "follow": param("follow") in _TRUE,
        "tail_lines": numbers["tailLines"],
        "since_seconds": numbers["sinceSeconds"],
        "previous": param("previous") in _TRUE,
        "timestamps": param("timestamps") in _TRUE,
        "limit_bytes": numbers["limitBytes"],
    }
    if since:
        try:
            out["since_time"] = parse_time(since)
        except ValueError:
            raise errors.bad_request(f'parsing time "{since}": it is not RFC 3339') from None
    if stream := _STREAMS[param("stream")]:
        out["stream"] = stream
    return out


def _number(call: Call, name: str, causes: list[errors.Cause]) -> int | None:
    text = call.request.param(name)
    if not text:
        return None
    digits = text.removeprefix("-")
    if not (digits.isascii() and digits.isdigit()):
        raise errors.bad_request(f'strconv.ParseInt: parsing "{text}": invalid syntax')
    if int(text) < _LEAST[name]:
        least = "must be greater than or equal to 0" if _LEAST[name] == 0 else "must be greater than 0"
        causes.append(errors.Cause("FieldValueInvalid", f"Invalid value: {text}: {least}", name))
        return None
    return int(text)


def _forbidden(field: str, why: str) -> errors.Cause:
    return errors.Cause("FieldValueForbidden", f"Forbidden: {why}", field)
