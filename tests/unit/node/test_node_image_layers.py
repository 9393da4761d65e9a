"""Unpacking layers: what they say, and never outside of the root."""

from __future__ import annotations

import io
import os
import tarfile
import tempfile
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from image_world import digest, layer, member, tree

from glebe.node.containers.images import extract
from glebe.node.containers.images.errors import BrokenImage


def unpack(root: Path, *layers: bytes, bound: extract.Bound | None = None) -> dict[str, str]:
    root.mkdir(exist_ok=True)
    for data in layers:
        extract.unpack(io.BytesIO(data), "", digest(data), root, bound)
    return tree(root)


def test_layers_over_each_other(tmp_path: Path) -> None:
    first = layer(
        ("a", None), ("a/x", "1"), ("a/y", "1"), ("b", None), ("b/z", "1"), ("c", "1"), ("d", None), ("d/e", "1")
    )
    second = layer(
        *[("a/x", "2"), ("a/.wh.y", ""), ("b/.wh..wh..opq", ""), ("b/new", "2"), (".wh.c", ""), ("d", "now a file")],
        *[member("l", tarfile.SYMTYPE, "a/x"), member("h", tarfile.LNKTYPE, "a/x")],
    )
    assert unpack(tmp_path / "r", first, second) == {
        "a": "/",
        "a/x": "2",
        "b": "/",
        "b/new": "2",
        "d": "now a file",
        "l": "-> a/x",
        "h": "2",
    }


def test_links_lead_only_within(tmp_path: Path) -> None:
    outside = tmp_path / "outside"
    outside.mkdir()
    (outside / "f").write_text("safe")
    up = "../" * 30
    made = unpack(
        tmp_path / "r",
        layer(
            member("abs", tarfile.SYMTYPE, str(outside)),
            member("rel", tarfile.SYMTYPE, f"{up}{outside}"),
            member("here", tarfile.SYMTYPE, "real/dir"),
        ),
        layer(("abs/f", "1"), ("rel/g", "2"), ("here/i", "3"), (f"{up}top", "4"), ("/root", "5")),
    )
    assert (outside / "f").read_text() == "safe"
    assert sorted(os.listdir(outside)) == ["f"]
    inner = str(outside)[1:]
    assert made[f"{inner}/f"] == "1"
    assert made[f"{inner}/g"] == "2"
    assert (made["real/dir/i"], made["top"], made["root"]) == ("3", "4", "5")


def test_a_hard_link_to_a_link_does_not_dress_what_it_leads_to(tmp_path: Path) -> None:
    secret = tmp_path / "secret"
    secret.write_text("x")
    secret.chmod(0o600)
    hard = member("b", tarfile.LNKTYPE, "a", mode=0o777)
    unpack(tmp_path / "r", layer(member("a", tarfile.SYMTYPE, str(secret)), hard))
    assert secret.stat().st_mode & 0o777 == 0o600
    link = member("c", tarfile.LNKTYPE, str(secret))
    with pytest.raises(BrokenImage, match="missing"):
        unpack(tmp_path / "r", layer(link))


def test_device_nodes_are_left_out(tmp_path: Path) -> None:
    device = member("dev/mem", tarfile.CHRTYPE)
    device.devmajor, device.devminor = 1, 1
    assert unpack(tmp_path / "r", layer(("dev", None), device, member("pipe", tarfile.FIFOTYPE))) == {"dev": "/"}


def test_modes_are_kept(tmp_path: Path) -> None:
    unpack(tmp_path / "r", layer(member("su", mode=0o4755), member("t", tarfile.DIRTYPE, mode=0o1777)))
    assert (tmp_path / "r" / "su").stat().st_mode & 0o7777 == 0o4755
    assert (tmp_path / "r" / "t").stat().st_mode & 0o7777 == 0o1777


@pytest.mark.parametrize("compression", ["gzip", "zstd"])
def test_compressed_layers(tmp_path: Path, compression: str) -> None:
    from image_world import _compress

    data = layer(("f", "x" * 100_000))
    tmp_path.joinpath("r").mkdir()
    extract.unpack(io.BytesIO(_compress(data, compression)), compression, digest(data), tmp_path / "r")
    assert (tmp_path / "r" / "f").stat().st_size == 100_000


def test_damage_is_said(tmp_path: Path) -> None:
    data = layer(("f", "x" * 2000))
    with pytest.raises(BrokenImage, match="digest"):
        extract.unpack(io.BytesIO(data), "", digest(b"other"), tmp_path)
    for broken, compression in ((data[:1500], ""), (b"garbage" * 200, ""), (b"garbage", "gzip"), (b"garbage", "zstd")):
        with pytest.raises(BrokenImage):
            extract.unpack(io.BytesIO(broken), compression, "", tmp_path)


def test_bombs_are_refused(tmp_path: Path) -> None:
    with pytest.raises(BrokenImage, match="more than this node takes"):
        unpack(tmp_path / "a", layer(("f", "x" * 2000)), bound=extract.Bound(size=1000))
    with pytest.raises(BrokenImage, match="more than this node takes"):
        unpack(tmp_path / "b", layer(*[(f"f{i}", "") for i in range(20)]), bound=extract.Bound(entries=10))
    loop = [member("a", tarfile.SYMTYPE, "b"), member("b", tarfile.SYMTYPE, "a")]
    with pytest.raises(BrokenImage, match="links"):
        unpack(tmp_path / "c", layer(*loop, ("a/f", "")))


_words = ["a", "b", "..", ".", "", ".wh.a", ".wh..wh..opq", "/"]
_name = st.lists(st.sampled_from(_words), min_size=1, max_size=4).map("/".join)
_entry = st.tuples(
    _name, st.sampled_from([tarfile.REGTYPE, tarfile.DIRTYPE, tarfile.SYMTYPE, tarfile.LNKTYPE]), _name | st.just("OUT")
)


@settings(max_examples=150, deadline=None)
@given(st.lists(st.lists(_entry, max_size=8), min_size=1, max_size=3))
def test_nothing_lands_outside_whatever_a_layer_holds(layers: list[list[tuple[str, bytes, str]]]) -> None:
    with tempfile.TemporaryDirectory() as temporary:
        base = Path(temporary)
        outside = base / "outside"
        outside.mkdir()
        (outside / "f").write_text("safe")
        (outside / "f").chmod(0o600)
        before = outside.stat().st_mtime_ns
        for entries in layers:
            made = [member(n, k, str(outside) if link == "OUT" else link, mode=0o777) for n, k, link in entries]
            try:
                unpack(base / "root", layer(*made))
            except BrokenImage:
                continue
        assert os.listdir(outside) == ["f"]
        assert outside.stat().st_mtime_ns == before
        assert ((outside / "f").read_text(), (outside / "f").stat().st_mode & 0o777) == ("safe", 0o600)
        assert (outside / "f").stat().st_nlink == 1
        assert sorted(os.listdir(base)) == ["outside", "root"]
