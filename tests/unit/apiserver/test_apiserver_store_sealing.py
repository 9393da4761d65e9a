"""Encryption at rest: nothing readable on disk, keys rotate, a missing key is named with the object."""

from __future__ import annotations

import base64
from pathlib import Path
from typing import Any

import pytest
import yaml
from etcd_peer import shared_etcd

from glebe.apiserver.store import Key, SQLiteStore, Store, StoreUnavailable
from glebe.apiserver.store.etcd import EtcdOptions, EtcdStore
from glebe.apiserver.store.etcd.gateway import Gateway, b64
from glebe.apiserver.store.sealing import EncryptionConfigError, Sealing, load_encryption_config
from glebe.apiserver.store.sealing.config import parse_encryption_config

pytestmark = pytest.mark.realtime

SECRET = Key("secrets", "root", "ns", "db")
PLAIN = Key("configmaps", "root", "ns", "db")
BACKENDS = pytest.mark.parametrize("backend", ["sqlite", "etcd"])


def made(revision: int) -> bytes:
    return b'{"metadata":{"resourceVersion":"%d"},"data":"the very secret word"}' % revision


def keys(*names: str) -> list[dict[str, str]]:
    return [{"name": name, "secret": base64.b64encode(name.encode().ljust(32, b".")).decode()} for name in names]


def sealing(*providers: dict[str, Any], resources: tuple[str, ...] = ("secrets",)) -> Sealing:
    rule = {"resources": list(resources), "providers": list(providers)}
    return parse_encryption_config(
        {"apiVersion": "apiserver.config.k8s.io/v1", "kind": "EncryptionConfiguration", "resources": [rule]}
    )


def store_of(backend: str, tmp_path: Path, how: Sealing | None) -> Store:
    if backend == "sqlite":
        return SQLiteStore(tmp_path / "db", sealing=how)
    options = EtcdOptions((shared_etcd().url,), prefix=f"/{tmp_path.name}/")
    return EtcdStore(options, sealing=how)


async def on_disk(backend: str, tmp_path: Path) -> bytes:
    if backend == "sqlite":
        return b"".join(p.read_bytes() for p in sorted(tmp_path.glob("db*")))  # noqa: ASYNC240
    gateway = Gateway(EtcdOptions((shared_etcd().url,)))
    await gateway.open()
    try:
        prefix = f"/{tmp_path.name}".encode()
        answer = await gateway.read("/kv/range", {"key": b64(prefix + b"/"), "range_end": b64(prefix + b"0")})
        return b"\n".join(base64.b64decode(kv.get("value", "")) for kv in answer["kvs"])
    finally:
        await gateway.close()


@BACKENDS
@pytest.mark.parametrize("kind", ["aesgcm", "aescbc"])
async def test_only_chosen_resources_are_sealed_and_everything_reads_back(
    backend: str, tmp_path: Path, kind: str
) -> None:
    how = sealing({kind: {"keys": keys("k1")}}, {"identity": {}})
    store = store_of(backend, tmp_path, how)
    await store.start()
    first = await store.put(SECRET, made, 0)
    second = await store.put(SECRET, made, first.revision)
    await store.put(Key("secrets", "root", "ns", "gone"), made, 0)
    await store.delete(Key("secrets", "root", "ns", "gone"), made, None)
    data = await on_disk(backend, tmp_path)
    assert b"very secret word" not in data
    assert f"k8s:enc:{kind}:v1:k1:".encode() in data
    await store.put(PLAIN, made, 0)
    await store.close()
    assert b"very secret word" in await on_disk(backend, tmp_path)
    again = store_of(backend, tmp_path, how)
    await again.start()
    entry = again.get(SECRET)
    await again.close()
    assert entry is not None
    assert (entry.revision, entry.value) == (second.revision, made(second.revision))


@BACKENDS
async def test_a_wrong_or_missing_key_names_object_and_key(backend: str, tmp_path: Path) -> None:
    store = store_of(backend, tmp_path, sealing({"aesgcm": {"keys": keys("k1")}}))
    await store.start()
    await store.put(SECRET, made, 0)
    await store.close()
    other = keys("k2")
    other[0]["name"] = "k1"
    for how in (None, sealing({"aesgcm": {"keys": keys("k2")}}), sealing({"aesgcm": {"keys": other}})):
        with pytest.raises(StoreUnavailable, match=r"secrets ns/db in cluster root is encrypted with aesgcm key 'k1'"):
            await store_of(backend, tmp_path, how).start()


@BACKENDS
async def test_unencrypted_objects_need_identity(backend: str, tmp_path: Path) -> None:
    store = store_of(backend, tmp_path, None)
    await store.start()
    await store.put(SECRET, made, 0)
    await store.close()
    with pytest.raises(StoreUnavailable, match="secrets ns/db in cluster root is stored unencrypted"):
        await store_of(backend, tmp_path, sealing({"aesgcm": {"keys": keys("k1")}})).start()


@BACKENDS
async def test_keys_rotate_by_restarts(backend: str, tmp_path: Path) -> None:
    configurations = [
        None,
        sealing({"aesgcm": {"keys": keys("k1")}}, {"identity": {}}),
        sealing({"aesgcm": {"keys": keys("k2", "k1")}}),
        sealing({"aesgcm": {"keys": keys("k2")}}),
        sealing({"identity": {}}, {"aesgcm": {"keys": keys("k2")}}),
        None,
    ]
    marks = [b"very secret word", b"aesgcm:v1:k1:", b"aesgcm:v1:k2:", b"aesgcm:v1:k2:", *[b"very secret word"] * 2]
    for position, (how, mark) in enumerate(zip(configurations, marks, strict=True)):
        store = store_of(backend, tmp_path, how)
        await store.start()
        if position == 0:
            await store.put(SECRET, made, 0)
        if isinstance(store, EtcdStore) and (task := store._tasks.get("rewriting")) is not None:
            await task
        entry = store.get(SECRET)
        await store.close()
        assert entry is not None
        assert entry.value == made(entry.revision)
        data = await on_disk(backend, tmp_path)
        assert mark in data
        assert all(m not in data for m in set(marks) - {mark})


async def test_a_value_moved_to_another_object_does_not_open() -> None:
    how = sealing({"aesgcm": {"keys": keys("k1")}})
    sealed = how.seal(SECRET, b"x")
    with pytest.raises(StoreUnavailable, match="ns/other"):
        how.open(SECRET._replace(name="other"), sealed)
    with pytest.raises(StoreUnavailable):
        how.open(SECRET, sealed[:-1] + bytes((sealed[-1] ^ 1,)))


def test_the_first_rule_that_fits_counts() -> None:
    rules = [
        {"resources": ["jobs.batch"], "providers": [{"identity": {}}]},
        {"resources": ["*.batch", "*."], "providers": [{"aesgcm": {"keys": keys("k1")}}]},
    ]
    how = parse_encryption_config(
        {"apiVersion": "apiserver.config.k8s.io/v1", "kind": "EncryptionConfiguration", "resources": rules}
    )
    sealed = [
        how.seal(SECRET._replace(resource=r), b"x") != b"x"
        for r in ("jobs.batch", "cronjobs.batch", "pods", "deployments.apps")
    ]
    assert sealed == [False, True, True, False]


def _file(**changes: Any) -> dict[str, Any]:
    rule: dict[str, Any] = {"resources": ["secrets"], "providers": [{"aesgcm": {"keys": keys("k1")}}], **changes}
    return {"apiVersion": "apiserver.config.k8s.io/v1", "kind": "EncryptionConfiguration", "resources": [rule]}


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ({"kind": "Pod"}, "kind: must be EncryptionConfiguration"),
        ({"kind": "EncryptionConfiguration"}, "apiVersion: must be apiserver.config.k8s.io/v1"),
        (_file(resources=[]), r"resources\[0\].resources: must be a list"),
        (_file(providers=[{"kms": {}}]), r"resources\[0\].providers\[0\].kms: not supported"),
        (_file(providers=[{"aesgcm": {"keys": [{"name": "a", "secret": "!"}]}}]), r"keys\[0\].secret: must be base64"),
        (
            _file(providers=[{"aesgcm": {"keys": [{"name": "a", "secret": "c2hvcnQ="}]}}]),
            r"secret: must be 16, 24 or 32 bytes, is 5",
        ),
        (_file(providers=[{"aesgcm": {"keys": keys("a", "a")}}]), r"keys\[1\].name: 'a' is there twice"),
    ],
)
def test_a_bad_file_says_where_it_is_bad(tmp_path: Path, content: dict[str, Any], message: str) -> None:
    path = tmp_path / "encryption.yaml"
    path.write_text(yaml.safe_dump(content))
    with pytest.raises(EncryptionConfigError, match=message):
        load_encryption_config(path)
    with pytest.raises(EncryptionConfigError, match="cannot be read"):
        load_encryption_config(tmp_path / "nothing")
