"""The transcript of ``glebe demo`` in README.md: made by running it, shortened, and compared without its numbers.

``python tools/docs_demo.py`` runs the demo and writes the transcript; with ``--check`` it compares instead. It takes
about a minute, so ``make docs-check`` leaves it out and a test does it.
"""

from __future__ import annotations

import argparse
import difflib
import re
import subprocess
import sys
from pathlib import Path

README = Path(__file__).resolve().parent.parent / "README.md"
BEGIN, END = "<!-- made by tools/docs_demo.py -->\n```console\n$ glebe demo\n", "```\n"
CUT = "[...]"
_NODES_SHOWN = 2


def run(deadline: float = 170.0) -> tuple[int, str]:
    """The demo's exit code and what it printed."""
    command = [sys.executable, "-m", "glebe.cli.main", "demo", "--deadline", str(deadline)]
    done = subprocess.run(command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, check=False)
    return done.returncode, done.stdout


def shorten(output: str) -> list[str]:
    """What the README shows of it: ``[...]`` stands for nodes like those above, and for the events."""
    lines: list[str] = []
    nodes, in_events = 0, False
    for line in output.strip("\n").splitlines():
        is_node = re.match(r"h100-\d\d ", line) is not None
        nodes += is_node
        in_events = line == "events:" or (in_events and line.startswith(" "))
        if (is_node and nodes > _NODES_SHOWN) or (in_events and line.startswith(" ")):
            line = CUT
        if line != CUT or lines[-1] != CUT:
            lines.append(line.rstrip())
    return lines


def skeleton(lines: list[str]) -> list[str]:
    """The lines without what differs from run to run: numbers, times, widths of columns, and who holds what.

    Rows of a table may change places (jobs of one second stand by name), so each paragraph is sorted.
    """
    out: list[str] = []
    paragraph: list[str] = []
    for line in [*lines, ""]:
        text = re.sub(r"https://\S+", "URL", line)
        text = re.sub(r"held by [\w, -]+ until about [\d: -]+UTC", "held by WHOM until WHEN", text)
        text = re.sub(r"\d{4}-\d\d-\d\dT[\d:]+Z", "TIME", text)
        text = re.sub(r"\bin (\d+[dhms])+(\.\.(\d+[dhms])+)?|\bnow\b(?= +needs)", "SOON", text)
        text = re.sub(r"\b(\d+[dhms])+\b", "N", text)
        text = re.sub(r"(?<![\w-])\d+(\.\d+)?%?", "N", text)
        paragraph.append(re.sub(r" +", " ", text).strip())
        if not line:
            out += [*sorted(paragraph[:-1]), ""]
            paragraph = []
    return out


def documented(readme: str) -> list[str]:
    """The transcript that the README shows."""
    return readme.partition(BEGIN)[2].partition(END)[0].splitlines()


def difference(readme: str, output: str) -> str:
    """How the README's transcript differs from a real one; empty when it is true."""
    return "\n".join(
        difflib.unified_diff(
            skeleton(documented(readme)), skeleton(shorten(output)), "README.md", "glebe demo", lineterm="", n=1
        )
    )


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--check", action="store_true", help="write nothing; exit 1 when the transcript is not true")
    check = parser.parse_args().check
    code, output = run()
    if code:
        print(output, file=sys.stderr)
        return code
    readme = README.read_text(encoding="utf-8")
    if check:
        found = difference(readme, output)
        print(found)
        return 1 if found else 0
    before, begin, rest = readme.partition(BEGIN)
    text = "\n".join(shorten(output)) + "\n"
    README.write_text(before + begin + text + END + rest.partition(END)[2], encoding="utf-8")
    return 0


if __name__ == "__main__":
    sys.exit(main())
