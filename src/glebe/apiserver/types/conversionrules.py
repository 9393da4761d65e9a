"""Rules of ``spec.conversion`` of CustomResourceDefinitions: the strategy, and the webhook that is to be called."""

from __future__ import annotations

from typing import Any
from urllib.parse import urlsplit

from glebe.kube import names as n
from glebe.kube.errors import Cause

Values = dict[str, Any]

_REVIEWS = ("v1", "v1beta1")


def conversion_faults(conversion: Values, preserve: Any) -> list[Cause]:
    """What is wrong with ``spec.conversion``; ``preserve`` is ``spec.preserveUnknownFields``."""
    if not conversion:
        return []
    path, strategy = "spec.conversion", conversion.get("strategy") or ""
    webhook = conversion.get("webhook") or {}
    config, reviews = webhook.get("clientConfig"), webhook.get("conversionReviewVersions") or []
    causes: list[Cause] = []
    if not strategy:
        causes.append(n.required(f"{path}.strategy"))
    elif strategy not in ("None", "Webhook"):
        causes.append(n.not_supported(f"{path}.strategy", strategy, ["None", "Webhook"]))
    if strategy == "Webhook":
        if preserve:
            why = "must be None if spec.preserveUnknownFields is true"
            causes.append(n.invalid(f"{path}.strategy", strategy, why))
        where = f"{path}.webhookClientConfig"
        if not config:
            causes.append(n.required(where, "required when strategy is set to Webhook"))
        else:
            causes += _client(config, where)
        return causes + _reviews(reviews, f"{path}.conversionReviewVersions")
    why = "should not be set when strategy is not set to Webhook"
    if config:
        causes.append(n.forbidden(f"{path}.webhookClientConfig", why))
    if reviews:
        causes.append(n.forbidden(f"{path}.conversionReviewVersions", why))
    return causes


def _client(config: Values, path: str) -> list[Cause]:
    url, service = config.get("url"), config.get("service")
    if (url is None) == (service is None):
        return [n.required(path, "exactly one of url or service is required")]
    causes: list[Cause] = []
    if url is not None:
        parts = urlsplit(url)
        form = "; desired format: https://host[/path]"
        if parts.scheme != "https":
            causes.append(n.invalid(f"{path}.url", parts.scheme, f"'https' is the only allowed URL scheme{form}"))
        if not parts.netloc:
            causes.append(n.invalid(f"{path}.url", "", f"host must be specified{form}"))
        if "@" in parts.netloc:
            user = parts.netloc.rpartition("@")[0]
            causes.append(n.invalid(f"{path}.url", user, "user information is not permitted in the URL"))
        if parts.fragment:
            causes.append(n.invalid(f"{path}.url", parts.fragment, "fragments are not permitted in the URL"))
        if parts.query:
            causes.append(n.invalid(f"{path}.url", parts.query, "query parameters are not permitted in the URL"))
        return causes
    # upstream reports the one where the other is missing
    for field, asked in (("name", "namespace"), ("namespace", "name")):
        if not (service or {}).get(asked):
            causes.append(n.required(f"{path}.service.{field}"))
    port = (service or {}).get("port", 443)
    if not isinstance(port, int) or not 1 <= port <= 65535:
        why = "port is not valid: must be between 1 and 65535, inclusive"
        causes.append(n.invalid(f"{path}.service.port", port, why))
    return causes + _service_path((service or {}).get("path") or "", f"{path}.service.path")


def _service_path(value: str, path: str) -> list[Cause]:
    if value in ("", "/"):
        return []
    if value == "//":
        return [n.invalid(path, value, "segment[0] may not be empty")]
    causes: list[Cause] = []
    if not value.startswith("/"):
        causes.append(n.invalid(path, value, "must start with a '/'"))
    for index, step in enumerate(value[1:].removesuffix("/").split("/")):
        if not step:
            causes.append(n.invalid(path, value, f"segment[{index}] may not be empty"))
        else:
            causes += [n.invalid(path, value, f"segment[{index}]: {f}") for f in n.subdomain_faults(step)]
    return causes


def _reviews(versions: list[str], path: str) -> list[Cause]:
    if not versions:
        return [n.required(path)]
    causes: list[Cause] = []
    for index, version in enumerate(versions):
        if version in versions[:index]:
            causes.append(n.invalid(f"{path}[{index}]", version, "duplicate version"))
            continue
        causes += [n.invalid(f"{path}[{index}]", version, fault) for fault in n.label_1035_faults(version)]
    if not any(version in _REVIEWS for version in versions):
        causes.append(n.invalid(path, versions, f"must include at least one of {', '.join(_REVIEWS)}"))
    return causes
