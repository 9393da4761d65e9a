"""The informer's copy converges to the server's state, whatever the connection does."""

from __future__ import annotations

import asyncio
import itertools
import logging
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from kube_fake import FakeServer, frame, make

from glebe.kube import errors, virtualtime
from glebe.kube.client import Client
from glebe.kube.clock import Env
from glebe.kube.informer import Informer, Informers
from glebe.kube.objects import Object, ObjectKey
from glebe.kube.reflector import Timing
from glebe.kube.resources import CONFIGMAPS, PODS
from glebe.kube.transport import ConnectionLost, Request, Response


class Recorder:
    """A handler that replays what it is told into a copy of its own, and notes the calls."""

    def __init__(self) -> None:
        self.calls: list[tuple[str, str]] = []
        self.known: dict[str, Object] = {}

    def __call__(self, old: Object | None, new: Object | None) -> None:
        obj = new or old
        assert obj is not None
        name = obj["metadata"]["name"]
        if old is None:
            assert name not in self.known, "added twice"
        else:
            assert name in self.known, "changed or deleted before it was added"
            assert self.known[name]["metadata"]["uid"] == old["metadata"]["uid"]
        if new is None:
            del self.known[name]
        else:
            self.known[name] = new
        self.calls.append(("add" if old is None else "delete" if new is None else "update", name))


@asynccontextmanager
async def running(informer: Informer) -> AsyncIterator[Informer]:
    task = asyncio.create_task(informer.run())
    try:
        yield informer
    finally:
        task.cancel()
        await asyncio.wait([task])
        if not task.cancelled():
            task.result()


def copy_of(informer: Informer) -> dict[tuple[str, str], str]:
    return {(key.namespace, key.name): obj["metadata"]["resourceVersion"] for key, obj in informer.store.items()}


async def test_lists_then_follows() -> None:
    server = FakeServer()
    server.put(make("a"))
    informer = Informer(Client(server), PODS, Env.seeded(1))
    seen = Recorder()
    informer.add_handler(seen)
    assert not informer.has_synced
    async with running(informer):
        await informer.wait_synced()
        assert informer.store.get(ObjectKey("", "default", "a")) is not None
        server.put(make("b"))
        server.put(make("a", app="x"))
        server.drop("b")
        await asyncio.sleep(1)
        assert seen.calls == [("add", "a"), ("add", "b"), ("update", "a"), ("delete", "b")]
        assert copy_of(informer) == server.state()
        late = Recorder()
        informer.add_handler(late)
        assert late.calls == [("add", "a")]
    assert informer.stats.restarts == 0


@pytest.mark.parametrize("error", [None, ConnectionLost("reset"), ConnectionLost("cut")])
async def test_resumes_a_broken_watch_without_listing(error: Exception | None) -> None:
    server = FakeServer()
    informer = Informer(Client(server), PODS, Env.seeded(1))
    async with running(informer):
        await informer.wait_synced()
        for round in range(5):
            await asyncio.sleep(5)
            server.break_watches(error, tail=frame("ADDED", make("x"))[:30] if str(error) == "cut" else b"")
            server.put(make("a", round=str(round)))
            await asyncio.sleep(5)
            assert copy_of(informer) == server.state()
    assert informer.stats.lists == 1
    assert informer.stats.watches == 6


async def test_bookmarks_keep_the_version_fresh_over_a_compaction() -> None:
    server = FakeServer()
    informer = Informer(Client(server), PODS, Env.seeded(1))
    async with running(informer):
        await informer.wait_synced()
        for name in "abc":
            server.put({**make(name), "kind": "ConfigMap"}, "configmaps")  # moves the revision, not our collection
        await asyncio.sleep(70)  # a bookmark came
        assert informer.version == str(server.revision)
        server.compact()
        server.break_watches()
        server.put(make("late"))
        await asyncio.sleep(5)
        assert copy_of(informer) == server.state()
    assert informer.stats.lists == 1
    assert informer.stats.bookmarks >= 1


@pytest.mark.parametrize("how", ["event", "status"])
async def test_lists_again_when_its_version_is_too_old(how: str) -> None:
    server = FakeServer()
    for name in ("stays", "goes", "reborn"):
        server.put(make(name))
    informer = Informer(Client(server), PODS, Env.seeded(1))
    seen = Recorder()
    informer.add_handler(seen)
    async with running(informer):
        await informer.wait_synced()
        await asyncio.sleep(5)
        seen.calls.clear()
        if how == "status":

            def refuse_watch(request: Request) -> Response | None:
                if request.param("watch"):
                    server.fault = lambda _: None
                    raise errors.gone("too old")
                return None

            server.fault = refuse_watch
        server.break_watches(ConnectionLost("reset"))
        server.drop("goes")
        server.drop("reborn")
        server.put(make("reborn"))
        server.put(make("new"))
        server.compact()
        await asyncio.sleep(5)
        assert copy_of(informer) == server.state()
    assert informer.stats.restarts == 1
    # an object that came back as another one is a deletion and an addition
    assert sorted(seen.calls) == [("add", "new"), ("add", "reborn"), ("delete", "goes"), ("delete", "reborn")]
    assert seen.calls.index(("delete", "reborn")) < seen.calls.index(("add", "reborn"))


async def test_a_silent_connection_is_given_up() -> None:
    server = FakeServer()
    informer = Informer(Client(server), PODS, Env.seeded(1))
    async with running(informer):
        await informer.wait_synced()
        await asyncio.sleep(1)
        server.freeze_watches()
        server.put(make("unseen"))
        await asyncio.sleep(100)
        assert copy_of(informer) == {}
        await asyncio.sleep(100)
        assert copy_of(informer) == server.state()
        assert informer.stats.dead == 1
        assert informer.stats.lists == 1
        # bookmarks are a sign of life: nothing is given up while they come
        await asyncio.sleep(3600)
        assert informer.stats.dead == 1
        assert 6 <= informer.stats.watches <= 16  # each lives 5 to 10 minutes


async def test_backs_off_from_a_server_that_is_down_and_says_so_once(caplog: pytest.LogCaptureFixture) -> None:
    server = FakeServer()
    attempts: list[float] = []

    def down(request: Request) -> Response | None:
        attempts.append(asyncio.get_running_loop().time())
        raise ConnectionLost("connection refused")

    server.fault = down
    informer = Informer(Client(server), PODS, Env.seeded(1))
    with caplog.at_level(logging.INFO, "glebe.kube"):
        async with running(informer):
            await asyncio.sleep(600)
            gaps = [b - a for a, b in itertools.pairwise(attempts)]
            assert gaps[0] < 0.4
            assert all(30 <= gap <= 45 for gap in gaps[9:])
            assert len({round(gap, 6) for gap in gaps[9:]}) > 3  # jitter
            server.fault = lambda _: None
            await asyncio.sleep(50)
            assert informer.has_synced
    texts = [record.message for record in caplog.records]
    assert sum("connection refused" in text for text in texts) == 1
    assert any("recovered" in text for text in texts)


async def test_a_watch_that_ends_at_once_is_no_hot_loop() -> None:
    server = FakeServer()
    server.fault = lambda request: Response(200) if request.param("watch") else None
    informer = Informer(Client(server), PODS, Env.seeded(1))
    async with running(informer):
        await asyncio.sleep(600)
    assert informer.stats.watches < 40


@pytest.mark.parametrize("code", [403, 404])
async def test_a_refused_watch_lists_again_and_a_kind_may_appear_later(code: int) -> None:
    server = FakeServer()
    server.put(make("a"))

    def refuse(request: Request) -> Response | None:
        raise errors.ApiError(code, "NotFound" if code == 404 else "Forbidden", "no")

    server.fault = refuse
    informer = Informer(Client(server), PODS, Env.seeded(1))
    async with running(informer):
        await asyncio.sleep(3)
        assert not informer.has_synced
        server.fault = lambda _: None
        await asyncio.sleep(10)
        assert copy_of(informer) == server.state()


async def test_nonsense_from_the_server_does_not_end_the_copy() -> None:
    server = FakeServer()
    informer = Informer(Client(server), PODS, Env.seeded(1))
    async with running(informer):
        await informer.wait_synced()
        for nonsense in (
            b"{]\n",
            b"[]\n",
            b'{"type":"ADDED"}\n',
            frame("ADDED", {"kind": "Pod"}),
            frame("ODD", make("q")),
        ):
            await asyncio.sleep(5)
            server.send_to_watches(nonsense)
        server.put(make("a"))
        await asyncio.sleep(60)
        assert copy_of(informer) == server.state()


async def test_a_failing_handler_is_logged_and_harms_nobody(caplog: pytest.LogCaptureFixture) -> None:
    server = FakeServer()
    informer = Informer(Client(server), PODS, Env.seeded(1))

    def bad(old: Object | None, new: Object | None) -> None:
        raise RuntimeError("boom")

    good = Recorder()
    informer.add_handler(bad)
    informer.add_handler(good)
    async with running(informer):
        server.put(make("a"))
        await asyncio.sleep(1)
        server.put(make("b"))
        await asyncio.sleep(1)
    assert good.calls == [("add", "a"), ("add", "b")]
    assert "a handler failed" in caplog.text
    assert informer.stats.lists == 1


async def test_selectors_and_namespaces_and_indexes() -> None:
    server = FakeServer()
    server.put(make("a", "x", app="web"))
    server.put(make("b", "y", app="web"))
    server.put(make("c", "x", app="db"))
    by_app: Callable[[Object], list[str]] = lambda obj: [obj["metadata"]["labels"]["app"]]  # noqa: E731
    informer = Informer(
        Client(server, cluster="team"), PODS, Env.seeded(1), label_selector="app=web", indexers={"app": by_app}
    )
    in_x = Informer(Client(server), PODS, Env.seeded(1), namespace="x")
    async with running(informer), running(in_x):
        await asyncio.sleep(1)
        assert [key.cluster for key, _ in informer.store.items()] == ["team", "team"]
        assert [o["metadata"]["name"] for o in informer.store.by_index("app", "web")] == ["a", "b"]
        assert {key.name for key, _ in in_x.store.items()} == {"a", "c"}
        server.put(make("a", "x", app="db"))  # leaves the selection
        await asyncio.sleep(1)
        assert [o["metadata"]["name"] for o in informer.store.by_index("app", "web")] == ["b"]
        assert informer.store.by_index("app", "db") == []
        assert informer.store.index_values("app") == ["web"]
        in_x.add_indexers({"app": by_app})
        assert [o["metadata"]["name"] for o in in_x.store.by_index("app", "db")] == ["a", "c"]


async def test_informers_are_shared_and_start_late_ones() -> None:
    server = FakeServer()
    server.put(make("a"))
    informers = Informers(Client(server), Env.seeded(1))
    pods = informers.get(PODS)
    assert informers.get(PODS) is pods
    assert informers.get(PODS, namespace="x") is not pods
    task = asyncio.create_task(informers.run())
    await informers.wait_synced()
    late = informers.get(CONFIGMAPS)
    assert not informers.has_synced
    await informers.wait_synced()
    assert late.has_synced
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    assert server.watchers == []


async def test_managed_fields_are_not_kept() -> None:
    server = FakeServer()
    obj = make("a")
    obj["metadata"]["managedFields"] = [{"manager": "x"}]
    server.put(obj)
    informer = Informer(Client(server), PODS, Env.seeded(1))
    async with running(informer):
        await informer.wait_synced()
        assert "managedFields" not in informer.store.values()[0]["metadata"]


NAMES = st.sampled_from(list("abcdef"))
FAULTS = st.one_of(
    st.tuples(st.just("put"), NAMES),
    st.tuples(st.just("put"), NAMES),
    st.tuples(st.just("drop"), NAMES),
    st.tuples(st.just("reborn"), NAMES),
    st.tuples(st.just("compact"), st.none()),
    st.tuples(st.just("miss"), st.lists(NAMES, min_size=1, max_size=3)),
    st.tuples(st.just("end"), st.none()),
    st.tuples(st.just("cut"), st.integers(0, 40)),
    st.tuples(st.just("freeze"), st.none()),
    st.tuples(st.just("refuse"), st.sampled_from([403, 404, 410, 429, 500, 503, 0])),
    st.tuples(st.just("heal"), st.none()),
    st.tuples(st.just("garbage"), st.sampled_from([b"{]\n", b"null\n", b'{"type":"ERROR","object":{"code":500}}\n'])),
    st.tuples(st.just("wait"), st.sampled_from([0.0, 0.01, 0.5, 7.0, 80.0, 700.0])),
)


async def converge(script: list[tuple[str, object]], seed: int) -> None:
    server = FakeServer(page_cap=2)
    informer = Informer(Client(server), PODS, Env.seeded(seed), timing=Timing(backoff_max=5.0), page_size=2)
    seen = Recorder()
    informer.add_handler(seen)
    generation = 0
    for name in "abc":
        server.put(make(name))
    async with running(informer):
        await asyncio.sleep(1)
        for step, value in script:
            generation += 1
            match step:
                case "put":
                    server.put(make(str(value), generation=str(generation)))
                case "drop" if ("default", value) in server.state():
                    server.drop(str(value))
                case "reborn":
                    if ("default", value) in server.state():
                        server.drop(str(value))
                    server.put(make(str(value), generation=str(generation)))
                case "compact":
                    server.compact()
                case "miss":  # deletions that no watch will ever tell of
                    assert isinstance(value, list)
                    server.break_watches(ConnectionLost("lost"))
                    for name in value:
                        if ("default", name) in server.state():
                            server.drop(name)
                    server.compact()
                case "end":
                    server.break_watches()
                case "cut":
                    server.break_watches(ConnectionLost("cut"), tail=frame("ADDED", make("ghost"))[: int(str(value))])
                case "freeze":
                    server.freeze_watches()
                case "refuse":
                    server.fault = refusing(int(str(value)))
                case "heal":
                    server.fault = lambda _: None
                case "garbage":
                    assert isinstance(value, bytes)
                    server.send_to_watches(value)
                case "wait":
                    assert isinstance(value, float)
                    await asyncio.sleep(value)
        server.fault = lambda _: None
        await asyncio.sleep(1000)
        assert informer.has_synced
        assert copy_of(informer) == server.state()
        # and what the handlers were told adds up to the same
        assert {n: o["metadata"]["resourceVersion"] for n, o in seen.known.items()} == {
            name: version for (_, name), version in server.state().items()
        }


def refusing(code: int) -> Callable[[Request], Response | None]:
    def refuse(request: Request) -> Response | None:
        if code == 0:
            raise ConnectionLost("refused")
        raise errors.ApiError(code, "Injected", "injected", retry_after=2 if code == 429 else None)

    return refuse


@settings(max_examples=150, deadline=None)
@given(script=st.lists(FAULTS, max_size=40), seed=st.integers(0, 1000))
def test_converges_under_any_faults(script: list[tuple[str, object]], seed: int) -> None:
    logging.getLogger("glebe.kube").setLevel(logging.CRITICAL)
    try:
        virtualtime.run(converge(script, seed))
    finally:
        logging.getLogger("glebe.kube").setLevel(logging.NOTSET)
