"""Images from layouts and registries, kept, unpacked and run."""

# ruff: noqa: ASYNC240 - small files

from __future__ import annotations

import asyncio
import base64
import contextlib
import json
import os
import shutil
import signal
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest
from aiohttp import web
from container_world import groups_of, lines, machine, said, until, world
from image_world import ARCHITECTURE, MANIFEST, Blobs, busybox, layer, tree

from glebe.node.containers.containers import CannotExecute
from glebe.node.containers.images import users
from glebe.node.containers.images.errors import ImageError
from glebe.node.containers.images.images import Images
from glebe.node.containers.images.reference import parse
from glebe.node.containers.images.store import Image
from glebe.node.contracts import Identity, Limits, Mount, SandboxError

pytestmark = pytest.mark.realtime
BUSYBOX = busybox()
needs_runtime = pytest.mark.skipif(
    not machine().images or BUSYBOX is None, reason="needs root, crun or runc, overlayfs and a static busybox"
)
each_runtime = pytest.mark.parametrize("runtime", list(machine().runtimes) or ["container"])


class Registry:
    """A small registry: tokens for who asks for them with the right password, ranges, faults on order."""

    def __init__(self) -> None:
        self.content = Blobs()
        self.tags: dict[str, dict[str, Any]] = {}
        self.password = ""
        self.asked: list[str] = []
        self.cut: set[str] = set()  # blobs that end early, once
        self.lie: set[str] = set()  # blobs that are something else
        self.url = ""

    @contextlib.asynccontextmanager
    async def serving(self) -> AsyncIterator[str]:
        app = web.Application()
        app.router.add_get("/v2/{name:.+}/manifests/{ref}", self._manifest)
        app.router.add_get("/v2/{name:.+}/blobs/{digest}", self._blob)
        app.router.add_get("/token", self._token)
        runner = web.AppRunner(app)
        await runner.setup()
        site = web.TCPSite(runner, "127.0.0.1", 0)
        await site.start()
        port = runner.addresses[0][1]
        self.url = f"http://127.0.0.1:{port}"
        try:
            yield f"127.0.0.1:{port}"
        finally:
            await runner.cleanup()

    def _check(self, request: web.Request) -> None:
        self.asked.append(request.path.rpartition("/")[2])
        if self.password and request.headers.get("Authorization") != "Bearer good":
            challenge = f'Bearer realm="{self.url}/token",service="test",scope="repository:app:pull"'
            raise web.HTTPUnauthorized(headers={"WWW-Authenticate": challenge})

    async def _token(self, request: web.Request) -> web.Response:
        given = base64.b64decode(request.headers.get("Authorization", "Basic ").split(" ")[1]).decode()
        if given != f"user:{self.password}":
            raise web.HTTPUnauthorized
        assert request.query["service"] == "test"
        return web.json_response({"token": "good"})

    async def _manifest(self, request: web.Request) -> web.Response:
        self._check(request)
        wanted = self.tags.get(request.match_info["ref"], {"digest": request.match_info["ref"]})["digest"]
        data = self.content.blobs.get(wanted)
        if data is None:
            raise web.HTTPNotFound
        return web.Response(body=data, content_type=MANIFEST)

    async def _blob(self, request: web.Request) -> web.StreamResponse:
        self._check(request)
        name = request.match_info["digest"]
        data = self.content.blobs[name]
        if name in self.lie:
            return web.Response(body=b"x" * len(data))
        start = int(request.headers.get("Range", "bytes=0-")[6:].rstrip("-"))
        headers = {"Content-Range": f"bytes {start}-{len(data) - 1}/{len(data)}"} if start else {}
        self.asked[-1] += f"+{start}" if start else ""
        if name not in self.cut:
            return web.Response(status=206 if start else 200, body=data[start:], headers=headers)
        self.cut.discard(name)
        answer = web.StreamResponse(headers={"Content-Length": str(len(data))})
        await answer.prepare(request)
        await answer.write(data[: len(data) // 2])
        assert request.transport is not None
        request.transport.abort()
        return answer


class Told:
    def __init__(self) -> None:
        self.events: list[str] = []

    async def __call__(self, kind: str, reason: str, message: str) -> None:
        self.events.append(reason)


def images(tmp: Path, **options: Any) -> Images:
    return Images(tmp / "store", tmp / "local", lambda: 1000.0, **options)


async def had(made: Images, name: str, policy: str = "IfNotPresent", secrets: Any = ()) -> Image:
    return await made.ensure(name, policy, secrets, Told())


async def test_a_layout_gives_its_tags(tmp_path: Path) -> None:
    blobs = Blobs()
    one = blobs.image([layer(("f", "1"))], Entrypoint=["/f"], Env=["A=b"])
    two = blobs.image([layer(("f", "1"), ("g", "1")), layer((".wh.f", ""), ("h", "2"))], compression="zstd")
    both = blobs.index((one, "other"), (two, ARCHITECTURE))
    named = [(one, "v1"), (both, "v2"), (one, ""), (one, "registry.example.com/whole:x")]
    blobs.write(tmp_path / "local" / "team" / "app", *named)
    made, told = images(tmp_path), Told()
    first = await made.ensure("team/app:v1", "Never", [], told)
    assert told.events == ["Pulled"]
    assert tree(first.root) == {"f": "1"}
    assert (first.config.entrypoint, first.config.env) == (("/f",), (("A", "b"),))
    assert first.ref == f"docker.io/team/app@{one['digest']}"
    assert tree((await had(made, "team/app:v2")).root) == {"g": "1", "h": "2"}
    for name in ("team/app", f"team/app@{one['digest']}", "registry.example.com/whole:x"):
        assert (await had(made, name, "Never")).id == first.id
    listed = made.store.list()
    assert len(listed) == 2
    assert all(item["sizeBytes"] > 0 for item in listed)
    again = Images(tmp_path / "store", tmp_path / "nothing", lambda: 1000.0)
    assert (await had(again, "team/app:v1", "Never")).root == first.root


async def test_a_root_directory_is_an_image(tmp_path: Path) -> None:
    root = tmp_path / "local" / "plain" / "rootfs"
    root.mkdir(parents=True)
    (tmp_path / "local" / "plain" / "config.json").write_text('{"config": {"Cmd": ["/x"]}}')
    found = await had(images(tmp_path), "plain", "Never")
    assert (found.root, found.config.command) == (root, ("/x",))


async def test_what_cannot_be_had_is_named(tmp_path: Path) -> None:
    made = images(tmp_path)
    for name, policy, reason, text in (
        ("No/Name", "Always", "InvalidImageName", "must be lowercase"),
        ("busybox", "Never", "ErrImageNeverPull", 'Container image "busybox" is not present with pull policy of Never'),
        ("127.0.0.1:1/busybox", "IfNotPresent", "ErrImagePull", "127.0.0.1:1/busybox"),
    ):
        with pytest.raises(ImageError, match=text) as error:
            await had(made, name, policy)
        assert error.value.reason == reason
    blobs = Blobs()
    broken = blobs.image([layer(("f", "1"))])
    path = blobs.write(tmp_path / "local" / "broken", (broken, ""))
    for blob in (path / "blobs" / "sha256").iterdir():
        blob.write_bytes(blob.read_bytes()[:-1] + b"?")
    with pytest.raises(ImageError) as error:
        await had(made, "broken", "Never")
    assert error.value.reason == "ErrImagePull"
    assert not list((tmp_path / "store").rglob("rootfs"))


async def test_pulls_are_merged_verified_and_resumed(tmp_path: Path) -> None:
    registry = Registry()
    data = os.urandom(300_000)
    image = registry.content.image([layer(("f", "1")), layer(("big", data.hex()))])
    registry.tags["v1"] = registry.content.index((image, ARCHITECTURE))
    big = max(registry.content.blobs, key=lambda name: len(registry.content.blobs[name]))
    registry.cut.add(big)
    async with registry.serving() as host:
        made = images(tmp_path)
        name = f"{host}/app:v1"
        results = await asyncio.gather(*(had(made, name, "Always") for _ in range(5)))
        assert (results[0].root / "big").read_text() == data.hex()
        assert registry.asked.count("v1") == 1
        assert [word for word in registry.asked if word.startswith(f"{big}+")] == [
            f"{big}+{len(registry.content.blobs[big]) // 2}"
        ]
        registry.asked.clear()
        await had(made, name, "IfNotPresent")
        assert registry.asked == []
        await had(made, name, "Always")
        assert registry.asked[0] == "v1"
        assert big not in registry.asked
        await made.close()


async def test_credentials_of_pull_secrets(tmp_path: Path) -> None:
    registry = Registry()
    registry.password = "pw"
    registry.tags["v1"] = registry.content.image([layer(("f", "1"))])
    async with registry.serving() as host:
        made = images(tmp_path)
        with pytest.raises(ImageError, match="pull access denied"):
            await had(made, f"{host}/app:v1")
        auths = {"auths": {host: {"username": "user", "password": "pw"}, "other": {"username": "x", "password": "y"}}}
        secret = {"data": {".dockerconfigjson": base64.b64encode(json.dumps(auths).encode()).decode()}}
        assert tree((await had(made, f"{host}/app:v1", secrets=[secret])).root) == {"f": "1"}


async def test_lying_and_missing_registries(tmp_path: Path) -> None:
    registry = Registry()
    image = registry.content.image([layer(("f", "1"))])
    registry.tags["v1"] = image
    manifest = json.loads(registry.content.blobs[image["digest"]])
    registry.lie.add(manifest["layers"][0]["digest"])
    async with registry.serving() as host:
        made = images(tmp_path)
        with pytest.raises(ImageError, match="does not have the digest"):
            await had(made, f"{host}/app:v1")
        with pytest.raises(ImageError, match="not found"):
            await had(made, f"{host}/app:v2")
        with pytest.raises(ImageError, match="more than this node takes"):
            await had(images(tmp_path / "small", size_bound=100), f"{host}/app:v1")
        registry.lie.clear()
        assert tree((await had(made, f"{host}/app@{image['digest']}")).root) == {"f": "1"}


async def test_unused_images_are_removed(tmp_path: Path) -> None:
    blobs = Blobs()
    one, two = (blobs.image([layer(("f", text))]) for text in "12")
    blobs.write(tmp_path / "local" / "app", (one, "v1"), (two, "v2"))
    made = images(tmp_path)
    first, second = await had(made, "app:v1"), await had(made, "app:v2")
    made.store.collect([], older_than=500.0)
    assert len(made.store.list()) == 2
    made.store.collect([first.root], older_than=2000.0)
    assert [item["names"][1] for item in made.store.list()] == ["docker.io/library/app:v1"]
    assert first.root.exists()
    assert not second.root.exists()
    assert made.store.get(parse("app:v1")) is not None
    made.store.collect([], older_than=2000.0)
    assert not list((tmp_path / "store").rglob("rootfs"))


async def test_nothing_is_removed_while_an_image_is_made_ready(tmp_path: Path) -> None:
    registry = Registry()
    registry.tags["v1"] = registry.content.image([layer(("f", "1"))])
    async with registry.serving() as host:
        made = images(tmp_path)
        pulling = asyncio.create_task(had(made, f"{host}/app:v1"))
        freed = []
        while not pulling.done():
            freed.append(await made.collect([], older_than=2000.0))
            await asyncio.sleep(0)
        assert set(freed) == {0}
        assert tree((await pulling).root) == {"f": "1"}
        await made.collect([], older_than=2000.0)
        assert made.store.list() == []


# --- run


@contextlib.asynccontextmanager
async def running(tmp: Path, runtime: str) -> AsyncIterator[tuple[Any, dict[str, Any]]]:
    assert BUSYBOX is not None
    blobs = Blobs()
    blobs.write(
        tmp / "images" / "local" / "busybox", (blobs.image([BUSYBOX], compression="", User="web", Cmd=["sh"]), "")
    )
    async with world(tmp) as w:
        image = await w.containers.image("busybox", "Never", [], Told())
        identity = users.identity(image.root, image.config.user, Identity())
        yield (
            w,
            {"rootfs": str(image.root), "handler": w.containers.handler("container"), "identity": identity, "env": {}},
        )


@needs_runtime
@each_runtime
async def test_a_container_from_an_image(tmp_path: Path, runtime: str) -> None:
    (tmp_path / "v").mkdir()
    (tmp_path / "v" / "f").write_text("volume\n")
    script = "id -u; cat /data/f; ls /; touch /data/g || echo kept; echo $PATH; hostname; ls /proc | grep -c '^[0-9]'"
    async with running(tmp_path, runtime) as (w, image):
        mounts = (Mount(str(tmp_path / "v"), "/data", read_only=True),)
        text = await w.say("sh", "-c", script, mounts=mounts, hostname="web-0", **image)
        assert text.startswith("101\nvolume\nbin\ndata\ndev\netc\nproc\nsys\n")
        assert "kept\n/usr/local/sbin:" in text.replace("touch: /data/g: Read-only file system\n", "")
        assert "web-0\n" in text
        root = {**image, "identity": Identity(user=0, group=0)}
        assert (
            await w.say("sh", "-c", "echo mine > /new; cat /new; mknod /m b 1 1 2>/dev/null || echo no", **root)
            == "mine\nno\n"
        )
        assert not (Path(image["rootfs"]) / "new").exists()
        privileged = {**image, "identity": Identity(user=0, group=0, privileged=True)}
        assert await w.say("sh", "-c", "mkdir /m; id -u", **privileged) == "0\n"
        assert "127 StartError" in await w.say("nothing", **image)
        assert "/usr/local" not in await w.say("ls", "/usr", read_only_root=True, **image)
    assert str(tmp_path) not in Path("/proc/self/mounts").read_text()


@needs_runtime
@each_runtime
async def test_further_processes_and_terminals_in_an_image(tmp_path: Path, runtime: str) -> None:
    async with running(tmp_path, runtime) as (w, image):
        run = await w.start("sleep", "60", **image)
        streams = await w.containers.execute(run, ["sh", "-c", "id -g; cat; exit 4"], stdin=True)
        await streams.write(b"in\n")
        await streams.close_input()
        assert await said(streams) == {1: b"102\nin\n"}
        assert await streams.wait() == 4
        await streams.close()
        with pytest.raises(CannotExecute) as error:
            await w.containers.execute(run, ["nothing"])
        assert error.value.exit_code == 127
        streams = await w.containers.execute(run, ["sh", "-c", "read x; stty size"], tty=True, stdin=True)
        await streams.resize(90, 20)
        await streams.write(b"go\n")
        assert (await said(streams))[1].replace(b"go\r\n", b"") == b"20 90\r\n"
        await streams.close()
        streams = await w.containers.execute(run, ["sleep", "61"])
        await streams.close()
        usage = await w.containers.usage(run)
        assert usage is None or usage.processes <= 2
        terminal = await w.start("sh", "-c", "read x; stty size; echo over", tty=True, stdin=True, **image)
        attached = await w.containers.attach(terminal, stdin=True)
        await attached.resize(70, 30)
        await attached.write(b"go\n")
        assert b"30 70\r\nover\r\n" in (await said(attached))[1]
        await attached.close()


@needs_runtime
@each_runtime
async def test_memory_of_an_image_is_limited(tmp_path: Path, runtime: str) -> None:
    async with running(tmp_path, runtime) as (w, image):
        run = await w.start(
            "dd", "if=/dev/zero", "of=/dev/null", "bs=200M", "count=1", limits=Limits(memory=32 << 20), **image
        )
        end = await run.wait()
        assert end is not None
        if machine().cgroups == 1:
            path = "/sys/fs/cgroup/memory/memory.limit_in_bytes"
            assert await w.say("cat", path, limits=Limits(memory=32 << 20), **image) == f"{32 << 20}\n"
        if machine().cgroups:
            assert (end.code, end.reason) == (137, "OOMKilled")
        assert groups_of(run) == []


@needs_runtime
@each_runtime
@pytest.mark.parametrize("how", ["stop", "kill"])
async def test_an_ended_image_container_leaves_nothing(tmp_path: Path, runtime: str, how: str) -> None:
    async with running(tmp_path, runtime) as (w, image):
        run = await w.start("sh", "-c", "echo up; sleep 60 & sleep 61", **image)
        await until(run.log.read_bytes)
        command, holder = run.command, run.supervisor
        assert command is not None
        assert holder is not None
        if how == "stop":
            run.stop(0.1)
        else:
            os.kill(holder.pid, signal.SIGKILL)
            await until(lambda: not command.alive)  # the guard's work: no agent has looked yet
        await run.wait()
        assert not command.alive
        assert groups_of(run) == []
        assert lines(run) == "up\n"
        shutil.rmtree(run.path)
    assert str(tmp_path) not in Path("/proc/self/mounts").read_text()


async def test_handlers(tmp_path: Path) -> None:
    async with world(tmp_path) as w:
        assert w.containers.handler("") == w.containers.handler("process") == ""
        if machine().images:
            assert w.containers.handler("container") in ("crun", "runc")
        with pytest.raises(SandboxError, match='no runtime for "gvisor" is configured'):
            w.containers.handler("gvisor")
    async with world(tmp_path, default_handler="container") as w:
        assert w.containers.handler("process") == ""
        if machine().images:
            assert w.containers.handler("") == w.containers.handler("container") != ""
    async with world(tmp_path, isolate=False) as w:
        with pytest.raises(SandboxError):
            w.containers.handler("container")
        assert w.containers.handlers == ("process",)


async def test_a_layout_is_looked_at_again_when_the_policy_says_always(tmp_path: Path) -> None:
    made = images(tmp_path)
    for text in "12":
        shutil.rmtree(tmp_path / "local", ignore_errors=True)
        blobs = Blobs()
        blobs.write(tmp_path / "local" / "app", (blobs.image([layer(("f", text))]), ""))
        assert tree((await had(made, "app", "Always")).root) == {"f": text}
    shutil.rmtree(tmp_path / "local")
    assert tree((await had(made, "app", "IfNotPresent")).root) == {"f": "2"}
