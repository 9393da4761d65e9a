"""What the review kinds must say, and how a question is read out of them."""

from __future__ import annotations

from typing import Any

from glebe.apiserver.auth.rules import Attributes
from glebe.kube import errors
from glebe.kube.errors import Cause
from glebe.kube.objects import Object
from glebe.kube.transport import User

_GROUP = "authorization.k8s.io"
_RESOURCE = "spec.resourceAttributes"
_FIELDS = ("verb", "group", "resource", "subresource", "namespace", "name")
#: Operators of a review's selector requirements in the notation of selectors; a field selector knows two.
_FIELD_FORMS = {"In": "{0}={1}", "NotIn": "{0}!={1}"}


def check_subject(obj: Object) -> User:
    """About whom a SubjectAccessReview asks.

    :raises ApiError: 422 when it is nobody.
    """
    spec = obj.get("spec") or {}
    if not spec.get("user") and not spec.get("groups"):
        text = 'Invalid value: "": at least one of user or group must be specified'
        raise _invalid(obj, Cause("FieldValueInvalid", text, "spec.user"))
    extra = {k: tuple(v) for k, v in (spec.get("extra") or {}).items()}
    return User(spec.get("user") or "", tuple(spec.get("groups") or ()), spec.get("uid") or "", extra)


def question(obj: Object) -> Attributes:
    """What an access review asks.

    :raises ApiError: 422 when it asks nothing, two things, or with a selector that makes no sense.
    """
    spec = obj.get("spec") or {}
    resource, path = spec.get("resourceAttributes"), spec.get("nonResourceAttributes")
    if resource is not None and path is not None:
        text = "Invalid value: cannot be specified in combination with resourceAttributes"
        raise _invalid(obj, Cause("FieldValueInvalid", text, "spec.nonResourceAttributes"))
    if resource is None and path is None:
        text = "Invalid value: null: exactly one of nonResourceAttributes or resourceAttributes must be specified"
        raise _invalid(obj, Cause("FieldValueInvalid", text, _RESOURCE))
    if resource is None:
        path = path or {}
        return Attributes(path.get("verb") or "", path=path.get("path") or "/")
    fields = _selector(obj, resource, "fieldSelector")
    _selector(obj, resource, "labelSelector")
    return Attributes(**{f: str(resource.get(f) or "") for f in _FIELDS}, fields=fields)


def _selector(obj: Object, resource: dict[str, Any], field: str) -> str:
    """The selector in the notation of a query; label selectors are only looked at.

    A raw selector that cannot be read limits nothing, and requirements with other operators do not, either: who asks
    with them gets the answer for the wider question, as upstream does.
    """
    selector = resource.get(field)
    if selector is None:
        return ""
    path = f"{_RESOURCE}.{field}"
    raw, requirements = selector.get("rawSelector") or "", selector.get("requirements") or []
    if raw and requirements:
        text = f'Invalid value: "{raw}": may not specified at the same time as requirements'
        raise _invalid(obj, Cause("FieldValueInvalid", text, f"{path}.rawSelector"))
    if not raw and not requirements:
        text = f"Required value: when {_RESOURCE}.{field} is specified, requirements or rawSelector is required"
        raise _invalid(obj, Cause("FieldValueRequired", text, f"{path}.requirements"))
    if raw:
        return str(raw)
    return ",".join(
        part for i, r in enumerate(requirements) if (part := _requirement(obj, r, f"{path}.requirements[{i}]"))
    )


def _requirement(obj: Object, requirement: dict[str, Any], path: str) -> str:
    key, operator = str(requirement.get("key") or ""), str(requirement.get("operator") or "")
    values = [str(v) for v in requirement.get("values") or ()]
    if not key:
        raise _invalid(obj, Cause("FieldValueRequired", "Required value: must be specified", f"{path}.key"))
    if operator in ("In", "NotIn") and not values:
        text = "Required value: must be specified when `operator` is 'In' or 'NotIn'"
        raise _invalid(obj, Cause("FieldValueRequired", text, f"{path}.values"))
    if operator in ("Exists", "DoesNotExist") and values:
        text = "Forbidden: may not be specified when `operator` is 'Exists' or 'DoesNotExist'"
        raise _invalid(obj, Cause("FieldValueForbidden", text, f"{path}.values"))
    form = _FIELD_FORMS.get(operator)
    return form.format(key, _escaped(values[0])) if form is not None and len(values) == 1 else ""


def _escaped(value: str) -> str:
    return value.replace("\\", "\\\\").replace(",", "\\,").replace("=", "\\=")


def check_token(obj: Object) -> tuple[str, tuple[str, ...]]:
    """The token and the audiences of a TokenReview.

    :raises ApiError: 400 without a token.
    """
    spec = obj.get("spec") or {}
    token = spec.get("token")
    if not token:
        raise errors.bad_request("token is required for TokenReview in authentication")
    return str(token), tuple(str(a) for a in spec.get("audiences") or ())


def _invalid(obj: Object, cause: Cause) -> errors.ApiError:
    return errors.invalid(_GROUP, str(obj.get("kind")), "", [cause])
