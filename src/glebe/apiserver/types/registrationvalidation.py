"""Rules of admission webhook configurations, and of the matching parts that policies share with them."""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping, Sequence
from typing import Any
from urllib.parse import urlsplit

from glebe.apiserver.types.placementvalidation import label_selector
from glebe.kube import names as n
from glebe.kube.errors import Cause
from glebe.kube.objects import Object

Values = Mapping[str, Any]

REVIEW_VERSIONS = ("v1", "v1beta1")
_OPERATIONS = ("*", "CONNECT", "CREATE", "DELETE", "UPDATE")
_SCOPES = ("*", "Cluster", "Namespaced")
_FORM = "; desired format: https://host[/path]"
MOST_CONDITIONS = 64


def one_of(path: str, value: Any, allowed: tuple[str, ...], causes: list[Cause]) -> None:
    """An optional field with a closed set of values."""
    if value is not None and value not in allowed:
        causes.append(n.not_supported(path, value, allowed))


def rule_faults(rule: Values, path: str, causes: list[Cause], *, closed: bool = True) -> None:
    """RuleWithOperations.

    :param closed: also hold fields with a closed set of values to it (the schema does it where it reaches).
    """
    operations = rule.get("operations") or ()
    if not operations:
        causes.append(n.required(f"{path}.operations"))
    if len(operations) > 1 and "*" in operations:
        why = "if '*' is present, must not specify other operations"
        causes.append(n.invalid(f"{path}.operations", operations, why))
    for index, operation in enumerate(operations if closed else ()):
        one_of(f"{path}.operations[{index}]", operation, _OPERATIONS, causes)
    for field, what in (("apiGroups", "API groups"), ("apiVersions", "API versions")):
        values = rule.get(field) or ()
        if not values:
            causes.append(n.required(f"{path}.{field}"))
        if len(values) > 1 and "*" in values:
            causes.append(n.invalid(f"{path}.{field}", values, f"if '*' is present, must not specify other {what}"))
    for index, version in enumerate(rule.get("apiVersions") or ()):
        if not version:
            causes.append(n.required(f"{path}.apiVersions[{index}]"))
    _resources(rule.get("resources") or [], f"{path}.resources", causes)
    if closed:
        one_of(f"{path}.scope", rule.get("scope"), _SCOPES, causes)


def _resources(resources: Sequence[str], path: str, causes: list[Cause]) -> None:
    if not resources:
        causes.append(n.required(path))
    whole: set[str] = set()
    everywhere: set[str] = set()
    plain = False
    for index, each in enumerate(resources):
        if not each:
            causes.append(n.required(f"{path}[{index}]"))
            continue
        resource, slash, below = each.partition("/")
        if not slash:
            plain = each != "*"  # as upstream: only the last one without a subresource counts
            continue
        if resource in whole:
            why = f"if '{resource}/*' is present, must not specify {each}"
            causes.append(n.invalid(f"{path}[{index}]", each, why))
        if below in everywhere:
            causes.append(n.invalid(f"{path}[{index}]", each, f"if '*/{below}' is present, must not specify {each}"))
        if below == "*":
            whole.add(resource)
        if resource == "*":
            everywhere.add(below)
    if len(resources) > 1 and "*/*" in resources:
        causes.append(n.invalid(path, resources, "if '*/*' is present, must not specify other resources"))
    if "*" in resources and plain:
        why = "if '*' is present, must not specify other resources without subresources"
        causes.append(n.invalid(path, resources, why))


def match_conditions(
    conditions: Sequence[Values], path: str, causes: list[Cause], compile_fault: Callable[[str], str]
) -> None:
    """Names are unique and qualified, expressions compile to bool."""
    if len(conditions) > MOST_CONDITIONS:
        why = f"Too many: {len(conditions)}: must have at most {MOST_CONDITIONS} items"
        causes.append(Cause("FieldValueTooMany", why, path))
        return
    seen: set[str] = set()
    for index, condition in enumerate(conditions):
        where = f"{path}[{index}]"
        text = str(condition.get("expression") or "").strip()
        if not text:
            causes.append(n.required(f"{where}.expression"))
        elif fault := compile_fault(text):
            causes.append(n.invalid(f"{where}.expression", text, fault))
        name = str(condition.get("name") or "")
        if not name:
            causes.append(n.required(f"{where}.name"))
        else:
            causes.extend(n.invalid(f"{where}.name", name, f) for f in n.key_faults(name))
            if name in seen:
                causes.append(n.duplicate(f"{where}.name", name))
            seen.add(name)


def condition_compiler(*, params: bool) -> Callable[[str], str]:
    """What is wrong with an expression that must say yes or no; "" when nothing is."""

    def fault(text: str) -> str:
        from glebe.apiserver.admission.conditions import environment  # late: most servers never see an expression
        from glebe.cel.environment import CompileError

        try:
            program = environment(params, True).compile(text)
        except CompileError as error:
            return f"compilation failed: {error}"
        return "" if program.result.kind == "bool" else f"must evaluate to bool but got {program.result}"

    return fault


def webhook_configuration(obj: Object, old: Object | None) -> list[Cause]:
    """MutatingWebhookConfiguration and ValidatingWebhookConfiguration."""
    causes: list[Cause] = []
    before = (old or {}).get("webhooks") or []
    hooks = obj.get("webhooks") or []
    unchanged = old is not None and [h.get("matchConditions") for h in hooks] == [
        h.get("matchConditions") for h in before
    ]
    seen: set[str] = set()
    compiles = (lambda text: "") if unchanged else condition_compiler(params=False)
    for index, hook in enumerate(hooks):
        path = f"webhooks[{index}]"
        _webhook(hook, path, causes)
        match_conditions(hook.get("matchConditions") or (), f"{path}.matchConditions", causes, compiles)
        _review_versions(hook.get("admissionReviewVersions") or [], f"{path}.admissionReviewVersions", causes)
        name = hook.get("name") or ""
        if name in seen:
            causes.append(n.duplicate(f"{path}.name", name))
        elif name:
            seen.add(name)
    return causes


def _webhook(hook: Values, path: str, causes: list[Cause]) -> None:
    _full_name(str(hook.get("name") or ""), f"{path}.name", causes)
    for index, rule in enumerate(hook.get("rules") or ()):
        rule_faults(rule, f"{path}.rules[{index}]", causes)
    one_of(f"{path}.failurePolicy", hook.get("failurePolicy"), ("Fail", "Ignore"), causes)
    one_of(f"{path}.matchPolicy", hook.get("matchPolicy"), ("Equivalent", "Exact"), causes)
    one_of(f"{path}.reinvocationPolicy", hook.get("reinvocationPolicy"), ("IfNeeded", "Never"), causes)
    if hook.get("sideEffects") is None:
        causes.append(n.required(f"{path}.sideEffects", "must specify one of None, NoneOnDryRun"))
    one_of(f"{path}.sideEffects", hook.get("sideEffects"), ("None", "NoneOnDryRun"), causes)
    timeout = hook.get("timeoutSeconds")
    if timeout is not None and not 1 <= timeout <= 30:
        why = "the timeout value must be between 1 and 30 seconds"
        causes.append(n.invalid(f"{path}.timeoutSeconds", timeout, why))
    for field in ("namespaceSelector", "objectSelector"):
        label_selector(hook.get(field), f"{path}.{field}", causes)
    client_config(hook.get("clientConfig") or {}, f"{path}.clientConfig", causes)


def _full_name(name: str, path: str, causes: list[Cause]) -> None:
    if not name:
        causes.append(n.required(path))
        return
    if faults := n.subdomain_faults(name):
        causes.extend(n.invalid(path, name, fault) for fault in faults)
        return
    if len(name.split(".")) < 3:
        causes.append(n.invalid(path, name, "should be a domain with at least three segments separated by dots"))


def _review_versions(versions: Sequence[str], path: str, causes: list[Cause]) -> None:
    listed = ", ".join(REVIEW_VERSIONS)
    if not versions:
        causes.append(n.required(path, f"must specify one of {listed}"))
        return
    for index, version in enumerate(versions):
        if version in versions[:index]:
            causes.append(n.invalid(f"{path}[{index}]", version, "duplicate version"))
            continue
        causes.extend(n.invalid(f"{path}[{index}]", version, f) for f in n.label_1035_faults(version))
    if not any(v in REVIEW_VERSIONS for v in versions):
        causes.append(n.invalid(path, versions, f"must include at least one of {listed}"))


def client_config(config: Values, path: str, causes: list[Cause]) -> None:
    """A webhook's ``clientConfig``: a URL or a service."""
    url, service = config.get("url"), config.get("service")
    if (url is None) == (service is None):
        causes.append(n.required(path, "exactly one of url or service is required"))
    elif url is not None:
        _url(str(url), f"{path}.url", causes)
    else:
        _service(service or {}, f"{path}.service", causes)


def _url(url: str, path: str, causes: list[Cause]) -> None:
    try:
        parts = urlsplit(url)
        _ = parts.port
    except ValueError as error:
        causes.append(n.required(path, f"url must be a valid URL: {error}{_FORM}"))
        return
    if parts.scheme != "https":
        causes.append(n.invalid(path, parts.scheme, f"'https' is the only allowed URL scheme{_FORM}"))
    if not parts.hostname:
        causes.append(n.invalid(path, parts.netloc, f"host must be specified{_FORM}"))
    if "@" in parts.netloc:
        user = parts.netloc.rpartition("@")[0]
        causes.append(n.invalid(path, user, "user information is not permitted in the URL"))
    if parts.fragment:
        causes.append(n.invalid(path, parts.fragment, "fragments are not permitted in the URL"))
    if parts.query:
        causes.append(n.invalid(path, parts.query, "query parameters are not permitted in the URL"))


def _service(service: Values, path: str, causes: list[Cause]) -> None:
    causes.extend(n.required(f"{path}.{field}") for field in ("name", "namespace") if not service.get(field))
    port = service.get("port", 443)
    if not 1 <= port <= 65535:
        why = "port is not valid: must be between 1 and 65535, inclusive"
        causes.append(n.invalid(f"{path}.port", port, why))
    url_path = service.get("path")
    if not url_path or url_path == "/":
        return
    if url_path == "//":
        causes.append(n.invalid(f"{path}.path", url_path, "segment[0] may not be empty"))
        return
    if not url_path.startswith("/"):
        causes.append(n.invalid(f"{path}.path", url_path, "must start with a '/'"))
    steps = url_path[1:].removesuffix("/").split("/")
    for index, step in enumerate(steps):
        if not step:
            causes.append(n.invalid(f"{path}.path", url_path, f"segment[{index}] may not be empty"))
            continue
        if re.fullmatch(r"[A-Za-z0-9]([-A-Za-z0-9_.]*[A-Za-z0-9])?", step) is None:
            causes.extend(
                n.invalid(f"{path}.path", url_path, f"segment[{index}]: {fault}") for fault in n.subdomain_faults(step)
            )


def _policy(name: str) -> Callable[[Object, Object | None], list[Cause]]:
    def check(obj: Object, old: Object | None) -> list[Cause]:
        from glebe.apiserver.types import policyvalidation  # late: few servers ever see a policy

        causes: list[Cause] = getattr(policyvalidation, name)(obj, old)
        return causes

    return check


RULES: dict[str, Callable[[Object, Object | None], list[Cause]]] = {
    "MutatingWebhookConfiguration": webhook_configuration,
    "ValidatingWebhookConfiguration": webhook_configuration,
    "ValidatingAdmissionPolicy": _policy("validating_policy"),
    "ValidatingAdmissionPolicyBinding": _policy("validating_binding"),
    "MutatingAdmissionPolicy": _policy("mutating_policy"),
    "MutatingAdmissionPolicyBinding": _policy("mutating_binding"),
}
