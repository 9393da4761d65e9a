"""A list's bytes are the same, in whatever pieces they go out."""

from __future__ import annotations

import orjson
from hypothesis import given
from hypothesis import strategies as st

from glebe.apiserver.request.listbody import ListBody
from glebe.apiserver.store import Entry, Key, MemoryStore

HEAD = orjson.dumps({"kind": "List", "metadata": {"resourceVersion": "7"}})


@given(st.lists(st.dictionaries(st.text(max_size=5), st.integers(0, 9)), max_size=30), st.integers(1, 200))
def test_pieces_make_the_whole(items: list[dict[str, int]], least: int) -> None:
    values = [orjson.dumps(item) for item in items]
    entries = [Entry(1, value) for value in values]
    for body in (ListBody(HEAD, values), ListBody(HEAD, entries)):
        pieces = list(body.pieces(lambda: least))
        assert all(len(piece) >= least for piece in pieces[:-1])
        assert b"".join(pieces) == body.whole()
        assert len(body.whole()) == body.size
        assert orjson.loads(body.whole()) == {**orjson.loads(HEAD), "items": items}


async def test_a_kept_list_is_of_its_moment() -> None:
    store = MemoryStore()
    await store.start()

    async def put(name: str, space: str = "a") -> None:
        await store.put(Key("things", "root", space, name), lambda _: b"{}", None)

    for i in range(150):
        await put(f"n{i:03}")
    first = store.range("things", "root", "a")
    assert store.range("things", "root", "a").entries is first.entries
    await put("n150")
    await put("other", "b")
    assert len(first.entries) == 150
    assert len(store.range("things", "root", "a").entries) == 151
    assert len(store.range("things", "root").entries) == 152
    assert len(store.range("things", "root", "a").entries) == 151
    await store.delete(Key("things", "root", "a", "n000"), lambda _: b"{}", None)
    assert len(store.range("things", "root", "a").entries) == 150
