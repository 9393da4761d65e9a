"""Volumes as directories: what is in them, who may read it, when it changes, and that nothing leaves them."""

from __future__ import annotations

import asyncio
import os
import stat
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import pytest
from node_world import World, world

from glebe.kube.clock import format_time
from glebe.kube.objects import Object
from glebe.kube.resources import CONFIGMAPS, PERSISTENT_VOLUME_CLAIMS, PODS, SECRETS, SERVICE_ACCOUNTS
from glebe.kube.storage import VOLUMES
from glebe.node.contracts import ImageError, VolumeError
from glebe.node.spec import NodeSpec
from glebe.node.values.downward import ConfigError, quote
from glebe.node.volumes import atomic, memory, ownership, usage
from glebe.node.volumes.payload import File, Inputs, common_user, files_of
from glebe.node.volumes.volumes import Volumes

SPEC = NodeSpec("local", {"cpu": "2", "memory": "4Gi"}, {"kubernetes.io/hostname": "local"})
root_only = pytest.mark.skipif(os.geteuid() != 0, reason="only root gives files away")


def config(name: str, data: dict[str, str], **more: Any) -> Object:
    meta = {"name": name, "namespace": "default"}
    return {"apiVersion": "v1", "kind": "ConfigMap", "metadata": meta, "data": data, **more}


def secret(name: str, data: dict[str, str]) -> Object:
    return {**config(name, {}), "kind": "Secret", "data": {}, "stringData": data}


async def pod_with(w: World, *volumes: dict[str, Any], **more: Any) -> Object:
    spec = {"automountServiceAccountToken": False, "volumes": list(volumes), **more}
    return await w.pod("p", "local", {"a": 'x "y"\n'}, **spec)


@asynccontextmanager
async def volumes_of(w: World) -> AsyncIterator[Volumes]:
    made = Volumes(w.client, w.env, SPEC)
    try:
        yield made
    finally:
        made.close()


def tree(root: Path) -> dict[str, str]:
    """Path -> content and mode of what a reader sees."""
    found = {}
    for path in sorted(root.rglob("*")):
        relative = str(path.relative_to(root))
        if not relative.startswith("..") and path.is_file():
            found[relative] = f"{path.read_text()} {stat.S_IMODE(path.stat().st_mode):o}"
    for link in root.iterdir():  # what is linked is not walked into
        if link.is_symlink() and link.is_dir() and not link.name.startswith(".."):
            for path in sorted(p for p in link.rglob("*") if p.is_file()):
                name = f"{link.name}/{path.relative_to(link)}"
                found[name] = f"{path.read_text()} {stat.S_IMODE(path.stat().st_mode):o}"
    return found


# --- contents and modes, as test/e2e/common/storage asks for them


async def test_config_maps_with_modes_items_and_binary_data(tmp_path: Path) -> None:
    async with world() as w, volumes_of(w) as volumes:
        await w.client.create(CONFIGMAPS, config("c", {"data-1": "one", "data-2": "two"}, binaryData={"b": "AQI="}))
        pod = await pod_with(
            w,
            {"name": "plain", "configMap": {"name": "c"}},
            {"name": "mode", "configMap": {"name": "c", "defaultMode": 0o400}},
            {
                "name": "items",
                "configMap": {"name": "c", "items": [{"key": "data-2", "path": "path/to/data-2", "mode": 0o400}]},
            },
        )
        paths = await volumes.provide(pod, tmp_path)
        assert tree(paths["plain"]) == {"data-1": "one 644", "data-2": "two 644", "b": "\x01\x02 644"}
        assert tree(paths["mode"]) == {"data-1": "one 400", "data-2": "two 400", "b": "\x01\x02 400"}
        assert tree(paths["items"]) == {"path/to/data-2": "two 400"}
        assert os.readlink(paths["plain"] / "data-1") == "..data/data-1"


async def test_secrets_downward_and_projected_in_one_directory(tmp_path: Path) -> None:
    async with world() as w, volumes_of(w) as volumes:
        await w.client.create(CONFIGMAPS, config("c", {"k": "cm"}))
        await w.client.create(SECRETS, secret("s", {"k": "sec"}))
        items = [
            {"path": "podname", "fieldRef": {"fieldPath": "metadata.name"}, "mode": 0o400},
            {"path": "annotations", "fieldRef": {"fieldPath": "metadata.annotations"}},
            {"path": "cpu", "resourceFieldRef": {"containerName": "c", "resource": "limits.cpu"}},
            {
                "path": "mem",
                "resourceFieldRef": {"containerName": "c", "resource": "limits.memory", "divisor": "1Mi"},
            },
        ]
        sources = [
            {"configMap": {"name": "c", "items": [{"key": "k", "path": "all/cm"}]}},
            {"secret": {"name": "s", "items": [{"key": "k", "path": "all/sec"}]}},
            {"downwardAPI": {"items": items[:1]}},
        ]
        pod = await pod_with(
            w,
            {"name": "s", "secret": {"secretName": "s"}},
            {"name": "d", "downwardAPI": {"items": items}},
            {"name": "j", "projected": {"sources": sources, "defaultMode": 0o440}},
        )
        paths = await volumes.provide(pod, tmp_path)
        assert tree(paths["s"]) == {"k": "sec 644"}
        seen = tree(paths["d"])
        assert (seen["podname"], seen["annotations"]) == ("p 400", 'a="x \\"y\\"\\n" 644')
        assert (seen["cpu"], seen["mem"]) == ("2 644", "4096 644")  # no limits: what the node has
        assert tree(paths["j"]) == {"all/cm": "cm 440", "all/sec": "sec 440", "podname": "p 400"}


async def test_optional_sources_may_be_missing_and_others_say_so(tmp_path: Path) -> None:
    async with world() as w, volumes_of(w) as volumes:
        await w.client.create(CONFIGMAPS, config("c", {"k": "v"}))
        items = [{"key": "no", "path": "x"}]
        pod = await pod_with(
            w,
            {"name": "a", "configMap": {"name": "none", "optional": True}},
            {"name": "b", "secret": {"secretName": "none", "optional": True}},
            {"name": "c", "configMap": {"name": "c", "items": items, "optional": True}},
        )
        paths = await volumes.provide(pod, tmp_path)
        assert [tree(p) for p in paths.values()] == [{}, {}, {}]
        for volume, says in (
            ({"configMap": {"name": "none"}}, 'MountVolume.SetUp failed for volume "v" : configmap "none" not found'),
            ({"secret": {"secretName": "none"}}, 'secret "none" not found'),
            ({"configMap": {"name": "c", "items": items}}, "references non-existent config key: no"),
            ({"nfs": {"server": "s", "path": "/"}}, "of kind nfs, for which this node has no driver"),
            ({"hostPath": {"path": "/dev/null/such"}}, "cannot be made: Not a directory"),
        ):
            bad = {**pod, "spec": {**pod["spec"], "volumes": [{"name": "v", **volume}]}}
            with pytest.raises(VolumeError, match=says):
                await volumes.provide(bad, tmp_path)


@pytest.mark.parametrize("path", ["../x", "a/../../x", "/etc/x", "..data", "..2026/x"])
def test_items_stay_in_their_volume(path: str) -> None:
    volume = {"configMap": {"name": "c", "items": [{"key": "k", "path": path}]}}
    with pytest.raises(VolumeError, match="leaves its volume"):
        files_of({}, volume, Inputs(lambda *_: config("c", {"k": "v"}), lambda _: ""))


def test_go_quoting() -> None:
    assert quote('a"\\\n\x01é\u200b\x7f') == '"a\\"\\\\\\n\\x01é\\u200b\\x7f"'


# --- changes


async def test_running_pods_see_changes_and_never_half_of_one(tmp_path: Path) -> None:
    async with world() as w, volumes_of(w) as volumes:
        await w.client.create(CONFIGMAPS, config("c", {"k": "1", "gone": "x"}))
        pod = await pod_with(
            w,
            {"name": "c", "configMap": {"name": "c"}},
            {"name": "later", "configMap": {"name": "later", "optional": True}},
            {"name": "d", "downwardAPI": {"items": [{"path": "l", "fieldRef": {"fieldPath": "metadata.labels"}}]}},
        )
        current = [pod]
        paths = await volumes.provide(pod, tmp_path)
        keeper = w.spawn(volumes.keep(lambda: current[0], tmp_path))
        first = os.readlink(paths["c"] / "..data")
        await asyncio.sleep(3)
        assert os.readlink(paths["c"] / "..data") == first  # nothing changed, nothing is written
        await w.client.update(CONFIGMAPS, config("c", {"k": "2"}))
        await w.client.create(CONFIGMAPS, config("later", {"new": "n"}))
        current[0] = {**pod, "metadata": {**pod["metadata"], "labels": {"a": "b"}}}
        await asyncio.sleep(2)
        assert tree(paths["c"]) == {"k": "2 644"}
        assert tree(paths["later"]) == {"new": "n 644"}
        assert (paths["d"] / "l").read_text() == 'a="b"'
        await w.client.delete(CONFIGMAPS, "later", "default")
        await w.client.delete(CONFIGMAPS, "c", "default")
        await asyncio.sleep(2)
        assert tree(paths["later"]) == {}
        assert tree(paths["c"]) == {"k": "2 644"}  # what is required and gone stays as it was
        await w.stop(keeper)
        assert volumes._objects.in_use == []


async def test_one_watch_for_each_object_in_use_and_none_for_immutable_ones(tmp_path: Path) -> None:
    async with world() as w, volumes_of(w) as volumes:
        await w.client.create(CONFIGMAPS, config("fixed", {"k": "1"}, immutable=True))
        await w.client.create(CONFIGMAPS, config("c", {"k": "1"}))
        both = [{"name": n, "configMap": {"name": n}} for n in ("fixed", "c")]
        options = {"volumes": both, "automountServiceAccountToken": False}
        pods = [await w.pod(name, "local", **options) for name in ("a", "b")]
        for pod in pods:
            await volumes.provide(pod, tmp_path / pod["metadata"]["name"])
        assert volumes._objects.watches == 1
        await w.client.update(CONFIGMAPS, config("c", {"k": "2"}, immutable=True))
        await asyncio.sleep(1)
        assert volumes._objects.watches == 0
        paths = await volumes.provide(pods[0], tmp_path / "a")
        assert tree(paths["c"]) == {"k": "2 644"}
        for pod in pods:
            await volumes.withdraw(pod["metadata"]["uid"], tmp_path)
        assert volumes._objects.in_use == []


def test_a_crash_between_any_two_steps_is_repaired_by_the_next_write(tmp_path: Path) -> None:
    """The link may be switched and the names not yet: both states, and rubbish that a container left, are mended."""
    old, new = {"a": File(b"1", 0o644), "b/c": File(b"1", 0o644)}, {"b/c": File(b"2", 0o600), "d": File(b"2", 0o644)}
    assert atomic.write(tmp_path, old)
    beside = tmp_path / "..glebe_7"
    beside.mkdir()
    (tmp_path / "..data_tmp").symlink_to("..glebe_7")
    assert atomic.write(tmp_path, new)
    assert tree(tmp_path) == {"b/c": "2 600", "d": "2 644"}
    (tmp_path / "d").unlink()
    (tmp_path / "a").symlink_to("..data/a")
    (tmp_path / "b").unlink()
    (tmp_path / "b").mkdir()
    assert not atomic.write(tmp_path, new)
    assert tree(tmp_path) == {"b/c": "2 600", "d": "2 644"}
    assert len(list(tmp_path.glob("..glebe_*"))) == 1


def test_a_link_in_a_volume_is_replaced_and_not_followed(tmp_path: Path) -> None:
    outside = tmp_path / "outside"
    outside.mkdir()
    (outside / "token").write_text("precious")
    volume = tmp_path / "v"
    atomic.write(volume, {"token": File(b"1", 0o400)})
    (volume / "token").unlink()
    (volume / "token").symlink_to(outside / "token")
    (volume / "..data").unlink()
    (volume / "..data").symlink_to(outside)
    atomic.write(volume, {"token": File(b"2", 0o400)})
    assert ((outside / "token").read_text(), tree(volume)) == ("precious", {"token": "2 400"})


class Issuer:
    def __init__(self) -> None:
        self.asked: list[tuple[float, Object]] = []
        self.env: Any = None

    def issue(self, cluster: str, service_account: Object, request: Object) -> Object:
        spec = request["spec"]
        self.asked.append((self.env.clock.now(), spec))
        end = format_time(self.env.clock.now() + spec["expirationSeconds"])
        return {**request, "status": {"token": f"t{len(self.asked)}", "expirationTimestamp": end}}


async def test_tokens_have_their_audience_and_are_renewed_at_four_fifths_of_their_life(tmp_path: Path) -> None:
    async with world() as w, volumes_of(w) as volumes:
        issuer = Issuer()
        issuer.env = w.env
        w.server.token_issuer = issuer
        meta = {"name": "default", "namespace": "default"}
        part = {"serviceAccountToken": {"path": "t", "audience": "vault", "expirationSeconds": 600}}
        pod = await pod_with(w, {"name": "v", "projected": {"sources": [part]}})
        with pytest.raises(VolumeError, match='serviceaccounts "default" not found'):
            await volumes.provide(pod, tmp_path)
        await w.client.create(SERVICE_ACCOUNTS, {"apiVersion": "v1", "kind": "ServiceAccount", "metadata": meta})
        start = w.env.clock.now()
        path = (await volumes.provide(pod, tmp_path))["v"]
        w.spawn(volumes.keep(pod, tmp_path))
        assert tree(path) == {"t": "t1 644"}
        assert issuer.asked[0][1]["audiences"] == ["vault"]
        await asyncio.sleep(460)
        assert tree(path) == {"t": "t1 644"}
        await asyncio.sleep(25)
        assert tree(path) == {"t": "t2 644"}
        assert 469 <= issuer.asked[1][0] - start <= 482


def test_a_token_is_for_its_only_user() -> None:
    def of(**more: Any) -> Object:
        return {"metadata": {"name": "p"}, "spec": {"containers": [{"name": "c"}], **more}}

    volume = {"projected": {"sources": [{"serviceAccountToken": {"path": "t"}}]}}
    inputs = Inputs(lambda *_: None, lambda _: "x")
    assert files_of(of(), volume, inputs)["t"] == File(b"x", 0o644, None)
    assert files_of(of(securityContext={"runAsUser": 7}), volume, inputs)["t"] == File(b"x", 0o600, 7)
    assert files_of(of(securityContext={"fsGroup": 7}), volume, inputs)["t"] == File(b"x", 0o600, None)
    assert common_user({"containers": [{"securityContext": {"runAsUser": 1}}, {}]}) is None


# --- paths of the machine


@pytest.mark.parametrize(
    ("kind", "made", "says"),
    [
        ("Directory", "file", "is not a directory"),
        ("File", "dir", "is not a file"),
        ("File", None, "is not a file"),
        ("Socket", "file", "is not a socket file"),
        ("CharDevice", "file", "is not a character device"),
        ("BlockDevice", "dir", "is not a block device"),
        ("DirectoryOrCreate", None, ""),
        ("", None, ""),
        ("", "file", ""),
        ("FileOrCreate", None, ""),
        ("Directory", "dir", ""),
        ("File", "file", ""),
    ],
)
async def test_types_of_host_paths(tmp_path: Path, kind: str, made: str | None, says: str) -> None:
    path = tmp_path / "x"
    if made:
        path.mkdir() if made == "dir" else path.touch()
    async with world() as w, volumes_of(w) as volumes:
        pod = await pod_with(w, {"name": "v", "hostPath": {"path": str(path), "type": kind}})
        if says:
            with pytest.raises(VolumeError, match=f"hostPath type check failed: {path} {says}"):
                await volumes.provide(pod, tmp_path / "pod")
        else:
            assert (await volumes.provide(pod, tmp_path / "pod"))["v"] == path
            assert path.is_dir() == (made != "file" if not kind else "Directory" in kind)


async def test_host_paths_only_where_they_are_allowed_links_or_not(tmp_path: Path) -> None:
    (tmp_path / "in").mkdir()
    (tmp_path / "in" / "way-out").symlink_to("/etc")
    spec = NodeSpec("local", {}, host_paths=(str(tmp_path / "in"),))
    async with world() as w:
        volumes = Volumes(w.client, w.env, spec)
        for name, path, fine in (("a", "in", True), ("b", "in/way-out", False), ("c", "inside", False)):
            pod = await w.pod(name, "local", volumes=[{"name": "v", "hostPath": {"path": str(tmp_path / path)}}])
            if fine:
                await volumes.provide(pod, tmp_path / name)
            else:
                with pytest.raises(VolumeError, match="not among the paths that this node lets pods have"):
                    await volumes.provide(pod, tmp_path / name)


async def test_sub_paths_are_made_expanded_and_stay_inside(tmp_path: Path) -> None:
    async with world() as w, volumes_of(w) as volumes:
        pod = await pod_with(w, {"name": "v", "emptyDir": {}})
        paths = await volumes.provide(pod, tmp_path)
        (paths["v"] / "out").symlink_to("/etc")
        (paths["v"] / "real").mkdir()
        (paths["v"] / "link").symlink_to("real")

        def source(env: dict[str, str], **mount: str) -> str:
            container = {"name": "c", "volumeMounts": [{"name": "v", "mountPath": "/m", **mount}]}
            return str(Path(volumes.mounts(container, paths, env)[0].source).relative_to(paths["v"]))

        assert source({}) == "."
        assert source({}, subPath="a/b") == "a/b"
        assert stat.S_IMODE((paths["v"] / "a").stat().st_mode) == 0o777  # as the volume itself
        assert source({}, subPath="link/x") == "real/x"
        assert source({"N": "pod-7"}, subPathExpr="$(N)/log") == "pod-7/log"
        for mount, says in (
            ({"subPath": "out/passwd"}, "not within volume path"),
            ({"subPath": "../x"}, "must not contain"),
            ({"subPath": "/etc"}, "must not be an absolute path"),
            ({"subPathExpr": "$(NONE)"}, 'missing value for "NONE"'),
        ):
            with pytest.raises(ConfigError, match=says):
                source({}, **mount)
        with pytest.raises(ConfigError, match="must not contain"):
            source({"N": ".."}, subPathExpr="$(N)/x")


async def test_only_what_may_be_written_is_writable(tmp_path: Path) -> None:
    async with world() as w, volumes_of(w) as volumes:
        await w.client.create(CONFIGMAPS, config("c", {"k": "v"}))
        pod = await pod_with(w, {"name": "c", "configMap": {"name": "c"}}, {"name": "e", "emptyDir": {}})
        paths = await volumes.provide(pod, tmp_path)
        mounts = [{"name": "c", "mountPath": "/c"}, {"name": "e", "mountPath": "/e"}]
        mounts += [{"name": "e", "mountPath": "/ro", "readOnly": True}]  # type: ignore[dict-item]
        made = volumes.mounts({"name": "c", "volumeMounts": mounts}, paths, {})
        assert [(m.target, m.read_only) for m in made] == [("/c", True), ("/e", False), ("/ro", True)]
        assert stat.S_IMODE(paths["e"].stat().st_mode) == 0o777


async def test_images_are_volumes_that_nobody_writes_to(tmp_path: Path) -> None:
    asked = []

    async def images(_: Object, source: dict[str, Any], secrets: list[Object]) -> Path:
        asked.append((source["reference"], [s["metadata"]["name"] for s in secrets]))
        if source["reference"] == "none":
            raise ImageError("ErrImagePull", "there is no such image")
        return tmp_path / "store" / "rootfs"

    (tmp_path / "store" / "rootfs" / "models").mkdir(parents=True)
    async with world() as w:
        await w.client.create(SECRETS, secret("pull", {"k": "v"}))
        volumes = Volumes(w.client, w.env, SPEC, images=images)
        pull = {"imagePullSecrets": [{"name": "pull"}, {"name": "absent"}]}
        pod = await pod_with(w, {"name": "v", "image": {"reference": "registry/model:1"}}, **pull)
        for _ in range(2):  # not pulled again for each start
            paths = await volumes.provide(pod, tmp_path / "pod")
        assert asked == [("registry/model:1", ["pull"])]
        mount = {"name": "v", "mountPath": "/m", "subPath": "models"}
        (made,) = volumes.mounts({"name": "c", "volumeMounts": [mount]}, paths, {})
        assert (made.source, made.read_only) == (str(tmp_path / "store" / "rootfs" / "models"), True)
        link = tmp_path / "pod" / "volumes" / "v"
        assert os.readlink(link) == str(tmp_path / "store" / "rootfs")  # what keeps the image from being collected
        bad = {**pod, "spec": {**pod["spec"], "volumes": [{"name": "w", "image": {"reference": "none"}}]}}
        with pytest.raises(VolumeError, match="there is no such image"):
            await volumes.provide(bad, tmp_path / "pod")
        volumes.close()


# --- groups, memory, limits


@root_only
async def test_volumes_belong_to_the_pods_group(tmp_path: Path) -> None:
    async with world() as w, volumes_of(w) as volumes:
        await w.client.create(SECRETS, secret("s", {"k": "v"}))
        pod = await pod_with(
            w,
            {"name": "s", "secret": {"secretName": "s", "defaultMode": 0o400}},
            {"name": "e", "emptyDir": {}},
            securityContext={"fsGroup": 1234},
        )
        paths = await volumes.provide(pod, tmp_path)
        assert tree(paths["s"]) == {"k": "v 440"}
        assert (paths["s"] / "k").stat().st_gid == 1234
        found = paths["e"].stat()
        assert (found.st_gid, stat.S_IMODE(found.st_mode)) == (1234, 0o2777)
        data = tmp_path / "data"
        (data / "sub").mkdir(parents=True, mode=0o700)
        (data / "sub" / "file").touch(mode=0o600)
        (data / "link").symlink_to("/etc/passwd")
        ownership.give(data, 55, read_only=False)
        assert stat.S_IMODE((data / "sub" / "file").stat().st_mode) == 0o660
        assert (data / "sub").stat().st_gid == 55
        assert os.stat("/etc/passwd").st_gid == 0
        assert ownership.belongs(data, 55, read_only=False)


async def test_an_empty_dir_over_its_limit_ends_the_pod(tmp_path: Path) -> None:
    async with world() as w, volumes_of(w) as volumes:
        pod = await pod_with(w, {"name": "e", "emptyDir": {"sizeLimit": "64Ki"}})
        path = (await volumes.provide(pod, tmp_path))["e"]
        (path / "f").write_bytes(b"x" * 50_000)
        assert usage.excess(pod, tmp_path) == ""
        (path / "sub").mkdir()
        (path / "sub" / "g").write_bytes(b"x" * 50_000)
        text = 'Usage of EmptyDir volume "e" exceeds the limit "64Ki". '
        assert usage.excess(pod, tmp_path) == text


def test_containers_over_their_ephemeral_storage(tmp_path: Path) -> None:
    def container(name: str, limit: str) -> dict[str, Any]:
        return {"name": name, "resources": {"limits": {"ephemeral-storage": limit}}}

    pod = {"spec": {"containers": [container("a", "64Ki"), container("b", "1Mi"), {"name": "c"}]}}
    for name in ("a", "b", "c", "volumes/e"):
        (tmp_path / name).mkdir(parents=True)
    (tmp_path / "b" / "log").write_bytes(b"x" * 100_000)
    (tmp_path / "b" / "link").symlink_to("/")
    assert usage.is_limited(pod)
    assert usage.excess(pod, tmp_path) == ""
    (tmp_path / "a" / "log").write_bytes(b"x" * 100_000)
    assert usage.excess(pod, tmp_path) == 'Container a exceeded its local ephemeral storage limit "64Ki". '
    (tmp_path / "volumes" / "e" / "f").write_bytes(b"x" * 2_000_000)
    text = "Pod ephemeral local storage usage exceeds the total limit of containers 1088Ki. "
    assert usage.excess(pod, tmp_path) == text
    assert not usage.is_limited({"spec": {"containers": [{"name": "c"}]}})


@root_only
def test_memory_is_a_tmpfs_and_leaves_nothing(tmp_path: Path) -> None:
    volumes = tmp_path / "volumes"
    (volumes / "m").mkdir(parents=True)
    if not memory.mount(volumes / "m", 1 << 20):
        pytest.skip("this machine lets nobody mount a tmpfs")
    try:
        assert memory.mount(volumes / "m", 1 << 20)
        assert memory.mounted_below(volumes) == [str(volumes / "m")]
        with pytest.raises(OSError, match="No space left"):
            (volumes / "m" / "f").write_bytes(bytes(2 << 20))
    finally:
        memory.unmount_all(volumes)
    assert memory.mounted_below(volumes) == []
    assert list((volumes / "m").iterdir()) == []


# --- claims


async def test_claims_on_this_node(tmp_path: Path) -> None:
    async with world() as w, volumes_of(w) as volumes:
        pod = await pod_with(w, {"name": "v", "persistentVolumeClaim": {"claimName": "data", "readOnly": True}})
        with pytest.raises(VolumeError, match='persistentvolumeclaim "data" not found'):
            await volumes.provide(pod, tmp_path)
        amount = {"storage": "1Gi"}
        spec = {"accessModes": ["ReadWriteOnce"], "resources": {"requests": amount}, "volumeName": "pv"}
        meta = {"name": "data", "namespace": "default", "annotations": {"pv.kubernetes.io/bind-completed": "yes"}}
        body = {"apiVersion": "v1", "kind": "PersistentVolumeClaim", "metadata": meta, "spec": spec}
        claim = await w.client.create(PERSISTENT_VOLUME_CLAIMS, body)
        await asyncio.sleep(1)
        with pytest.raises(VolumeError, match="PVC is not bound"):
            await volumes.provide(pod, tmp_path)
        await w.client.update_status(PERSISTENT_VOLUME_CLAIMS, {**claim, "status": {"phase": "Bound"}})

        def volume(host: str) -> Object:
            term = {"matchExpressions": [{"key": "kubernetes.io/hostname", "operator": "In", "values": [host]}]}
            reference = {"namespace": "default", "name": "data", "uid": claim["metadata"]["uid"]}
            return {
                "apiVersion": "v1",
                "kind": "PersistentVolume",
                "metadata": {"name": "pv"},
                "spec": {
                    "capacity": amount,
                    "accessModes": ["ReadWriteOnce"],
                    "claimRef": reference,
                    "local": {"path": str(tmp_path / "disk")},
                    "nodeAffinity": {"required": {"nodeSelectorTerms": [term]}},
                },
            }

        await w.client.create(VOLUMES, volume("local"))
        await asyncio.sleep(1)
        with pytest.raises(VolumeError, match=r'path ".*/disk" does not exist'):
            await volumes.provide(pod, tmp_path)
        (tmp_path / "disk").mkdir()
        paths = await volumes.provide(pod, tmp_path)
        assert paths["v"] == tmp_path / "disk"
        (made,) = volumes.mounts({"name": "c", "volumeMounts": [{"name": "v", "mountPath": "/d"}]}, paths, {})
        assert made.read_only
        elsewhere = Volumes(w.client, w.env, NodeSpec("other", {}, {"kubernetes.io/hostname": "other"}))
        with pytest.raises(VolumeError, match=r"NodeAffinity check failed: no matching NodeSelectorTerms"):
            await elsewhere.provide(pod, tmp_path)
        elsewhere.close()
        await w.client.delete(PODS, "p", "default", grace_period=0)
