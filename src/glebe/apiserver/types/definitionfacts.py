"""What a CustomResourceDefinition says of itself: its conditions, and its approval in the groups of Kubernetes."""

from __future__ import annotations

from urllib.parse import urlsplit

from glebe.kube.objects import Object

APPROVED = "api-approved.kubernetes.io"
_PULL = "see https://github.com/kubernetes/enhancements/pull/1111"


def has_condition(crd: Object, kind: str) -> bool:
    """Is the condition ``kind`` of a definition True?"""
    conditions = (crd.get("status") or {}).get("conditions") or ()
    return any(c.get("type") == kind and c.get("status") == "True" for c in conditions)


def is_protected(group: str) -> bool:
    """Does the group belong to the Kubernetes community?"""
    return any(group == domain or group.endswith(f".{domain}") for domain in ("k8s.io", "kubernetes.io"))


def approval_state(annotations: dict[str, str] | None) -> tuple[str, str]:
    """(``approved``, ``bypassed``, ``missing`` or ``invalid``, why) of a definition in a protected group."""
    text = (annotations or {}).get(APPROVED, "")
    if not text:
        return "missing", f'protected groups must have approval annotation "{APPROVED}", {_PULL}'
    if text.startswith("unapproved"):
        return "bypassed", f'not approved: "{text}"'
    try:
        url = urlsplit(text)
    except ValueError:
        url = urlsplit("")
    if url.scheme and url.netloc:
        return "approved", f"approved in {text}"
    return "invalid", (
        f'protected groups must have approval annotation "{APPROVED}" with either a URL or a reason starting with '
        f'"unapproved", {_PULL}'
    )
