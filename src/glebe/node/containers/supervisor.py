"""The program ``python -I -S supervisor.py RUN_DIR``, the parent of one container: see :mod:`.supervise.main`."""

from __future__ import annotations

import os
import sys

if __name__ == "__main__":
    sys.path.insert(0, os.path.abspath(os.path.join(os.path.dirname(__file__), *[os.pardir] * 3)))

from glebe.node.containers.supervise.main import MARK, main
from glebe.node.containers.supervise.system import start_time, write_json

__all__ = ["MARK", "start_time", "write_json"]

if __name__ == "__main__":
    sys.exit(main(sys.argv[1]))
