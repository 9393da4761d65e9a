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
from glebe.apiserver.contracts import Allocator, Authenticator, Authorizer, Follower, Handler, Preparation, Reviewer
from glebe.apiserver.custom import removal as custom_kinds
from glebe.apiserver.custom.naming import DEFINITIONS
from glebe.apiserver.dialing import Dialer
from glebe.apiserver.discovery import health
from glebe.apiserver.fairness.gate import Gate
from glebe.apiserver.flight import Filter, Flight, Onward, chain
from glebe.apiserver.pods import operations as pods
from glebe.apiserver.pods.operations import PodLogs
from glebe.apiserver.proxying.locations import OwnKubelet
from glebe.apiserver.request import failures, media, replicas, routing, selection
from glebe.apiserver.request.call import Call, respond
from glebe.apiserver.request.routing import Route
from glebe.apiserver.services import advertising
from glebe.apiserver.services.allocation import ServiceAddresses
from glebe.apiserver.services.pools import SERVICES
from glebe.apiserver.store import EVERY_CLUSTER, Entry, Key, Store
from glebe.apiserver.store.ageing import Ageing
from glebe.apiserver.subresources import subresource_handler
from glebe.apiserver.types.registry import ResourceInfo, TypeRegistry
from glebe.apiserver.verbs import (
    admitting,
    componentstatus,
    deleting,
    eventexpiry,
    patching,
    reading,
    schema_steps,
    watching,
    writing,
)
from glebe.kube import errors
from glebe.kube.clock import Env, format_time
from glebe.kube.objects import Object
from glebe.kube.transport import Request, Response, User

if TYPE_CHECKING:
    from glebe.apiserver.audit.log import AuditLog
    from glebe.apiserver.metrics.serving import Metrics

_MASTERS = "system:masters"
_SELECTING = ("list", "watch")
_NAMED = ("update", "patch")
#: By group resource: what is answered in another way than from the store.
_ANSWERED: dict[str, Handler] = {
    "bindings": pods.bind_by_collection,
    "componentstatuses": componentstatus.read,
}
_DEPRECATED = {
    "componentstatuses": "v1 ComponentStatus is deprecated in v1.19+",
    "endpoints": "v1 Endpoints is deprecated in v1.33+; use discovery.k8s.io/v1 EndpointSlice",
}
#: Subresources whose answers are no objects: they come in the form that they have.
_UNFORMED = frozenset({"proxy", "exec", "attach", "portforward", "log"})
_VERBS: dict[str, Handler] = {
    "get": reading.get,
    "list": reading.list_objects,
    "watch": watching.watch,
    "create": writing.create,
    "update": writing.update,
    "patch": patching.patch,
    "delete": deleting.delete,
    "deletecollection": deleting.delete_collection,
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
        return await self._dispatch(flight, info)

    async def _dispatch(self, flight: Flight, info: ResourceInfo) -> Response:
        request, route = flight.request, flight.route
        if route.namespace and not info.namespaced and info.group_resource != "namespaces":
            raise errors.path_not_found()
        for given, what in ((route.name, "Name"), (route.namespace, "Namespace")):
            if given[:1] == "." or "%" in given:
                _check_segment(what, given)
        if info.group_resource in self.preparing:
            await self.preparing[info.group_resource](flight)
        accept = request.headers.get("accept", "") if route.subresource not in _UNFORMED else ""
        wanted = media.negotiate_for(accept, info.api_version, info.kind)
        if request.param("pretty") in ("true", "1"):
            wanted = media.Wanted(wanted.media, wanted.shape, wanted.version, True)
        call = Call(self, request, route, info, flight.user, wanted, flight.warnings, annotations=flight.annotations)
        if info.deprecation:
            call.warn(info.deprecation)
        call.tenant = flight.tenant
        try:
            return await self._perform(call)
        finally:
            admitting.settle(call, False)

    async def _perform(self, call: Call) -> Response:
        info, route = call.info, call.route
        if self.reviews is not None and self.reviews.handles(info.group, info.plural):
            return await self._review(call, self.reviews)
        if call.request.user is None and (text := _DEPRECATED.get(info.group_resource)) is not None:
            call.warn(text)
        if (answer := self.answered.get(info.group_resource)) is not None:
            return await answer(call)
        if route.subresource:
            response = await subresource_handler(call)(call)
            if info.group_resource == DEFINITIONS:
                await custom_kinds.clean_up(call)
            return response
        handler = (_VERBS if route.cluster != EVERY_CLUSTER else wildcard.VERBS).get(route.verb)
        if handler is None or (info.verbs and route.verb not in info.verbs):
            raise errors.method_not_allowed()
        if route.verb == "create" and (route.name or (info.custom is not None and info.custom.terminating)):
            raise errors.method_not_allowed()
        if info.namespaced and not route.namespace and route.verb not in ("list", "watch"):
            raise errors.method_not_allowed()
        if call.request.method == "HEAD" or (not route.name and route.verb in _NAMED):
            raise errors.method_not_allowed()
        response = await handler(call)
        if info.is_custom or info.group_resource == DEFINITIONS:
            await custom_kinds.clean_up(call)
        elif info.group_resource in eventexpiry.RESOURCES:
            await self.event_expiry.sweep()
        return response

    async def _review(self, call: Call, reviewer: Reviewer) -> Response:
        """A question instead of an object."""
        info, route = call.info, call.route
        if route.verb != "create":
            raise errors.method_not_allowed()
        if call.wanted.shape:
            raise media.not_acceptable()  # an answer is no object that has columns or metadata
        obj = writing.decode_body(call)
        schema_steps.prune(call, obj, call.duplicates)
        answer = await reviewer.review(info.group, info.plural, route.cluster, route.namespace, call.user, obj)
        return respond(answer, media.Wanted(call.wanted.media), 201)

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


def _check_segment(what: str, given: str) -> None:
    fault = routing.name_fault(given)
    if fault:
        raise errors.bad_request(f'{what} parameter invalid: "{given}": {fault}')
