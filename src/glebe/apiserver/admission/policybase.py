"""What policies that judge and policies that change share: the compiled ``spec``, a request as they see it."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from glebe.apiserver.admission.base import AdmissionAttributes
from glebe.apiserver.admission.conditions import Asker, Conditions, request_value
from glebe.apiserver.admission.expressions import Expressions
from glebe.apiserver.admission.matching import Match, Matcher
from glebe.apiserver.admission.versions import convert
from glebe.cel.environment import CompileError, Program
from glebe.kube.objects import Object

if TYPE_CHECKING:
    from glebe.apiserver.server import ApiServer


class CompiledPolicy:
    """To whom a policy applies, and its expressions."""

    def __init__(self, spec: Mapping[str, Any]) -> None:
        self.matcher = Matcher(spec.get("matchConstraints") or {})
        self.ignore = spec.get("failurePolicy") == "Ignore"
        self.param_kind: Mapping[str, str] | None = spec.get("paramKind")
        params = self.param_kind is not None
        self.conditions = Conditions(list(spec.get("matchConditions") or ()), ignore=self.ignore, params=params)
        self.expressions = Expressions(params=params)
        for variable in spec.get("variables") or ():
            self.expressions.add_variable(variable.get("name", ""), variable.get("expression", ""))

    def compile(self, text: str, *, mutates: bool = False) -> Program | str:
        """The program, or what is wrong with it."""
        try:
            return self.expressions.environment(mutates=mutates).compile(text)
        except CompileError as error:
            return f"compilation error: compilation failed: {error}"


@dataclass(slots=True)
class Circumstances:
    """One request as the policies of one dispatch see it."""

    server: ApiServer
    a: AdmissionAttributes
    asker: Asker
    forms: dict[str, tuple[Object | None, Object | None]] = field(default_factory=dict)

    async def values(self, match: Match, params: Object | None) -> dict[str, Any]:
        """The variables of expressions, but for ``variables``."""
        old_and_new = self.forms.get(match.info.api_version)
        if old_and_new is None:
            old_and_new = self.forms[match.info.api_version] = await self._objects(match)
        new, old = old_and_new
        namespace = None
        if self.a.namespace and self.a.info.group_resource != "namespaces":
            namespace = self.server.read(self.a.cluster, "namespaces", "", self.a.namespace)
        return {
            "object": new,
            "oldObject": old,
            "request": request_value(self.a, match),
            "params": params,
            "namespaceObject": namespace,
            "authorizer": self.asker.authorizer,
        }

    async def _objects(self, match: Match) -> tuple[Object | None, Object | None]:
        a = self.a
        if match.info is a.info or (a.subresource and match.kind[2] != a.info.kind):
            return a.obj, a.old
        converted = [
            None if obj is None else await convert(self.server, a.cluster, obj, a.info, match.info)
            for obj in (a.obj, a.old)
        ]
        return converted[0], converted[1]
