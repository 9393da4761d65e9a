"""Rules of ValidatingAdmissionPolicies, MutatingAdmissionPolicies and their bindings.

Fields with a closed set of values are held to it by the schema, for all kinds alike.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

from glebe.apiserver.types.placementvalidation import label_selector
from glebe.apiserver.types.registrationvalidation import condition_compiler, match_conditions, one_of, rule_faults
from glebe.cel.syntax import RESERVED
from glebe.kube import names as n
from glebe.kube.errors import Cause
from glebe.kube.objects import Object

if TYPE_CHECKING:
    from glebe.apiserver.admission.expressions import Expressions

Values = Mapping[str, Any]

_REASONS = ("Forbidden", "Invalid", "RequestEntityTooLarge")
_IDENTIFIER = re.compile(r"[_a-zA-Z][_a-zA-Z0-9]*")
_RESERVED = RESERVED | {"true", "false", "null", "in"}
_MOST_ANNOTATIONS = 20
_LONGEST_ANNOTATION = 5 * 1024


def validating_policy(obj: Object, old: Object | None) -> list[Cause]:
    """ValidatingAdmissionPolicy."""
    causes: list[Cause] = []
    spec = obj.get("spec") or {}
    if old is not None and spec == (old.get("spec") or {}):
        return causes  # what was let in once may be kept
    expressions = _common(spec, causes)
    validations, annotations = spec.get("validations") or [], spec.get("auditAnnotations") or []
    if not validations and not annotations:
        why = "validations or auditAnnotations must contain at least one item"
        causes += [n.required("spec.validations", why), n.required("spec.auditAnnotations", why)]
    for index, validation in enumerate(validations):
        _validation(validation, expressions, f"spec.validations[{index}]", causes)
    if len(annotations) > _MOST_ANNOTATIONS:
        why = f"must not have more than {_MOST_ANNOTATIONS} auditAnnotations"
        causes.append(n.invalid("spec.auditAnnotations", annotations, why))
    name = obj["metadata"].get("name") or ""
    seen: set[str] = set()
    for index, annotation in enumerate(annotations[:_MOST_ANNOTATIONS]):
        _audit_annotation(annotation, name, expressions, f"spec.auditAnnotations[{index}]", causes)
        key = str(annotation.get("key") or "")
        if key in seen:
            causes.append(n.duplicate(f"spec.auditAnnotations[{index}].key", key))
        seen.add(key)
    return causes


def mutating_policy(obj: Object, old: Object | None) -> list[Cause]:
    """MutatingAdmissionPolicy."""
    causes: list[Cause] = []
    spec = obj.get("spec") or {}
    if old is not None and spec == (old.get("spec") or {}):
        return causes
    expressions = _common(spec, causes)
    mutations = spec.get("mutations") or []
    if not mutations:
        causes.append(n.required("spec.mutations", "mutations must contain at least one item"))
    for index, mutation in enumerate(mutations):
        _mutation(mutation, expressions, f"spec.mutations[{index}]", causes)
    if not spec.get("reinvocationPolicy"):
        causes.append(n.required("spec.reinvocationPolicy"))
    return causes


def _common(spec: Values, causes: list[Cause]) -> Expressions:
    """What both kinds of policies have."""
    from glebe.apiserver.admission.expressions import Expressions  # late: most servers never see a policy

    if not spec.get("failurePolicy"):
        causes.append(n.required("spec.failurePolicy"))
    if (kind := spec.get("paramKind")) is not None:
        _param_kind(kind, causes)
    constraints = spec.get("matchConstraints")
    if constraints is None:
        causes.append(n.required("spec.matchConstraints"))
    else:
        _match_resources(constraints, "spec.matchConstraints", causes)
        if not constraints.get("resourceRules"):
            causes.append(n.required("spec.matchConstraints.resourceRules"))
    params = kind is not None
    conditions = spec.get("matchConditions") or ()
    match_conditions(conditions, "spec.matchConditions", causes, condition_compiler(params=params))
    expressions = Expressions(params=params)
    for index, variable in enumerate(spec.get("variables") or ()):
        _variable(variable, expressions, f"spec.variables[{index}]", causes)
    return expressions


def _param_kind(kind: Values, causes: list[Cause]) -> None:
    path = "spec.paramKind"
    version, name = str(kind.get("apiVersion") or ""), str(kind.get("kind") or "")
    if not version:
        causes.append(n.required(f"{path}.apiVersion"))
    elif version.count("/") > 1:
        causes.append(n.invalid(f"{path}.apiVersion", version, f"unexpected GroupVersion string: {version}"))
    else:
        group, _, short = version.rpartition("/")
        if group and (faults := n.subdomain_faults(group)):
            causes.append(n.invalid(f"{path}.apiVersion", group, ",".join(faults)))
        if faults := n.label_1035_faults(short):
            causes.append(n.invalid(f"{path}.apiVersion", short, ",".join(faults)))
    if not name:
        causes.append(n.required(f"{path}.kind"))
    elif faults := n.label_1035_faults(name.lower()):
        why = "may have mixed case, but should otherwise match: " + ",".join(faults)
        causes.append(n.invalid(f"{path}.kind", name, why))


def _match_resources(match: Values, path: str, causes: list[Cause]) -> None:
    for field in ("namespaceSelector", "objectSelector"):
        label_selector(match.get(field), f"{path}.{field}", causes)
    for field in ("resourceRules", "excludeResourceRules"):
        for index, rule in enumerate(match.get(field) or ()):
            where = f"{path}.{field}[{index}]"
            named = rule.get("resourceNames") or []
            for position, name in enumerate(named):
                at = f"{where}.resourceNames[{position}]"
                causes.extend(n.invalid(at, name, f) for f in n.path_segment_faults(name))
                if name in named[:position]:
                    causes.append(n.duplicate(at, name))
            rule_faults(rule, where, causes, closed=False)


def _variable(variable: Values, expressions: Expressions, path: str, causes: list[Cause]) -> None:
    name, text = str(variable.get("name") or ""), str(variable.get("expression") or "")
    if not name.strip():
        causes.append(n.required(f"{path}.name", "name is not specified"))
    elif _IDENTIFIER.fullmatch(name) is None or name in _RESERVED:
        causes.append(n.invalid(f"{path}.name", name, "must be a valid CEL identifier"))
    if not text.strip():
        causes.append(n.required(f"{path}.expression", "expression is not specified"))
    elif fault := expressions.add_variable(name, text):
        causes.append(n.invalid(f"{path}.expression", text, fault))


def _validation(validation: Values, expressions: Expressions, path: str, causes: list[Cause]) -> None:
    text = str(validation.get("expression") or "")
    if not text.strip():
        causes.append(n.required(f"{path}.expression", "expression is not specified"))
    elif fault := expressions.fault(text, ("bool",)):
        causes.append(n.invalid(f"{path}.expression", text, fault))
    message, composed = validation.get("message") or "", validation.get("messageExpression") or ""
    if composed and not composed.strip():
        causes.append(n.invalid(f"{path}.messageExpression", composed, "must be non-empty if specified"))
    elif composed and (fault := expressions.fault(composed, ("string",), authorizer=False)):
        causes.append(n.invalid(f"{path}.messageExpression", composed, fault))
    if message and not message.strip():
        causes.append(n.invalid(f"{path}.message", message, "must be non-empty if specified"))
    elif "\n" in message.strip() or "\r" in message.strip():
        causes.append(n.invalid(f"{path}.message", message, "must not contain line breaks"))
    one_of(f"{path}.reason", validation.get("reason"), _REASONS, causes)


def _audit_annotation(value: Values, name: str, expressions: Expressions, path: str, causes: list[Cause]) -> None:
    key, text = str(value.get("key") or ""), str(value.get("valueExpression") or "").strip()
    if name:
        causes.extend(n.invalid(f"{path}.key", f"{name}/{key}", fault) for fault in n.key_faults(f"{name}/{key}"))
    if not text:
        causes.append(n.required(f"{path}.valueExpression", "valueExpression is not specified"))
    elif len(text) > _LONGEST_ANNOTATION:
        causes.append(n.required(f"{path}.valueExpression", f"must not exceed {_LONGEST_ANNOTATION} bytes in length"))
    elif fault := expressions.fault(text, ("string", "null")):
        causes.append(n.invalid(f"{path}.valueExpression", text, fault))


_PATCHES = {"ApplyConfiguration": "applyConfiguration", "JSONPatch": "jsonPatch"}


def _mutation(mutation: Values, expressions: Expressions, path: str, causes: list[Cause]) -> None:
    kind = mutation.get("patchType")
    if not kind:
        causes.append(n.required(f"{path}.patchType"))
        return
    if kind not in _PATCHES:
        return
    field = _PATCHES[kind]
    body = mutation.get(field)
    if body is None:
        causes.append(n.required(f"{path}.{field}", f"must be specified when patchType is {kind}"))
    for other, extra in _PATCHES.items():
        if other != kind and mutation.get(extra) is not None:
            why = f"must not be specified when patchType is {kind}"
            causes.append(n.invalid(f"{path}.{extra}", f"{{{extra}}}", why))
    if body is None:
        return
    text = str(body.get("expression") or "")
    if not text.strip():
        causes.append(n.required(f"{path}.{field}.expression", "expression is not specified"))
    elif fault := expressions.mutation_fault(text, kind):
        causes.append(n.invalid(f"{path}.{field}.expression", text, fault))


# ------------------------------------------------------------------------------------------------------------ bindings


def validating_binding(obj: Object, old: Object | None) -> list[Cause]:
    """ValidatingAdmissionPolicyBinding."""
    causes = mutating_binding(obj, old)
    _actions((obj.get("spec") or {}).get("validationActions") or [], causes)
    return causes


def mutating_binding(obj: Object, old: Object | None) -> list[Cause]:
    """MutatingAdmissionPolicyBinding."""
    spec = obj.get("spec") or {}
    causes: list[Cause] = []
    name = spec.get("policyName") or ""
    if not name:
        causes.append(n.required("spec.policyName"))
    else:
        causes.extend(n.invalid("spec.policyName", name, fault) for fault in n.subdomain_faults(name))
    if (reference := spec.get("paramRef")) is not None:
        _param_ref(reference, causes)
    if (match := spec.get("matchResources")) is not None:
        _match_resources(match, "spec.matchResouces", causes)
    return causes


def _actions(actions: Sequence[str], causes: list[Cause]) -> None:
    path = "spec.validationActions"
    causes += [n.duplicate(f"{path}[{i}]", action) for i, action in enumerate(actions) if action in actions[:i]]
    if "Deny" in actions and "Warn" in actions:
        why = (
            "must not contain both Deny and Warn (repeating the same validation failure information in the API "
            "response and headers serves no purpose)"
        )
        causes.append(n.invalid(path, actions, why))
    if not actions:
        causes.append(n.required(path, "at least one validation action is required"))


def _param_ref(reference: Values, causes: list[Cause]) -> None:
    path = "spec.paramRef"
    name, selector = reference.get("name") or "", reference.get("selector")
    both = "name and selector are mutually exclusive"
    if name:
        causes.extend(n.invalid(f"{path}.name", name, fault) for fault in n.path_segment_faults(name))
        if selector is not None:
            causes += [n.forbidden(f"{path}.name", both), n.forbidden(f"{path}.selector", both)]
    elif selector is None:
        causes.append(n.required(path, "one of name or selector must be specified"))
    label_selector(selector, f"{path}.selector", causes)
    action = reference.get("parameterNotFoundAction")
    if not action:
        causes.append(n.required(f"{path}.parameterNotFoundAction"))
    else:  # the schema leaves this one open
        one_of(f"{path}.parameterNotFoundAction", action, ("Deny", "Allow"), causes)
