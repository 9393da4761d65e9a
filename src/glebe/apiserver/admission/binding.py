"""Policies, their bindings and their parameters: what both kinds of policies share."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Generic, TypeVar

from glebe.apiserver.admission.base import AdmissionAttributes
from glebe.apiserver.admission.matching import Matcher
from glebe.apiserver.admission.registrations import Shared
from glebe.apiserver.types.registry import ResourceInfo
from glebe.kube.objects import Object
from glebe.kube.selectors import LabelSelector, SelectorError

if TYPE_CHECKING:
    from glebe.apiserver.server import ApiServer

P = TypeVar("P")


class ConfigurationError(Exception):
    """A binding cannot be used as it is: the policy's failure policy decides."""


class _Bound:
    """A binding's ``spec``."""

    def __init__(self, spec: Mapping[str, Any]) -> None:
        resources = spec.get("matchResources")
        self.matcher = Matcher(resources) if resources is not None else None
        self.actions: tuple[str, ...] = tuple(spec.get("validationActions") or ())
        self.param_ref: Mapping[str, Any] | None = spec.get("paramRef")


_shared: Shared[_Bound] = Shared(_Bound)


@dataclass(frozen=True, slots=True)
class Binding:
    name: str
    bound: _Bound

    @property
    def actions(self) -> tuple[str, ...]:
        return self.bound.actions

    def concerns(self, server: ApiServer, a: AdmissionAttributes) -> bool:
        """Does it select the request?"""
        matcher = self.bound.matcher
        return matcher is None or matcher.match(server, a, anything=True) is not None


@dataclass(frozen=True, slots=True)
class Hook(Generic[P]):
    """A policy with its bindings, in the order of their names."""

    name: str
    policy: P
    bindings: tuple[Binding, ...]


def hooks_of(policies: list[Object], bindings: list[Object], shared: Shared[P]) -> tuple[Hook[P], ...]:
    """The policies that somebody has bound."""
    by_policy: dict[str, list[Binding]] = {}
    for obj in bindings:
        spec = obj.get("spec") or {}
        bound = Binding(obj["metadata"]["name"], _shared.of(spec))
        by_policy.setdefault(spec.get("policyName") or "", []).append(bound)
    return tuple(
        Hook(obj["metadata"]["name"], shared.of(obj.get("spec") or {}), tuple(by_policy[obj["metadata"]["name"]]))
        for obj in policies
        if obj["metadata"]["name"] in by_policy
    )


def param_info(server: ApiServer, cluster: str, kind: Mapping[str, str]) -> ResourceInfo | None:
    """The resource behind a ``paramKind``."""
    wanted = (kind.get("apiVersion") or "", kind.get("kind") or "")
    return next((i for i in server.registry.resources(cluster) if (i.api_version, i.kind) == wanted), None)


def check_param_kind(server: ApiServer, cluster: str, kind: Mapping[str, str] | None) -> None:
    """:raises ConfigurationError: nothing of the kind is served."""
    if kind is not None and param_info(server, cluster, kind) is None:
        shown = f"{kind.get('apiVersion')}, Kind={kind.get('kind')}"
        raise ConfigurationError(
            f"failed to configure policy: failed to find resource referenced by paramKind: '{shown}'"
        )


def collect_params(
    server: ApiServer, a: AdmissionAttributes, kind: Mapping[str, str] | None, binding: Binding
) -> list[Object | None]:
    """The parameters to evaluate a policy with: ``[None]`` when it takes none, ``[]`` when there is nothing to do.

    :raises ConfigurationError: they cannot be found.
    """
    reference = binding.bound.param_ref
    if kind is None or reference is None:
        return [None]
    info = param_info(server, a.cluster, kind)
    if info is None:
        raise ConfigurationError(f"paramKind kind `{kind.get('apiVersion')}, Kind={kind.get('kind')}` not known")
    namespace = str(reference.get("namespace") or "")
    if not info.namespaced and namespace:
        raise ConfigurationError("paramRef.namespace must not be provided for a cluster-scoped `paramKind`")
    if info.namespaced and not namespace:
        namespace = a.namespace
        if not namespace:
            raise ConfigurationError(
                "cannot use namespaced paramRef in policy binding that matches cluster-scoped resources"
            )
    found = _find(server, a.cluster, info, namespace, reference)
    if not found and reference.get("parameterNotFoundAction") == "Deny":
        raise ConfigurationError("no params found for policy binding with `Deny` parameterNotFoundAction")
    return [{**obj, "apiVersion": info.api_version, "kind": info.kind} for obj in found]


def _find(
    server: ApiServer, cluster: str, info: ResourceInfo, namespace: str, reference: Mapping[str, Any]
) -> list[Object]:
    if name := reference.get("name"):
        one = server.read(cluster, info.stored_as, namespace, name)
        return [] if one is None else [one]
    try:
        selector = LabelSelector.from_object(reference.get("selector"))
    except SelectorError as error:
        raise ConfigurationError(str(error)) from None
    every = server.read_all(cluster, info.stored_as, namespace or None)
    return [obj for obj in every if selector.matches(obj["metadata"].get("labels"))]
