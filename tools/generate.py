"""Writes everything that is generated from the code; ``--check`` fails where a file differs from what it should be.

A generator is a function that returns the files it owns (path from the repository's root -> text). Add new ones to
``GENERATORS``.
"""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Callable
from pathlib import Path

import docs_cli
import docs_kinds
import docs_words
from glebe.kube.crdgen import custom_resource_definition, to_yaml
from glebe.queueing.gatekeeping import kindpolicy, policy, roles

ROOT = Path(__file__).resolve().parent.parent


def crds() -> dict[str, str]:
    """One CRD per file below ``src/glebe/crds``, named GROUP_PLURAL.yaml; and all in one, to be read at each start."""
    files: dict[str, str] = {}
    made = {}
    for kind in docs_kinds.kinds():
        name = f"src/glebe/crds/{kind.resource.group}_{kind.resource.plural}.yaml"
        made[name] = custom_resource_definition(kind)
        files[name] = to_yaml([made[name]])
    everything = [crd for _, crd in sorted(made.items())]
    files["src/glebe/crds/all.json"] = json.dumps(everything, ensure_ascii=False, separators=(",", ":")) + "\n"
    return files


def manifests() -> dict[str, str]:
    """What the production path installs, to read and to apply by hand."""
    files: dict[str, str] = {}
    for version in policy.VERSIONS:
        name = f"src/glebe/queueing/manifests/admission-{version}.yaml"
        files[name] = to_yaml(policy.objects(version))
    files["src/glebe/queueing/manifests/kinds.yaml"] = to_yaml(kindpolicy.objects())
    files["src/glebe/queueing/manifests/roles.yaml"] = to_yaml(roles.objects())
    return files


GENERATORS: tuple[Callable[[], dict[str, str]], ...] = (
    crds,
    manifests,
    docs_cli.pages,
    docs_kinds.pages,
    docs_words.labels_page,
    docs_words.reasons_page,
    docs_words.models_page,
    docs_words.index_page,
)


def generate() -> dict[str, str]:
    """Every generated file."""
    files: dict[str, str] = {}
    for generator in GENERATORS:
        files.update(generator())
    return files


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--check", action="store_true", help="write nothing; exit 1 when a file is not up to date")
    check = parser.parse_args().check
    files = generate()
    stale = [path for path, text in files.items() if not _is(ROOT / path, text)]
    for path in stale:
        if check:
            print(f"{path} is not up to date: run tools/generate.py", file=sys.stderr)
        else:
            target = ROOT / path
            target.parent.mkdir(parents=True, exist_ok=True)
            target.write_text(files[path], encoding="utf-8")
            print(f"wrote {path}")
    return 1 if check and stale else 0


def _is(path: Path, text: str) -> bool:
    return path.exists() and path.read_text(encoding="utf-8") == text


if __name__ == "__main__":
    sys.exit(main())
