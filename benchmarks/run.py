"""The performance suite: every benchmark in a process of its own, one after the other, so that none disturbs another.

``python benchmarks/run.py [NAME...]`` runs all, or those named. Exit code 1 when one of them fails.
"""

from __future__ import annotations

import platform
import subprocess
import sys
from pathlib import Path

HERE = Path(__file__).resolve().parent


def main(names: list[str]) -> int:
    scripts = {path.stem: path for path in sorted(HERE.glob("*.py")) if path.name != "run.py"}
    unknown = [name for name in names if name not in scripts]
    if unknown:
        print(f"no such benchmark: {', '.join(unknown)}; there are: {', '.join(scripts)}", file=sys.stderr)
        return 2
    print(f"Python {platform.python_version()} on {platform.machine()}, {_cpu()}")
    failed = []
    for name in names or scripts:
        print(f"\n== {name}", flush=True)
        if subprocess.run([sys.executable, str(scripts[name])], check=False).returncode:
            failed.append(name)
    if failed:
        print(f"\nfailed: {', '.join(failed)}", file=sys.stderr)
    return 1 if failed else 0


def _cpu() -> str:
    """The processor's name and how many there are."""
    import os

    try:
        lines = Path("/proc/cpuinfo").read_text(encoding="utf-8").splitlines()
    except OSError:
        lines = []
    model = next((line.partition(":")[2].strip() for line in lines if line.startswith("model name")), "processor")
    return f"{os.cpu_count()} x {model}"


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
