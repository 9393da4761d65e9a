"""Where a platform keeps its files: one data directory, and what stands where in it.

``DIR/kubeconfig`` is for users; ``DIR/glebe.db`` holds every object; ``DIR/ledger.db`` the allocation ledger;
``DIR/pki`` keys and certificates; ``DIR/nodes`` the process node's containers; ``DIR/lock`` is held by the one
process that runs on the directory.
"""

from __future__ import annotations

import os
from dataclasses import dataclass
from pathlib import Path


def default_data_dir(environ: dict[str, str] | None = None) -> Path:
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


def default_kubeconfig(environ: dict[str, str] | None = None) -> Path | None:
    """The kubeconfig of a command without ``--kubeconfig``: ``$KUBECONFIG``, the default data directory's, ``~/.kube``.

    ``None`` when there is none: the caller says how to get one.
    """
    env = os.environ if environ is None else environ
    if env.get("KUBECONFIG"):
        return Path(env["KUBECONFIG"].split(os.pathsep)[0])
    for path in (DataDir(default_data_dir(env)).kubeconfig, Path.home() / ".kube" / "config"):
        if path.is_file():
            return path
    return None
