"""The program ``python -I -S probe.py DIRECTORY``: see :mod:`.supervise.probe`."""

from __future__ import annotations

import os
import sys

if __name__ == "__main__":
    sys.path.insert(0, os.path.abspath(os.path.join(os.path.dirname(__file__), *[os.pardir] * 3)))

from glebe.node.containers.supervise.probe import probe
from glebe.node.containers.supervise.system import dumps

if __name__ == "__main__":
    print(dumps(probe(sys.argv[1])))
