"""Generate ``data/release-MINOR.json.z``: what an older Kubernetes release's API has otherwise than the main one.

``python tools/gen_release.py 1.35 1.34`` (``--check`` only compares). Sources are those of ``gen_types.py``: the older
release's schemas are in the same package (``kubernetes-validate``). A file holds the rows of ``resources.json``, and of
each package of definitions what differs: a kind's schema, or null where the older release has no such kind.
"""

from __future__ import annotations

import json
import sys
import zlib
from typing import Any

import gen_types

_MAIN = gen_types.RELEASE


def _content(release: str) -> tuple[list[dict[str, Any]], dict[str, Any]]:
    """(resources, file name without its end -> content) of a release."""
    gen_types.RELEASE = release
    gen_types.definitions.cache_clear()
    rows = gen_types.resources()
    out: dict[str, Any] = {}
    for name, data in gen_types.schema_files(rows).items():
        text = zlib.decompress(data) if name.endswith(".z") else data
        out[name.removesuffix(".z").removesuffix(".json")] = json.loads(text)
    return rows, out


def difference(minor: str) -> bytes:
    """The file of the release ``minor`` (``1.35``)."""
    _, main = _content(_MAIN)
    rows, older = _content(f"v{minor}.0")
    files: dict[str, Any] = {}
    for name in sorted({*main, *older}):
        new, old = main.get(name, {}), older.get(name, {})
        changed = {kind: old.get(kind) for kind in sorted({*new, *old}) if new.get(kind) != old.get(kind)}
        if changed:
            files[name] = changed
    whole = {"resources": rows, "files": files}
    return zlib.compress(json.dumps(whole, separators=(",", ":"), ensure_ascii=False).encode(), 9)


def main() -> int:
    minors = [a for a in sys.argv[1:] if not a.startswith("-")]
    stale = []
    for minor in minors:
        path = gen_types.DATA / f"release-{minor}.json.z"
        made = difference(minor)
        if path.is_file() and zlib.decompress(path.read_bytes()) == zlib.decompress(made):
            continue
        stale.append(path.name)
        if "--check" not in sys.argv:
            path.write_bytes(made)
    if stale and "--check" in sys.argv:
        print(f"stale, run python tools/gen_release.py: {', '.join(stale)}")
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
