"""All benchmarks, and one table of what is promised against what was measured.

``--quick`` takes a smaller large fleet and fewer rounds. The API server is compared with upstream's where
``KUBEBUILDER_ASSETS`` names a folder with kube-apiserver and etcd. Each benchmark can be run alone, with more options.
"""

from __future__ import annotations

import argparse
import subprocess
import sys
from pathlib import Path

HERE = Path(__file__).parent


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--quick", action="store_true", help="250 nodes and 1,000 jobs instead of 1,000 and 5,000")
    options = parser.parse_args()
    size = ["--nodes", "250", "--jobs", "1000", "--starts", "2", "--idle", "5"] if options.quick else []
    quick = ["--quick"] if options.quick else []
    runs = [
        ["scheduling.py"],
        ["gangs.py"],
        ["preempting.py"],
        ["core.py"],
        ["kai.py", *(["--nodes", "120"] if options.quick else [])],
        ["kueue.py", *(["--queues", "3", "--scale", "0.2"] if options.quick else [])],
        ["binder.py"],
        ["apiserver.py", *quick],
        ["embedded.py", *size],
    ]
    lines: list[str] = []
    failed = 0
    for name, *arguments in runs:
        command = [sys.executable, str(HERE / name), *arguments]
        process = subprocess.Popen(command, stdout=subprocess.PIPE, text=True)
        assert process.stdout is not None
        for line in process.stdout:
            print(line, end="", flush=True)
            lines.append(line.rstrip())
        failed |= process.wait()
    promised = [line for line in lines if line.endswith(("holds", "MISSED")) or "limit" in line]
    print("\npromised and measured")
    print("\n".join(promised))
    return failed


if __name__ == "__main__":
    sys.exit(main())
