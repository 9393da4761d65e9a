"""The API server: one coroutine from request to response."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import TYPE_CHECKING

from glebe.apiserver import assembly
from glebe.apiserver.admission.base import AdmissionPlugin, ValidatingPlugin
from glebe.apiserver.aggregation import presence
from glebe.apiserver.auth import impersonation
from glebe.apiserver.auth.tokenrequest import TokenIssuer
from glebe.apiserver.clusters import Clusters, archives, wildcard
from glebe.apiserver.clusters import serving as logical_clusters
from glebe.apiserver.clusters.firstobjects import first_objects
from glebe.apiserver.contracts import (
    Allocator,
    Authenticator,
    Authorizer,
    Converter,
    Follower,
    Handler,
    Preparation,
    Reviewer,
)
from glebe.apiserver.custom import removal as custom_kinds
from glebe.apiserver.custom.naming import DEFINITIONS
from glebe.apiserver.dialing import Dialer
from glebe.apiserver.discovery import health
from glebe.apiserver.fairness.gate import Gate
from glebe.apiserver.flight import Filter, Flight, Onward, chain
from glebe.apiserver.pods import operations as pods
from glebe.apiserver.pods.operations import PodLogs
from glebe.apiserver.proxying.locations import OwnKubelet
from glebe.apiserver.request import failures, replicas, routing, selection
from glebe.apiserver.request.call import Call
from glebe.apiserver.request.routing import Route
from glebe.apiserver.services import advertising
from glebe.apiserver.services.allocation import ServiceAddresses
from glebe.apiserver.services.pools import SERVICES
from glebe.apiserver.store import EVERY_CLUSTER, Entry, Key, Store
from glebe.apiserver.store.ageing import Ageing
from glebe.apiserver.types.registry import TypeRegistry
from glebe.apiserver.verbs import admitting, componentstatus, dispatching, eventexpiry
from glebe.kube import errors
from glebe.kube.clock import Env, format_time
from glebe.kube.objects import Object
from glebe.kube.transport import Request, Response, User

if TYPE_CHECKING:
    from glebe.apiserver.audit.log import AuditLog
    from glebe.apiserver.metrics.serving import Metrics

_MASTERS = "system:masters"
_SELECTING = ("list", "watch")
#: By group resource: what is answered in another way than from the store.
_ANSWERED: dict[str, Handler] = {
    "bindings": pods.bind_by_collection,
    "componentstatuses": componentstatus.read,
}


class ApiServer:
    """Serves many logical clusters from one store.

    :param authenticator: None means that only trusted transports (which set ``Request.user``) are served.
    :param authorizer: None means that everyone who is known may do everything.
    """

    def __init__(
        self,
        store: Store,
        env: Env,
        registry: TypeRegistry,
        *,
        authenticator: Authenticator | None = None,
        authorizer: Authorizer | None = None,
        admission: Sequence[AdmissionPlugin] = (),
        pod_logs: PodLogs | None = None,
        token_issuer: TokenIssuer | None = None,
        clusters: Sequence[str] = (routing.ROOT,),
    ) -> None:
        self.store = store
        self.env = env
        self.registry = registry
        self.authenticator = authenticator
        self.authorizer = authorizer
        self.given_admission = tuple(admission)
        self.admission: tuple[AdmissionPlugin, ...] = ()
        self.validating: tuple[ValidatingPlugin, ...] = ()
        self.filters: tuple[Filter, ...] = ()
        """Around authorization, outermost first (:mod:`glebe.apiserver.flight`)."""
        self.inner_filters: tuple[Filter, ...] = ()
        """Between authorization and the server's own answer."""
        self.allocators: dict[str, Allocator] = {SERVICES: ServiceAddresses(self)}
        """By group resource: gives objects what there is only once, such as addresses."""
        self.followers: tuple[Follower, ...] = ()
        """Told of every acknowledged write; they must be quick and must not raise."""
        self.preparing: dict[str, Preparation] = {}
        """By group resource: awaited before a request for it is served."""
        self.paths: dict[str, Callable[[Flight], Response]] = {}
        """What is served at paths that are no resource's, in every cluster (the issuer's keys)."""
        self.refused: Callable[[Request, Route, User | None, errors.ApiError], None] | None = None
        """Told of requests that end before the filters: nobody believed who asks, or for whom (audit)."""
        self.advertised = advertising.DEFAULT
        """(address, port) at which clusters find this server; set it before the start, or see ``advertise``."""
        self.pod_logs = pod_logs
        self.kubelet_identity: tuple[bytes, bytes] | None = None
        """PEM of the certificate and key by which kubelets know this server."""
        self.answered: dict[str, Handler] = dict(_ANSWERED)
        """By group resource: what is answered in another way than from the store (``TypeRegistry.attach``)."""
        self.converters: dict[tuple[str, str], Converter] = {}
        """By (namespace, name) of a service: conversion webhooks that this process itself is."""
        self.own_kubelets: dict[tuple[str, str], OwnKubelet] = {}
        """By (cluster, node): servers of nodes that run in this process."""
        self.own_address: Callable[[str, str], str] | None = None
        """(cluster, uid of a pod) -> the address that a node of this process gave it, "" for others."""
        self.front_proxy: tuple[bytes, bytes] = (b"", b"")
        """PEM of the certificate and key by which servers behind aggregation know this one."""
        self.token_issuer = token_issuer
        self.reviews: Reviewer | None = None
        self.clusters = Clusters(self, clusters)
        self.ageing = Ageing(store)
        self.dialer = Dialer(self)
        self.event_expiry = eventexpiry.EventExpiry(store, env)
        self.metrics: Metrics | None = None
        self.audit_log: AuditLog | None = None
        self.gate: Gate | None = None
        """Fairness, once assembled."""
        self._chains: tuple[tuple[Filter, ...], Onward, tuple[Filter, ...], Onward] | None = None
        self.ready = False
        self._now = ("", -1)
        self.concerned: dict[str, admitting.Concerned] = {}
        self.on_close: tuple[Callable[[], None], ...] = ()
        """Called before the store closes: whoever works on his own stops."""
        self.assembled: tuple[object, ...] = ()
        """What :mod:`glebe.apiserver.assembly` has put in."""
        assembly.complete(self)

    async def start(self) -> None:
        """Open the store and register the clusters given at construction."""
        await self.store.start()
        self.store.follow(DEFINITIONS, lambda event: custom_kinds.definition_changed(self, event))
        self.clusters.first_objects = (*self.clusters.first_objects, *first_objects(*self.advertised))
        await self.clusters.start()
        self.event_expiry.load()
        await custom_kinds.resume(self)
        if self.gate is not None:
            self.gate.follow()
        presence.begin(self)
        self.ageing.start()
        self.ready = True

    async def close(self) -> None:
        """End all watches and close the store."""
        self.ready = False
        for stop in self.on_close:
            stop()
        if self.gate is not None:
            self.gate.close()
        await self.ageing.close()
        await self.dialer.close()
        await self.clusters.close()
        await self.store.close()

    # -- for the rooms inside the server -------------------------------------------------------------------------

    def now_text(self) -> str:
        """The present as ``metav1.Time``; formatted once per second."""
        now = int(self.env.clock.now())
        if now != self._now[1]:
            self._now = (format_time(now), now)
        return self._now[0]

    def read(self, cluster: str, group_resource: str, namespace: str, name: str) -> Object | None:
        """A stored object, shared: read only."""
        entry = self.store.get(Key(group_resource, cluster, namespace, name))
        return None if entry is None else entry.view()

    def read_all(self, cluster: str, group_resource: str, namespace: str | None = None) -> list[Object]:
        """All stored objects of a resource, shared: read only."""
        return [e.view() for e in self.store.range(group_resource, cluster, namespace or "").entries]

    def written(self, call: Call, entry: Entry | None, previous: Entry | None) -> None:
        """A write was acknowledged (``entry`` None: deleted): follow it up inside the server."""
        resource = call.info.group_resource
        if resource in eventexpiry.RESOURCES and entry is not None and previous is None:
            self.event_expiry.note(call.key(entry.view()["metadata"]["name"]))
        for follower in self.followers:
            follower(call, entry, previous)

    # -- requests -------------------------------------------------------------------------------------------------

    async def handle(self, request: Request) -> Response:
        """Answer one request; never raises for anything a client can cause."""
        warnings: list[str] = []
        try:
            if self.store.lags:
                response = await replicas.serve(self.store, request, warnings, self._route)
            else:
                response = await self._route(request, warnings)
        except Exception as error:
            response = failures.answer(request, error)
        if warnings:
            response.headers["warning"] = failures.warning_header(warnings)
        if response.status >= 400:
            failures.as_asked(request, response)
        return response

    async def _route(self, request: Request, warnings: list[str]) -> Response:
        route = routing.parse(request)
        if not route.resource and health.is_health(route.path):
            return health.answer(self, route.path, request)
        flight = await self._identify(request, route)
        flight.warnings = warnings
        return await self._chain()[1](flight)

    def _chain(self) -> tuple[tuple[Filter, ...], Onward, tuple[Filter, ...], Onward]:
        """The filters as coroutines, made anew only when there are others."""
        made = self._chains
        if made is None or made[0] is not self.filters or made[2] is not self.inner_filters:
            outer, inner = chain(self.filters, self._authorized), chain(self.inner_filters, self._serve)
            made = self._chains = (self.filters, outer, self.inner_filters, inner)
        return made

    async def _authorized(self, flight: Flight) -> Response:
        await self._authorize(flight.user, flight.route, flight)
        flight.allowed = True
        return await self._chain()[3](flight)

    async def _serve(self, flight: Flight) -> Response:
        """The server's own answer to a request that may be asked."""
        route, request = flight.route, flight.request
        if not route.cluster or request.path == "/clusters":
            return await logical_clusters.serve(self, request, flight.user)
        flight.tenant = self.clusters.get(route.cluster)
        if flight.tenant is None and route.cluster != EVERY_CLUSTER:  # said last: strangers do not learn who is there
            raise errors.not_found("glebe.dev", "clusters", route.cluster)
        if not route.resource:
            if request.path == archives.PATH:
                return await archives.serve(self, flight)
            if route.path in self.paths and request.method == "GET":
                return self.paths[route.path](flight)
            return await self._discovery(request, route)
        info = self.registry.lookup(route.cluster, route.group, route.version, route.resource)
        if info is None:
            raise errors.path_not_found()
        if route.cluster == EVERY_CLUSTER:
            wildcard.check_route(route)
        return await dispatching.dispatch(self, flight, info)

    async def _identify(self, request: Request, route: Route) -> Flight:
        """Who asks, and on whose behalf.

        :raises ApiError: 401; 403 when somebody may not act for whom he names.
        """
        if request.user is not None:
            return Flight(request, route, request.user)
        if self.authenticator is None:
            raise errors.unauthorized()
        user = await self.authenticator.authenticate(request, route.cluster)
        if user is None:
            unknown = errors.unauthorized()
            if self.refused is not None:
                self.refused(request, route, None, unknown)
            raise unknown
        if route.cluster == EVERY_CLUSTER:
            wildcard.check_user(user)
        if impersonation.is_asked(request.headers):
            try:
                effective = await impersonation.effective_user(request, user, route.cluster, self.authorizer)
            except errors.ApiError as error:
                if self.refused is not None:
                    self.refused(request, route, user, error)
                raise
            return Flight(request, route, effective, user)
        return Flight(request, route, user)

    async def require(self, call: Call, verb: str) -> None:
        """The caller must also have the right to ``verb`` (a PUT or an apply that turns out to create).

        :raises ApiError: 403.
        """
        await self._authorize(call.user, replace(call.route, verb=verb))

    async def _authorize(self, user: User, route: Route, flight: Flight | None = None) -> None:
        if self.authorizer is None or _MASTERS in user.groups:
            return
        fields, name = "", route.name
        if flight is not None and route.verb in _SELECTING and flight.request.query:
            fields = flight.request.param("fieldSelector")
            name = name or selection.pinned_name(fields)
        allowed, reason = await self.authorizer.authorize(
            user,
            route.cluster,
            route.verb,
            route.group,
            route.resource,
            route.subresource,
            route.namespace,
            name,
            "" if route.resource else route.path,
            fields,
        )
        if flight is not None:
            flight.reason = reason
        if not allowed:
            raise failures.denied(user, route, reason)

    async def _discovery(self, request: Request, route: Route) -> Response:
        from glebe.apiserver.discovery.browsing import browse  # late: discovery and OpenAPI are big and rarely asked

        return await browse(self, request, route)
