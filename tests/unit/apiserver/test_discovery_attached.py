"""Discovery of two registries in one process, of which one serves attached resources, too."""

from __future__ import annotations

from glebe.apiserver.discovery.browsing import document
from glebe.apiserver.types.registry import ResourceInfo, TypeRegistry

INFO = ResourceInfo("things.example", "v1", "things", "thing", "Thing", "ThingList", True, ("get",), is_custom=True)


def test_what_is_attached_here_is_not_there() -> None:
    plain, more = TypeRegistry(), TypeRegistry()
    more.attach([INFO])
    for registry, said in ((plain, False), (more, True), (plain, False)):
        found = document(registry, "root", "/apis", "")
        assert found is not None
        assert (b"things.example" in found[0]) is said
