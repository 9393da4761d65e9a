"""Which built-in API versions are served: upstream's ``--runtime-config``.

Keys are ``api/all``, ``api/ga``, ``api/beta``, ``api/alpha`` and ``GROUP/VERSION``; a more specific key wins. Unlike
upstream, a stable version cannot be turned off: the platform's own controllers live on them.

Like the release (:mod:`.release`) this is chosen once for a process, before anything has been read.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from types import MappingProxyType
from typing import Any

from glebe.apiserver.types import release

_STAGE = re.compile(r"v\d+(?:(alpha|beta)\d+)?")
_STAGES = {"api/ga": "", "api/beta": "beta", "api/alpha": "alpha"}
_WORDS = {"": True, "true": True, "1": True, "t": True, "false": False, "0": False, "f": False}

_chosen: Mapping[str, bool] = MappingProxyType({})
_read = False


def parse(text: str) -> dict[str, bool]:
    """``KEY[=true|false],...`` as a mapping.

    :raises ValueError: there is no such version, a value is neither true nor false, or a stable version is turned off.
    """
    config: dict[str, bool] = {}
    for word in text.split(","):
        key, _, value = word.strip().partition("=")
        key = key.strip()
        if not key:
            continue
        key = key.removeprefix("api/") if key == "api/v1" else key
        if (on := _WORDS.get(value.strip().lower())) is None:
            raise ValueError(f"{key}={value}: neither true nor false")
        config[key] = on
    _check(config)
    return config


def _check(config: Mapping[str, bool]) -> None:
    known = {_name(row): bool(row.get("optional")) for row in release.resource_rows()}
    for key, on in config.items():
        if key != "api/all" and key not in _STAGES and key not in known:
            raise ValueError(f"there is no API version {key}")
        if not on and (key in ("api/all", "api/ga") or known.get(key) is False):
            raise ValueError(f"{key} cannot be turned off: stable versions are always served")


def use(config: Mapping[str, bool]) -> None:
    """Serve what ``config`` (see :func:`parse`) asks for.

    :raises ValueError: another choice is in use already.
    """
    global _chosen
    if dict(config) == dict(_chosen):
        return
    if _read:
        raise ValueError("this process has chosen its API versions already")
    _chosen = MappingProxyType(dict(config))


def served_rows() -> list[dict[str, Any]]:
    """The rows of :func:`.release.resource_rows` that are served."""
    global _read
    _read = True
    return [row for row in release.resource_rows() if is_served(row, _chosen)]


def is_served(row: Mapping[str, Any], config: Mapping[str, bool]) -> bool:
    """Is a resource served under ``config``? What upstream serves by default is."""
    if not row.get("optional"):
        return True
    match = _STAGE.fullmatch(row["version"])
    stage = (match[1] or "") if match is not None else ""
    by_stage = next(key for key, value in _STAGES.items() if value == stage)
    for key in (_name(row), by_stage, "api/all"):
        if key in config:
            return config[key]
    return False


def _name(row: Mapping[str, Any]) -> str:
    return f"{row['group']}/{row['version']}" if row["group"] else str(row["version"])
