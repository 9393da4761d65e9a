"""Where a platform keeps its files: one data directory, and what stands where in it.

``DIR/kubeconfig`` is for users; ``DIR/glebe.db`` holds every object; ``DIR/ledger.db`` the allocation ledger;
``DIR/pki`` keys and certificates; ``DIR/nodes`` the process node's containers; ``DIR/lock`` is held by the one
process that runs on the directory.
"""

from __future__ import annotations

import os
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path


def default_data_dir(environ: Mapping[str, str] | None = None) -> Path:
    """``$GLEBE_DATA_DIR`` or ``~/.glebe``."""
    env = os.environ if environ is None else environ
    return Path(env["GLEBE_DATA_DIR"]) if env.get("GLEBE_DATA_DIR") else Path.home() / ".glebe"


@dataclass(frozen=True, slots=True)
class DataDir:
    """The layout of one data directory."""

    root: Path

    @property
    def lock(self) -> Path:
        return self.root / "lock"

    @property
    def kubeconfig(self) -> Path:
        return self.root / "kubeconfig"

    @property
    def database(self) -> Path:
        return self.root / "glebe.db"

    @property
    def ledger(self) -> Path:
        return self.root / "ledger.db"

    @property
    def pki(self) -> Path:
        return self.root / "pki"

    @property
    def nodes(self) -> Path:
        return self.root / "nodes"

    @property
    def fleet(self) -> Path:
        """A copy of the fleet file that was used last, so that ``up`` without ``--fleet`` continues with it."""
        return self.root / "fleet.yaml"


def default_kubeconfig(environ: Mapping[str, str] | None = None) -> Path | None:
    """The kubeconfig of the default data directory, unless ``$KUBECONFIG`` is set or there is none.

    ``None`` leaves the choice to kubectl's own rules (:func:`glebe.kube.kubeconfig.default_paths`).
    """
    env = os.environ if environ is None else environ
    path = DataDir(default_data_dir(env)).kubeconfig
    return None if env.get("KUBECONFIG") or not path.is_file() else path
