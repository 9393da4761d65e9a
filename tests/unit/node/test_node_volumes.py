"""Volumes as directories: what may be written where."""

from __future__ import annotations

import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest

from glebe.node.values.environment import ConfigError
from glebe.node.volumes import materialise as volumes
from glebe.node.volumes.materialise import PathMap


def pod(volume: dict[str, Any]) -> dict[str, Any]:
    return {"metadata": {"name": "p", "namespace": "n", "uid": "u"}, "spec": {"volumes": [{"name": "v", **volume}]}}


def secret(**data: str) -> Mapping[str, str]:
    return data


def test_a_link_in_a_volume_is_replaced_and_not_followed(tmp_path: Path) -> None:
    outside = tmp_path / "outside"
    outside.write_text("precious")
    subject = pod({"secret": {"secretName": "s", "defaultMode": 0o400}})
    volumes.materialise(subject, tmp_path / "vols", lambda *_: secret(token="1"))
    token = tmp_path / "vols" / "v" / "token"
    token.unlink()
    token.symlink_to(outside)
    volumes.materialise(subject, tmp_path / "vols", lambda *_: secret(token="2"))
    assert (outside.read_text(), token.read_text(), token.is_symlink()) == ("precious", "2", False)
    assert token.stat().st_mode & 0o777 == 0o400


@pytest.mark.skipif(os.geteuid() == 0, reason="root may write what is read only")
def test_read_only_files_are_renewed_for_the_next_container(tmp_path: Path) -> None:
    subject = pod({"secret": {"secretName": "s", "defaultMode": 0o400}})
    for value in ("1", "2"):
        volumes.materialise(subject, tmp_path, lambda *_: secret(token=value))  # noqa: B023
    assert (tmp_path / "v" / "token").read_text() == "2"


@pytest.mark.parametrize("path", ["../x", "a/../../x", "/etc/x"])
def test_items_stay_in_their_volume(tmp_path: Path, path: str) -> None:
    subject = pod({"configMap": {"name": "c", "items": [{"key": "k", "path": path}]}})
    with pytest.raises(ConfigError, match="leaves its volume"):
        volumes.materialise(subject, tmp_path / "vols", lambda *_: {"k": "v"})


@pytest.mark.parametrize("path", ["..", "a/../..", "/etc"])
def test_a_sub_path_stays_in_its_volume(tmp_path: Path, path: str) -> None:
    container = {"volumeMounts": [{"name": "v", "mountPath": "/data", "subPath": path}]}
    with pytest.raises(ConfigError, match="leaves its volume"):
        PathMap(container, {"v": tmp_path})
