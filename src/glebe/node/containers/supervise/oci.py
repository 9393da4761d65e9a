"""Containers with a root of their own, by an OCI runtime (crun, runc): created and started, then children of ours."""

from __future__ import annotations

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any


class Oci:
    def __init__(self, run: dict[str, Any], mark: dict[str, str]) -> None:
        raise NotImplementedError
