"""Aggregated ClusterRoles show the rules that they hold.

The API server's authorizer does not wait for this; it is what ``kubectl get clusterrole admin -o yaml`` shows.
"""

from __future__ import annotations

from collections.abc import Iterable

from glebe.kube.client import Client
from glebe.kube.clock import Env
from glebe.kube.controller import Controller, Result
from glebe.kube.errors import ApiError, is_not_found
from glebe.kube.informer import Informers
from glebe.kube.objects import Object, ObjectKey, key_of
from glebe.kube.resources import CLUSTER_ROLES
from glebe.kube.selectors import LabelSelector


class AggregationController:
    """Fills ``rules`` of roles with an ``aggregationRule``."""

    def __init__(self, client: Client, informers: Informers, env: Env) -> None:
        self._client = client
        self._env = env
        self._roles = informers.get(CLUSTER_ROLES)
        self._of_cluster: dict[str, dict[ObjectKey, None]] = {}
        self._aggregated: dict[str, dict[ObjectKey, None]] = {}

    def controller(self) -> Controller:
        controller = Controller("roleaggregation", self.reconcile, self._env)
        self._roles.add_handler(self._note)
        controller.watch(self._roles, self._touched)
        return controller

    def _note(self, old: Object | None, new: Object | None) -> None:
        """Keep what there is by cluster, so that no role makes us look at all of them."""
        obj = new if new is not None else old
        assert obj is not None
        key = key_of(obj, self._roles.cluster)
        for index, belongs in (
            (self._of_cluster, new is not None),
            (self._aggregated, new is not None and _selectors(new)),
        ):
            if belongs:
                index.setdefault(key.cluster, {})[key] = None
            elif key in index.get(key.cluster, ()):
                del index[key.cluster][key]
                if not index[key.cluster]:
                    del index[key.cluster]

    def _touched(self, changed: Object) -> Iterable[ObjectKey]:
        """The aggregated roles of the same cluster that the changed role may be part of (and itself)."""
        own = key_of(changed, self._roles.cluster)
        for key in tuple(self._aggregated.get(own.cluster, ())):
            role = self._roles.store.get(key)
            if role is not None and (key == own or _selects(_selectors(role), changed)):
                yield key

    async def reconcile(self, key: ObjectKey) -> Result | None:
        role = self._roles.store.get(key)
        selectors = _selectors(role or {})
        if role is None or not selectors:
            return None
        rules: list[Object] = []
        for other in sorted(self._of_cluster.get(key.cluster, ())):
            part = self._roles.store.get(other)
            if part is not None and other != key and _selects(selectors, part):
                rules += [r for r in part.get("rules") or () if r not in rules]
        if rules == (role.get("rules") or []):
            return None
        try:
            await self._client.at(key.cluster).update(CLUSTER_ROLES, {**role, "rules": rules})
        except ApiError as error:
            if not is_not_found(error):
                raise
        return None


def _selectors(role: Object) -> list[Object]:
    return (role.get("aggregationRule") or {}).get("clusterRoleSelectors") or []


def _selects(selectors: Iterable[Object], role: Object) -> bool:
    labels = role["metadata"].get("labels") or {}
    return any(LabelSelector.from_object(s).matches(labels) for s in selectors)


def build(client: Client, informers: Informers, env: Env) -> Controller:
    """The controller of what ``client`` sees: one logical cluster, or all."""
    return AggregationController(client, informers, env).controller()
