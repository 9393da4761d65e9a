"""Logical clusters: their register, their first namespaces, their custom kinds."""

from __future__ import annotations

import contextlib
import re
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING

import orjson

from glebe.apiserver.request import media
from glebe.apiserver.request.routing import ROOT
from glebe.apiserver.store import Entry, Key, Make, Mismatch
from glebe.apiserver.verbs.namespaces import DEFAULT
from glebe.kube import errors
from glebe.kube.objects import Object
from glebe.kube.transport import Request, Response, User

if TYPE_CHECKING:
    from glebe.apiserver.server import ApiServer

#: Where the register itself is stored: a cluster that no path can name.
_REGISTER = ("clusters.glebe.dev", "")
_NAME = re.compile(r"[a-z0-9]([-a-z0-9]{0,61}[a-z0-9])?")
_CRDS = "customresourcedefinitions.apiextensions.k8s.io"


class Clusters:
    """The logical clusters of one server."""

    def __init__(self, server: ApiServer, initial: Sequence[str]) -> None:
        self._server = server
        self._initial = initial
        self._uids: dict[str, str] = {}
        self._created: list[Callable[[str], None]] = []
        self._deleted: list[Callable[[str], None]] = []

    def on_create(self, callback: Callable[[str], None]) -> None:
        """Call ``callback(name)`` for each cluster that comes into being from now on (also those found at the start).

        It must be quick and must not raise; the cluster is visible already.
        """
        self._created.append(callback)

    def on_delete(self, callback: Callable[[str], None]) -> None:
        """Call ``callback(name)`` when a cluster goes out of sight: drop what you keep for it."""
        self._deleted.append(callback)

    def uid(self, name: str) -> str:
        """The uid of the LogicalCluster, "" when there is none: a cluster created anew has another one."""
        return self._uids.get(name, "")

    def _appear(self, name: str, uid: str) -> None:
        self._uids[name] = uid
        for callback in self._created:
            callback(name)

    def _vanish(self, name: str) -> None:
        del self._uids[name]
        for callback in self._deleted:
            callback(name)

    async def start(self) -> None:
        """Read the register, create what the server was told to have, serve the custom kinds that are stored."""
        for entry in self._server.store.range(*_REGISTER).entries:
            meta = entry.view()["metadata"]
            self._appear(meta["name"], meta["uid"])
        for name in self.names():
            await self._complete(name)
        for name in self._initial:
            if name not in self._uids:
                await self.create(name)
        for name in self.names():
            for entry in self._server.store.range(_CRDS, name).entries:
                self.custom_kind_changed(name, entry, None)

    def exists(self, name: str) -> bool:
        return name in self._uids

    def names(self) -> list[str]:
        return sorted(self._uids)

    async def create(self, name: str) -> Object:
        """Register a cluster and give it its first namespaces.

        :raises ApiError: 409 when it exists, 422 for a bad name.
        """
        if not _NAME.fullmatch(name):
            why = "a cluster's name is a DNS label: lower case letters, digits and '-', at most 63"
            cause = errors.Cause("FieldValueInvalid", f'Invalid value: "{name}": {why}', "metadata.name")
            raise errors.invalid("glebe.dev", "LogicalCluster", name, [cause])
        server = self._server
        obj: Object = {
            "apiVersion": "glebe.dev/v1alpha1",
            "kind": "LogicalCluster",
            "metadata": {"name": name, "uid": server.env.new_uid(), "creationTimestamp": server.now_text()},
        }
        try:
            entry = await server.store.put(Key(*_REGISTER, "", name), _stamped(obj), 0)
        except Mismatch:
            raise errors.already_exists("glebe.dev", "clusters", name) from None
        # What an earlier cluster of this name may have left (a write that was on its way when it was deleted) must not
        # be found by this one.
        if server.store.resources(name):
            await server.store.drop(name)
        await self._complete(name)
        self._appear(name, obj["metadata"]["uid"])
        return entry.load()

    async def _complete(self, name: str) -> None:
        """Make the first namespaces, unless they are there: a creation may have been interrupted half way."""
        for namespace in DEFAULT:
            if self._server.store.get(Key("namespaces", name, "", namespace)) is None:
                await self._create_namespace(name, namespace)

    async def _create_namespace(self, cluster: str, name: str) -> None:
        meta = {
            "name": name,
            "uid": self._server.env.new_uid(),
            "creationTimestamp": self._server.now_text(),
            "labels": {"kubernetes.io/metadata.name": name},
        }
        obj = {
            "apiVersion": "v1",
            "kind": "Namespace",
            "metadata": meta,
            "spec": {"finalizers": ["kubernetes"]},
            "status": {"phase": "Active"},
        }
        with contextlib.suppress(Mismatch):
            await self._server.store.put(Key("namespaces", cluster, "", name), _stamped(obj), 0)

    async def delete(self, name: str) -> None:
        """Forget a cluster with everything in it.

        :raises ApiError: 404; 403 for the root cluster.
        """
        if name not in self._uids:
            raise errors.not_found("glebe.dev", "clusters", name)
        if name == ROOT:
            raise errors.forbidden("glebe.dev", "clusters", name, "the root cluster may not be deleted")
        server = self._server
        # Out of sight first: nothing new may come in while its content goes.
        self._vanish(name)
        await server.store.drop(name)
        key = Key(*_REGISTER, "", name)
        entry = server.store.get(key)
        if entry is not None:
            await server.store.delete(key, _stamped(entry.load()), None)
        server.registry.remove_cluster(name)

    def custom_kind_changed(self, cluster: str, entry: Entry | None, previous: Entry | None) -> None:
        """Serve (or stop serving) what a CustomResourceDefinition declares."""
        if entry is not None:
            self._server.registry.set_crd(cluster, entry.load())
        elif previous is not None:
            self._server.registry.remove_crd(cluster, previous.load())

    async def serve(self, request: Request, user: User) -> Response:
        """``/clusters`` and ``/clusters/NAME``."""
        if "system:masters" not in user.groups:
            raise errors.forbidden(
                "glebe.dev", "clusters", "", "only members of system:masters manage logical clusters"
            )
        name = request.path[len("/clusters/") :]
        if request.method == "GET" and not name:
            return self._list()
        if request.method == "GET":
            entry = self._server.store.get(Key(*_REGISTER, "", name))
            if entry is None:
                raise errors.not_found("glebe.dev", "clusters", name)
            return _answer(entry.load())
        if request.method == "POST" and not name:
            body = media.decode(request.body, request.headers.get("content-type", ""))
            asked = (body.get("metadata") or {}).get("name") or body.get("name") or ""
            return _answer(await self.create(str(asked)), 201)
        if request.method == "DELETE" and name:
            await self.delete(name)
            return _answer({"kind": "Status", "apiVersion": "v1", "metadata": {}, "status": "Success"})
        raise errors.method_not_allowed()

    def _list(self) -> Response:
        page = self._server.store.range(*_REGISTER)
        meta = {"resourceVersion": str(page.revision)}
        items = [e.load() for e in page.entries]
        body = {"apiVersion": "glebe.dev/v1alpha1", "kind": "LogicalClusterList", "metadata": meta, "items": items}
        return _answer(body)


def _stamped(obj: Object) -> Make:
    def make(revision: int) -> bytes:
        obj["metadata"]["resourceVersion"] = str(revision)
        return orjson.dumps(obj)

    return make


def _answer(obj: Object, code: int = 200) -> Response:
    return Response(code, {"content-type": media.JSON}, orjson.dumps(obj))
