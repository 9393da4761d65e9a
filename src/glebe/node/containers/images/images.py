"""The images of one node: what a pod names becomes a root directory, from here, from a layout or from a registry."""

from __future__ import annotations

import asyncio
import contextlib
import time
from collections.abc import Awaitable, Callable, Iterable, Mapping
from pathlib import Path
from typing import IO, Any

from glebe.node.containers.images import documents, layout, reference, secrets
from glebe.node.containers.images.documents import Descriptor, Manifest
from glebe.node.containers.images.errors import BrokenImage, ImageError, PullError
from glebe.node.containers.images.layout import Found
from glebe.node.containers.images.reference import Reference
from glebe.node.containers.images.registry import Credentials, Registry
from glebe.node.containers.images.store import Image, Store

Tell = Callable[[str, str, str], Awaitable[None]]  # (type, reason, message) of an event

_AT_ONCE = 3  # layers of one image
_DEPTH = 4  # indexes within indexes


class Images:
    """:param directory: the store. :param layouts: images that lie here (:mod:`.layout`).

    :param now: seconds since the epoch; :param size_bound: bytes that an image may have as it is pulled.
    """

    def __init__(self, directory: Path, layouts: Path, now: Callable[[], float], *, size_bound: int = 64 << 30) -> None:
        self.store = Store(directory, now)
        self._layouts = layouts
        self._size_bound = size_bound
        self._active = 0  # those who look for an image now
        self._order = asyncio.Lock()  # held while images are removed
        self._pulls: dict[tuple[str, tuple[Credentials, ...]], asyncio.Task[Image]] = {}

    async def ensure(self, name: str, policy: str, pull_secrets: Iterable[Mapping[str, Any]], tell: Tell) -> Image:
        """The image, ready to run, as the pull policy says (``Always``, ``IfNotPresent``, ``Never``).

        :param tell: takes the events of what goes well; failures are the caller's to tell.
        :raises ImageError: it cannot be had; its ``reason`` is the container's waiting reason.
        """
        async with self._order:
            self._active += 1
        try:
            return await self._ensure(name, policy, pull_secrets, tell)
        finally:
            self._active -= 1

    async def _ensure(self, name: str, policy: str, pull_secrets: Iterable[Mapping[str, Any]], tell: Tell) -> Image:
        wanted = reference.read(name)
        present = self.store.get(wanted) if policy != "Always" else None
        present = present or await self._local(wanted)  # looked at each time for "Always": it may be another by now
        if present is not None:
            self.store.used(wanted)
            await tell("Normal", "Pulled", f'Container image "{name}" already present on machine')
            return present
        if policy == "Never":
            raise ImageError("ErrImageNeverPull", f'Container image "{name}" is not present with pull policy of Never')
        await tell("Normal", "Pulling", f'Pulling image "{name}"')
        begin = time.monotonic()
        image = await self._merged(wanted, tuple(secrets.credentials(pull_secrets, wanted)))
        took = f"{(time.monotonic() - begin) * 1000:.0f}ms"
        text = (
            f'Successfully pulled image "{name}" in {took} ({took} including waiting). Image size: {image.size} bytes.'
        )
        await tell("Normal", "Pulled", text)
        return image

    async def collect(self, in_use: Iterable[Path], older_than: float) -> int:
        """Remove images as :meth:`Store.collect` does, but not while one is being made ready."""
        async with self._order:
            if self._active or self._pulls:
                return 0
            return await asyncio.to_thread(self.store.collect, in_use, older_than)

    async def _local(self, wanted: Reference) -> Image | None:
        """An image that lies in a layout; a damaged one counts as a failed pull."""
        found = await asyncio.to_thread(layout.find, self._layouts, wanted)
        return await asyncio.to_thread(self._take, wanted, found) if found is not None else None

    async def _merged(self, wanted: Reference, credentials: tuple[Credentials, ...]) -> Image:
        """Those who want the same with the same rights at the same time wait for one pull."""
        key = (str(wanted), credentials)
        task = self._pulls.get(key)
        if task is None:
            task = self._pulls[key] = asyncio.create_task(self._pull(wanted, credentials), name=f"pull {wanted}")
            task.add_done_callback(lambda done: self._pulled(key, done))
        return await asyncio.shield(task)

    def _pulled(self, key: tuple[str, tuple[Credentials, ...]], done: asyncio.Task[Image]) -> None:
        self._pulls.pop(key, None)
        if not done.cancelled():
            done.exception()  # whoever still waits is told; nobody may

    async def close(self) -> None:
        """Leave pulls; what has come is gone on with another time."""
        tasks = list(self._pulls.values())
        for task in tasks:
            task.cancel()
        for task in tasks:
            with contextlib.suppress(asyncio.CancelledError, Exception):
                await task

    # --- from a layout

    def _take(self, wanted: Reference, found: Found) -> Image:
        if found.root is not None:
            data = found.config.read_bytes() if found.config else b"{}"
            documents.config(documents.load(data))
            self.store.name_plain(wanted, found.root, data)
        else:
            assert found.layout is not None
            assert found.descriptor is not None
            self._take_layout(wanted, found.layout, found.descriptor)
        image = self.store.get(wanted)
        if image is None:
            raise PullError(f'"{wanted}" could not be unpacked')
        return image

    def _take_layout(self, wanted: Reference, source: layout.Layout, descriptor: Descriptor) -> None:
        digest = descriptor.digest
        for _ in range(_DEPTH):
            document = documents.load(source.read(descriptor))
            if not documents.is_index(document):
                break
            descriptor = documents.choose(document)
        manifest = documents.manifest(document)
        data = source.read(manifest.config)
        config = documents.config(documents.load(data))
        self.store.put(manifest.config.digest, data)

        def opened(layer: Descriptor) -> IO[bytes]:
            path = source.blob(layer.digest)
            try:
                return path.open("rb")
            except OSError as error:
                raise PullError(f"{layer.digest}: {error.strerror}") from error

        self.store.unpack(manifest, config, opened)
        self.store.name(wanted, manifest.config.digest, f"{wanted.name}@{digest}", _size(manifest))

    # --- from a registry

    async def _pull(self, wanted: Reference, credentials: tuple[Credentials, ...]) -> Image:
        import aiohttp  # here: most nodes never pull

        try:
            async with aiohttp.ClientSession(auto_decompress=False) as session:
                registry = Registry(session, wanted, self.store, list(credentials), self._size_bound)
                return await self._pull_from(registry, wanted)
        except (aiohttp.ClientError, TimeoutError, OSError) as error:
            raise PullError(f'failed to pull and unpack image "{wanted}": {error or type(error).__name__}') from error

    async def _pull_from(self, registry: Registry, wanted: Reference) -> Image:
        digest, document = await registry.manifest(wanted.selector)
        for _ in range(_DEPTH):
            if not documents.is_index(document):
                break
            _, document = await registry.manifest(documents.choose(document).digest)
        manifest = documents.manifest(document)
        if _size(manifest) > self._size_bound:
            raise BrokenImage(f'"{wanted}" has {_size(manifest)} bytes, more than this node takes')
        if manifest.config.size > documents.MAX_DOCUMENT:
            raise BrokenImage("the image's configuration is too large")
        await registry.blob(manifest.config)
        if not self.store.unpacked(manifest.config.digest):
            await self._bring_and_unpack(registry, manifest)
        self.store.name(wanted, manifest.config.digest, f"{wanted.name}@{digest}", _size(manifest))
        image = self.store.get(wanted)
        if image is None:
            raise PullError(f'"{wanted}" could not be unpacked')
        return image

    async def _bring_and_unpack(self, registry: Registry, manifest: Manifest) -> None:
        turns = asyncio.Semaphore(_AT_ONCE)

        async def bring(part: Descriptor) -> None:
            async with turns:
                await registry.blob(part)

        await _all(bring(part) for part in dict.fromkeys(manifest.layers))
        data = await asyncio.to_thread(self.store.blob(manifest.config.digest).read_bytes)
        config = documents.config(documents.load(data))
        await asyncio.to_thread(
            self.store.unpack, manifest, config, lambda layer: self.store.blob(layer.digest).open("rb")
        )
        if len(self._pulls) == 1:  # unpacked: not needed again, unless somebody is about to unpack it, too
            for layer in manifest.layers:
                self.store.blob(layer.digest).unlink(missing_ok=True)


async def _all(work: Iterable[Any]) -> None:
    """Side by side; the first failure ends the others."""
    tasks = [asyncio.ensure_future(one) for one in work]
    try:
        await asyncio.gather(*tasks)
    finally:
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)


def _size(manifest: Manifest) -> int:
    return manifest.config.size + sum(layer.size for layer in manifest.layers)
