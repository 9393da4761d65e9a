"""Random histories against a plain dictionary: all backends must agree with it at every step."""

from __future__ import annotations

import asyncio
import shutil
import tempfile
from pathlib import Path

import hypothesis.strategies as st
from etcd_peer import shared_etcd
from hypothesis import settings
from hypothesis.stateful import Bundle, RuleBasedStateMachine, invariant, multiple, rule

from glebe.apiserver.store import Key, MemoryStore, Mismatch, SQLiteStore, Store
from glebe.apiserver.store.base import WHITEOUT
from glebe.apiserver.store.etcd import EtcdOptions, EtcdStore

_NAMES = st.sampled_from(["a", "b", "c", "d"])
_NAMESPACES = st.sampled_from(["n1", "n2"])
# A zero byte at the beginning is the store's own mark; objects are JSON.
_VALUES = st.binary(max_size=4).filter(lambda value: value[:1] != WHITEOUT)
_CLUSTERS = st.sampled_from(["root", "tenant"])


class Model(RuleBasedStateMachine):
    """The store beside ``dict``; remembers every past state, so that old snapshots and watches can be checked."""

    moments = Bundle("moments")

    def __init__(self) -> None:
        super().__init__()
        self.loop = asyncio.new_event_loop()
        self.store = self.make()
        self.loop.run_until_complete(self.store.start())
        self.now: dict[Key, tuple[int, bytes]] = {}
        self.past: dict[int, dict[Key, tuple[int, bytes]]] = {0: {}}
        self.log: list[tuple[int, str, Key]] = []
        self.dropped = {"root": 0, "tenant": 0}

    def make(self) -> Store:
        return MemoryStore()

    def teardown(self) -> None:
        self.loop.run_until_complete(self.store.close())
        self.loop.run_until_complete(self.loop.shutdown_default_executor())
        self.loop.close()

    def _remember(self, kind: str, key: Key) -> None:
        self.log.append((self.store.revision, kind, key))
        self.past[self.store.revision] = dict(self.now)

    @rule(cluster=_CLUSTERS, namespace=_NAMESPACES, name=_NAMES, stale=st.booleans(), value=_VALUES)
    def put(self, cluster: str, namespace: str, name: str, stale: bool, value: bytes) -> None:
        key = Key("pods", cluster, namespace, name)
        held = self.now.get(key)
        expected = (held[0] if held else 0) + (99 if stale else 0)
        try:
            entry = self.loop.run_until_complete(self.store.put(key, lambda _: value, expected))
        except Mismatch:
            assert stale
            return
        assert not stale
        self.now[key] = (entry.revision, value)
        self._remember("MODIFIED" if held else "ADDED", key)

    @rule(cluster=_CLUSTERS, namespace=_NAMESPACES, name=_NAMES)
    def delete(self, cluster: str, namespace: str, name: str) -> None:
        key = Key("pods", cluster, namespace, name)
        try:
            self.loop.run_until_complete(self.store.delete(key, lambda _: b"", None))
        except Mismatch:
            assert key not in self.now
            return
        del self.now[key]
        self._remember("DELETED", key)

    @rule(cluster=_CLUSTERS)
    def drop(self, cluster: str) -> None:
        self.loop.run_until_complete(self.store.drop(cluster))
        for key in [k for k in self.now if k.cluster == cluster]:
            del self.now[key]
        self.dropped[cluster] = self.store.revision
        self.past[self.store.revision] = dict(self.now)

    @rule(target=moments)
    def remember(self) -> object:
        return multiple(self.store.revision)

    @rule(moment=moments, cluster=_CLUSTERS, namespace=st.sampled_from(["", "n1"]), limit=st.integers(0, 3))
    def snapshot(self, moment: int, cluster: str, namespace: str, limit: int) -> None:
        if moment == 0 or moment < self.dropped[cluster]:
            return
        found, after = [], None
        while True:
            page = self.store.range("pods", cluster, namespace, after=after, limit=limit, revision=moment)
            found += [(e.revision, e.value) for e in page.entries]
            after = page.next_key
            if after is None:
                break
        # etcd's revision moves by what is not ours, too
        state = self.past[max(r for r in self.past if r <= moment)]
        wanted = [state[k] for k in sorted(state) if k.cluster == cluster and k.namespace.startswith(namespace)]
        assert found == wanted

    @rule(moment=moments, cluster=_CLUSTERS)
    def resume(self, moment: int, cluster: str) -> None:
        if moment < self.dropped[cluster]:
            return
        watcher = self.store.watch("pods", cluster, revision=moment)
        seen = [(e.revision, e.type, e.name) for e in watcher.queue]
        watcher.close()
        assert seen == [(r, t, k.name) for r, t, k in self.log if r > moment and k.cluster == cluster]

    @invariant()
    def the_present_agrees(self) -> None:
        for cluster in ("root", "tenant"):
            page = self.store.range("pods", cluster)
            wanted = [self.now[k] for k in sorted(self.now) if k.cluster == cluster]
            assert [(e.revision, e.value) for e in page.entries] == wanted


class DurableModel(Model):
    """The same, with restarts in between."""

    def make(self) -> Store:
        self.folder = Path(tempfile.mkdtemp())
        return SQLiteStore(self.folder / "db")

    @rule()
    def restart(self) -> None:
        self.loop.run_until_complete(self.store.close())
        self.store = SQLiteStore(self.folder / "db")
        self.loop.run_until_complete(self.store.start())
        # History starts anew: older moments may answer Compacted.
        self.dropped = dict.fromkeys(self.dropped, self.store.revision)
        self.past[self.store.revision] = dict(self.now)

    def teardown(self) -> None:
        super().teardown()
        shutil.rmtree(self.folder)


class EtcdModel(Model):
    """The same on etcd, with replicas that come and go."""

    count = 0

    def make(self) -> Store:
        EtcdModel.count += 1
        self.options = EtcdOptions((shared_etcd().url,), prefix=f"/stateful-{EtcdModel.count}/")
        return EtcdStore(self.options)

    @rule()
    def restart(self) -> None:
        self.loop.run_until_complete(self.store.close())
        self.store = EtcdStore(self.options)
        self.loop.run_until_complete(self.store.start())
        self.dropped = dict.fromkeys(self.dropped, self.store.revision)
        self.past[self.store.revision] = dict(self.now)


TestMemoryStore = Model.TestCase
TestMemoryStore.settings = settings(max_examples=60, stateful_step_count=40, deadline=None)
TestSQLiteStore = DurableModel.TestCase
TestSQLiteStore.settings = settings(max_examples=15, stateful_step_count=25, deadline=None)
TestEtcdStore = EtcdModel.TestCase
TestEtcdStore.settings = settings(max_examples=10, stateful_step_count=25, deadline=None)
