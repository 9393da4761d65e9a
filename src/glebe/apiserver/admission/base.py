"""The seam for admission: plugins that change or refuse objects before they are stored."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any, ClassVar, Protocol

from glebe.apiserver.types.registry import ResourceInfo
from glebe.kube import errors
from glebe.kube.objects import Object
from glebe.kube.transport import Request, User


@dataclass(slots=True)
class Reinvocation:
    """Whether the mutating plugins are asked a second time: who has changed the object after others were asked, wants
    it. There is one second round at most."""

    round: int = 0
    wanted: bool = False
    notes: dict[str, Any] = field(default_factory=dict)
    """What plugins remember from the first round."""


@dataclass(slots=True)
class AdmissionAttributes:
    """What is about to happen. ``obj`` (None for DELETE) may be changed in place; ``old`` must not be."""

    operation: str
    """CREATE, UPDATE, DELETE or CONNECT."""
    cluster: str
    info: ResourceInfo
    subresource: str
    namespace: str
    name: str
    obj: Object | None
    old: Object | None
    user: User
    dry_run: bool
    warn: Callable[[str], None]
    options: Object = field(default_factory=dict)
    """The request's CreateOptions, UpdateOptions, PatchOptions or DeleteOptions, as webhooks are told."""
    annotate: Callable[[str, str], None] = lambda key, value: None
    """Notes something for the audit log."""
    afterwards: list[Callable[[bool], None]] = field(default_factory=list)
    """Called once when the request is over, with whether the write was stored: who took something gives it back."""
    request: Request | None = None
    """What was asked, for who wants to know its options."""
    reinvocation: Reinvocation | None = None
    """Made by :meth:`rounds` when somebody wants it."""

    def rounds(self) -> Reinvocation:
        """The state of reinvocation."""
        if self.reinvocation is None:
            self.reinvocation = Reinvocation()
        return self.reinvocation

    def refusal(self, why: str) -> errors.ApiError:
        """403 in the words that upstream's ``admission.NewForbidden`` uses."""
        name = self.name
        if not name and self.obj is not None:
            meta = self.obj["metadata"]
            name = meta.get("name") or meta.get("generateName") or ""
        return errors.forbidden(self.info.group, self.info.plural, name, why)


class AdmissionPlugin(Protocol):
    """Runs after defaulting and before validation, in the order of ``ApiServer.admission``; may change the object.

    A plugin that has an attribute ``resources`` (a set of group resources) is asked about those only.
    """

    async def admit(self, a: AdmissionAttributes) -> None:
        """Change ``a.obj`` in place, or raise :class:`glebe.kube.errors.ApiError` to refuse."""
        ...


class ValidatingPlugin(Protocol):
    """Runs after validation, right before the object is stored, in the order of ``ApiServer.validating``.

    A plugin that has an attribute ``resources`` (a set of group resources) is asked about those only.
    """

    async def validate(self, a: AdmissionAttributes) -> None:
        """Raise :class:`glebe.kube.errors.ApiError` to refuse. ``a.obj`` must not be changed any more."""
        ...


class Read(Protocol):
    """``ApiServer.read``: a stored object, shared and read only, or None."""

    def __call__(self, cluster: str, group_resource: str, namespace: str, name: str, /) -> Object | None: ...


class ReadAll(Protocol):
    """``ApiServer.read_all``: the stored objects of a resource (of one namespace), shared and read only."""

    def __call__(self, cluster: str, group_resource: str, namespace: str | None = None, /) -> list[Object]: ...


class BuiltinPlugin:
    """What the built-in plugins share: a name by which they are turned on and off, and the resources that concern them.

    One that changes objects has ``admit``, one that judges them ``validate``; many have both.
    """

    name: ClassVar[str]
    resources: ClassVar[frozenset[str] | None] = None


def is_new_pod(a: AdmissionAttributes) -> bool:
    return a.operation == "CREATE" and not a.subresource and a.info.group_resource == "pods"
