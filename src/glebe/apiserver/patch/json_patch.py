"""JSON patch (RFC 6902)."""

from __future__ import annotations

import copy
from typing import Any

import orjson

from glebe.kube.errors import ApiError, bad_request

#: As upstream: a patch may not hold more operations than this.
MAX_OPERATIONS = 10_000
#: As upstream: all copies of one patch together may add so many bytes (a list copied into itself doubles each time).
MAX_COPIED = 3 * 1024 * 1024
_MISSING = object()


def apply(document: Any, operations: Any) -> Any:
    """``document`` after all operations; ``document`` itself may be changed even when an operation fails.

    :raises ApiError: 400 for what is no JSON patch, 422 for an operation that cannot be done, 413 for too many.
    """
    if not isinstance(operations, list) or not all(isinstance(o, dict) for o in operations):
        raise bad_request("error decoding patch: a JSON patch is an array of operations")
    if len(operations) > MAX_OPERATIONS:
        message = f"The allowed maximum operations in a JSON patch is {MAX_OPERATIONS}, got {len(operations)}"
        raise ApiError(413, "RequestEntityTooLarge", message)
    copied = 0
    for operation in operations:
        if operation.get("op") == "copy":
            copied += _size(document, operation.get("from"))
            if copied > MAX_COPIED:
                why = f"the accumulated size increase of copy is {copied}, exceeding the limit {MAX_COPIED}"
                raise ApiError(413, "RequestEntityTooLarge", f"Unable to complete the copy, {why}")
        document = _one(document, operation)
    return document


def _size(document: Any, path: Any) -> int:
    value = _get(document, path) if isinstance(path, str) else None
    return 0 if value is _MISSING else len(orjson.dumps(value))


def _fail(message: str) -> ApiError:
    return ApiError(422, "Invalid", f"the server rejected our request due to an error in our request: {message}")


def _one(document: Any, operation: dict[str, Any]) -> Any:
    op, path = operation.get("op"), operation.get("path")
    if not isinstance(path, str):
        raise bad_request(f"error decoding patch: operation {op!r} has no path")
    if op in ("add", "replace", "test") and "value" not in operation:
        if op != "test":
            raise bad_request(f'error decoding patch: operation "{op}" at "{path}" has no value')
        operation = {**operation, "value": None}
    if op == "add":
        return _add(document, path, copy.deepcopy(operation["value"]))
    if op == "remove":
        return _remove(document, path)
    if op == "replace":
        return _replace(document, path, copy.deepcopy(operation["value"]))
    if op in ("move", "copy"):
        source = operation.get("from")
        if not isinstance(source, str):
            raise bad_request(f'error decoding patch: operation "{op}" has no from')
        value = _get(document, source)
        if value is _MISSING:
            raise _fail(f"{op} operation does not apply: doc is missing from path: {source}: missing value")
        if op == "move":
            if path.startswith(source + "/"):
                raise _fail(f"move operation does not apply: {path} is inside {source}")
            document = _remove(document, source)
        return _add(document, path, copy.deepcopy(value))
    if op == "test":
        value = _get(document, path)
        if value is _MISSING:
            value = None
        if not _equal(value, operation["value"]):
            raise _fail(f"testing value {path} failed")
        return document
    raise _fail(f"unexpected kind of operation: {op}")


def _equal(a: Any, b: Any) -> bool:
    """JSON equality: true is not 1, 1 is 1.0."""
    if isinstance(a, bool) or isinstance(b, bool):
        return a is b
    if isinstance(a, dict) and isinstance(b, dict):
        return a.keys() == b.keys() and all(_equal(v, b[k]) for k, v in a.items())
    if isinstance(a, list) and isinstance(b, list):
        return len(a) == len(b) and all(_equal(x, y) for x, y in zip(a, b, strict=True))
    return bool(a == b)


def _tokens(path: str) -> list[str]:
    if not path:
        return []
    if not path.startswith("/"):
        raise _fail(f'path "{path}" does not start with "/"')
    return [t.replace("~1", "/").replace("~0", "~") for t in path[1:].split("/")]


def _child(node: Any, token: str) -> Any:
    if isinstance(node, dict):
        return node.get(token, _MISSING)
    if isinstance(node, list):
        index = _index(token, len(node) - 1)
        return _MISSING if index is None else node[index]
    return _MISSING


def _index(token: str, last: int) -> int | None:
    """An array index from 0 to ``last``; None when it is none."""
    if not token.isascii() or not token.isdigit() or (token[0] == "0" and token != "0"):
        return None
    index = int(token)
    return index if index <= last else None


def _get(document: Any, path: str) -> Any:
    node = document
    for token in _tokens(path):
        node = _child(node, token)
        if node is _MISSING:
            break
    return node


def _parent(document: Any, path: str, op: str) -> tuple[Any, str]:
    *tokens, last = _tokens(path)
    node = document
    for token in tokens:
        node = _child(node, token)
        if not isinstance(node, dict | list):
            raise _fail(f"{op} operation does not apply: doc is missing path: {path}: missing value")
    return node, last


def _add(document: Any, path: str, value: Any) -> Any:
    if not path:
        return value
    parent, token = _parent(document, path, "add")
    if isinstance(parent, dict):
        parent[token] = value
    elif token == "-":
        parent.append(value)
    else:
        index = _index(token, len(parent))
        if index is None:
            raise _fail(f"add operation does not apply: doc is missing path: {path}: invalid index referenced")
        parent.insert(index, value)
    return document


def _remove(document: Any, path: str) -> Any:
    if not path:
        raise _fail("remove operation does not apply: the whole document cannot be removed")
    parent, token = _parent(document, path, "remove")
    if isinstance(parent, dict):
        if token not in parent:
            raise _fail(f"remove operation does not apply: doc is missing path: {path}: missing value")
        del parent[token]
        return document
    index = _index(token, len(parent) - 1)
    if index is None:
        raise _fail(f"remove operation does not apply: doc is missing path: {path}: invalid index referenced")
    del parent[index]
    return document


def _replace(document: Any, path: str, value: Any) -> Any:
    if not path:
        return value
    parent, token = _parent(document, path, "replace")
    if isinstance(parent, dict):
        parent[token] = value  # upstream's library creates what is not there, against the standard
    elif _child(parent, token) is _MISSING:
        raise _fail(f"replace operation does not apply: doc is missing key: {path}: missing value")
    else:
        parent[int(token)] = value
    return document
