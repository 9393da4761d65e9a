"""The volumes of a machine's pods: made before containers start, kept current while they run, removed after them.

What comes from the API (configMap, secret, downwardAPI, projected) is watched object by object and changes in running
pods within seconds; tokens are renewed in time. A volume that cannot be made says why in a :class:`VolumeError`.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
from collections.abc import Awaitable, Callable, Mapping
from pathlib import Path, PosixPath
from typing import Any, Final, TypeAlias

from glebe.kube.client import Client
from glebe.kube.clock import Env
from glebe.kube.errors import ApiError
from glebe.kube.informer import Informers
from glebe.kube.objects import Object
from glebe.kube.quantity import parse
from glebe.kube.resources import CONFIGMAPS, PERSISTENT_VOLUME_CLAIMS, SECRETS
from glebe.kube.storage import VOLUMES
from glebe.kube.transport import ConnectionLost
from glebe.node.contracts import ImageError, Mount, VolumeError
from glebe.node.spec import NodeSpec
from glebe.node.values import sources
from glebe.node.values.downward import ConfigError
from glebe.node.values.environment import Source, decode_secret
from glebe.node.values.objects import Objects, Ref
from glebe.node.values.tokens import Tokens
from glebe.node.volumes import atomic, hostpaths, memory, ownership, payload, subpaths, usage
from glebe.node.volumes import claims as claimed
from glebe.node.volumes.localpaths import LocalPaths

log = logging.getLogger("glebe.node")

TICK: Final = 1.0
"""Seconds between looks at what no watch tells: the pod's own fields, a token's age."""
MEASURE: Final = 10.0
"""Seconds between looks at how full emptyDirs with a limit are."""


#: (pod, ``image`` source, its pull secrets) -> root directory of the image.
RootOfImage: TypeAlias = Callable[[Object, dict[str, Any], list[Object]], Awaitable[Path]]


class Place(PosixPath):
    """Where a volume is. ``read_only``: containers may not write to it."""

    read_only: bool = False


def place(path: Path, *, read_only: bool = False) -> Place:
    made = Place(path)
    made.read_only = read_only
    return made


class Volumes:
    """All volumes of one node. A pod's are below ``POD_DIR/volumes``.

    :param claims: where volumes are made for claims; without it (and informers) this node makes none.
    :param images: the root directory of an image; without it there are no volumes of images.
    """

    def __init__(
        self,
        client: Client,
        env: Env,
        spec: NodeSpec,
        informers: Informers | None = None,
        claims: Path | None = None,
        images: RootOfImage | None = None,
    ) -> None:
        self._images = images
        self._client = client
        self._local = None
        if informers is not None and claims is not None:
            self._local = LocalPaths(client, informers, env, spec, claims)
        self._spec = spec
        self._objects = Objects(client, env)
        self._tokens = Tokens(client, env)
        self._places: dict[str, dict[str, Place]] = {}  # per uid: what is bound is not looked up again

    async def run(self) -> None:
        """Make volumes for claims, until cancelled; then end all watches."""
        try:
            async with asyncio.TaskGroup() as group:
                for controller in self._local.controllers if self._local is not None else ():
                    group.create_task(controller.run(), name=f"process node: {controller.name}")
                await asyncio.get_running_loop().create_future()
        finally:
            self.close()

    async def source(self, pod: Object) -> Source:
        """The ConfigMaps and Secrets that the pod's environment names, as they are now.

        :raises ApiError: one may not be read.
        """
        data: dict[tuple[str, str], Mapping[str, str]] = {("node", "allocatable"): self._spec.capacity}
        for kind, name in sources.references(pod):
            obj = await self._read(pod, kind, name)
            if obj is not None:
                data[kind, name] = decode_secret(obj) if kind == "secret" else obj.get("data") or {}
        return lambda kind, name: data.get((kind, name))

    async def provide(self, pod: Object, pod_dir: Path, source: Source | None = None) -> dict[str, Path]:
        """Make the pod's volumes, or find them made; name -> directory (or file). To be called before each start.

        ``pod`` has the addresses in its status that its containers are to see.

        :raises VolumeError: a volume cannot be made as it is written (yet).
        :raises ApiError: what it is made from may not be read.
        """
        out: dict[str, Path] = {}
        for volume in pod["spec"].get("volumes") or ():
            name = volume["name"]
            try:
                out[name] = await self._provide(pod, volume, pod_dir / "volumes" / name)
            except (VolumeError, ConfigError, ImageError, OSError) as error:
                raise VolumeError(f'MountVolume.SetUp failed for volume "{name}" : {error}') from error
            except ApiError as error:
                # E.g. the account is not there yet, or a Secret may not be read: said like everything else.
                raise VolumeError(f'MountVolume.SetUp failed for volume "{name}" : {error.message}') from error
        return out

    def mounts(self, container: dict[str, Any], paths: Mapping[str, Path], env: Mapping[str, str]) -> tuple[Mount, ...]:
        """What is to appear where in the container; ``env`` is for ``subPathExpr``.

        :raises ConfigError: a mount names no volume, or leaves it.
        """
        out = []
        for mount in container.get("volumeMounts") or ():
            root = paths.get(mount["name"])
            if root is None:
                raise ConfigError(f'cannot find volume "{mount["name"]}" to mount into container "{container["name"]}"')
            part = subpaths.sub_path(mount, env)
            path = subpaths.resolve(root, part) if part else root
            read_only = bool(mount.get("readOnly")) or getattr(root, "read_only", False)
            out.append(Mount(str(path), mount["mountPath"], read_only))
        return tuple(out)

    async def keep(self, pod: Object | Callable[[], Object], pod_dir: Path) -> str:
        """Keep what was provided current (``pod()`` is the pod as it is now), until cancelled.

        Returns only when the pod must go: why, in the words of its status.
        """
        see = pod if callable(pod) else lambda: pod
        first = see()
        uid = first["metadata"]["uid"]
        made = [v for v in first["spec"].get("volumes") or () if any(kind in v for kind in payload.KINDS)]
        updating = asyncio.create_task(self._update(see, made, pod_dir), name=f"volumes of {_name(first)}")
        try:
            return await self._mind_limits(first, pod_dir)
        finally:
            updating.cancel()
            await asyncio.gather(updating, return_exceptions=True)
            self._forget(uid)

    async def withdraw(self, uid: str, pod_dir: Path) -> None:
        """Undo what removing the pod's directory would not undo. Nothing of the pod runs any more."""
        self._forget(uid)
        memory.unmount_all(pod_dir / "volumes")

    def close(self) -> None:
        """End all watches."""
        self._objects.close()

    # --- one volume

    async def _provide(self, pod: Object, volume: dict[str, Any], path: Path) -> Path:
        if "hostPath" in volume:
            return place(hostpaths.find(volume["hostPath"], self._spec.host_paths))
        if "emptyDir" in volume:
            return self._empty_dir(pod, volume["emptyDir"], path)
        if "image" in volume and self._images is not None:
            return await self._image(pod, volume, path)
        if claimed.claim_name(pod, volume):
            return await self._claimed(pod, volume)
        if not any(kind in volume for kind in payload.KINDS):
            raise VolumeError(claimed.unsupported(volume, "it"))
        await self._write(pod, volume, path)
        return place(path, read_only=True)

    def _empty_dir(self, pod: Object, options: dict[str, Any], path: Path) -> Path:
        if not path.exists():
            path.mkdir(parents=True)
            path.chmod(0o777)
        if options.get("medium") == "Memory":
            limit = parse(options.get("sizeLimit") or "0")
            memory.mount(path, int(limit) or None)
        group = ownership.group_of(pod["spec"])
        if group is not None and not ownership.belongs(path, group, read_only=False):
            ownership.give(path, group, read_only=False)
        return place(path)

    async def _image(self, pod: Object, volume: dict[str, Any], path: Path) -> Path:
        """The content of an image. A link beside the pod's other volumes says that the image is in use."""
        assert self._images is not None
        places = self._places.setdefault(pod["metadata"]["uid"], {})
        known = places.get(volume["name"])
        if known is not None and known.exists():
            return known
        names = [item.get("name", "") for item in pod["spec"].get("imagePullSecrets") or ()]
        secrets = [found for name in names if (found := await self._read(pod, "secret", name)) is not None]
        root = await self._images(pod, volume["image"], secrets)
        _link(path, root)
        places[volume["name"]] = place(root, read_only=True)
        return places[volume["name"]]

    async def _claimed(self, pod: Object, volume: dict[str, Any]) -> Path:
        uid, name = pod["metadata"]["uid"], volume["name"]
        known = self._places.get(uid, {}).get(name)
        if known is not None and known.exists():
            return known
        namespace = pod["metadata"]["namespace"]
        wanted = Ref(PERSISTENT_VOLUME_CLAIMS, namespace, claimed.claim_name(pod, volume))
        claim = await self._objects.read(uid, wanted)
        bound = claimed.bound_volume(pod, volume, claim)
        assert claim is not None
        found = await self._objects.read(uid, Ref(VOLUMES, "", bound))
        path = claimed.path_of(found, claim, self._spec.labels, self._spec.host_paths)
        group = ownership.group_of(pod["spec"])
        policy = (pod["spec"].get("securityContext") or {}).get("fsGroupChangePolicy")
        keep = policy == "OnRootMismatch" and group is not None and ownership.belongs(path, group, read_only=False)
        if group is not None and not keep and "ReadWriteOnce" in " ".join(claim["spec"].get("accessModes") or ()):
            await asyncio.to_thread(ownership.give, path, group, read_only=False)
        made = place(path, read_only=bool((volume.get("persistentVolumeClaim") or {}).get("readOnly")))
        self._places.setdefault(uid, {})[name] = made
        return made

    async def _write(self, pod: Object, volume: dict[str, Any], path: Path) -> bool:
        """Make a volume's content what the API says; whether it changed."""
        read = {}
        for resource, name in payload.references(volume):
            kind = "configmap" if resource is CONFIGMAPS else "secret"
            read[kind, name] = await self._read(pod, kind, name)
        tokens = {}
        for part in payload.token_sources(volume):
            tokens[id(part)] = (await self._tokens.get(pod, part)).text
        bundles = (await self._client.list(payload.BUNDLES)).items if payload.wants_bundles(volume) else []
        inputs = payload.Inputs(
            read=lambda kind, name: read.get((kind, name)),
            token=lambda part: tokens.get(id(part), ""),
            bundles=lambda: bundles,
            allocatable=self._spec.capacity,
        )
        files = payload.files_of(pod, volume, inputs)
        group = ownership.group_of(pod["spec"])
        if group is None:
            return atomic.write(path, files)
        changed = atomic.write(path, files, lambda new: ownership.give(new, group, read_only=True))
        ownership.give_one(path, group, read_only=True)
        return changed

    async def _read(self, pod: Object, kind: str, name: str) -> Object | None:
        resource = CONFIGMAPS if kind == "configmap" else SECRETS
        meta = pod["metadata"]
        return await self._objects.read(meta["uid"], Ref(resource, meta["namespace"], name))

    # --- while the pod lives

    async def _update(self, see: Callable[[], Object], volumes: list[dict[str, Any]], pod_dir: Path) -> None:
        if not volumes:
            return
        news = self._objects.news(see()["metadata"]["uid"])
        news.set()  # what changed before this began, or while another agent was away
        renewed = [v for v in volumes if payload.token_sources(v) or payload.wants_bundles(v)]
        seen = _own_facts(see())
        while True:
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(TICK):
                    await news.wait()
            pod, facts = see(), _own_facts(see())
            due = volumes if news.is_set() or facts != seen else renewed
            news.clear()
            seen = facts
            for volume in due:
                path = pod_dir / "volumes" / volume["name"]
                if not (path / atomic.DATA).is_symlink():
                    continue  # it was never made: the next start does that, and tells what is missing
                try:
                    await self._write(pod, volume, path)
                except (VolumeError, ApiError, ConnectionLost, OSError) as error:
                    log.warning('pod %s: volume "%s" keeps its old content: %s', _name(pod), volume["name"], error)

    async def _mind_limits(self, pod: Object, pod_dir: Path) -> str:
        if not usage.is_limited(pod):
            await asyncio.get_running_loop().create_future()
        while True:
            await asyncio.sleep(MEASURE)
            problem = await asyncio.to_thread(usage.excess, pod, pod_dir)
            if problem:
                return problem

    def _forget(self, uid: str) -> None:
        self._objects.release(uid)
        self._tokens.release(uid)
        self._places.pop(uid, None)


def _link(path: Path, target: Path) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.unlink(missing_ok=True)
    path.symlink_to(target)


def _own_facts(pod: Object) -> tuple[Any, ...]:
    """What a downwardAPI volume shows and may change."""
    meta = pod["metadata"]
    resources = [container.get("resources") for container in pod["spec"].get("containers") or ()]
    return meta.get("labels"), meta.get("annotations"), resources


def _name(pod: Object) -> str:
    return f"{pod['metadata']['namespace']}/{pod['metadata']['name']}"
