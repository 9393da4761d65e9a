"""Parameters of writes: dryRun, fieldValidation, fieldManager, and the options of a deletion."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from glebe.apiserver.request import media
from glebe.kube.errors import ApiError, Cause, bad_request, invalid
from glebe.kube.transport import Request

POLICIES = ("Orphan", "Background", "Foreground")


def dry_run(request: Request, kind: str = "") -> bool:
    """Whether ``dryRun=All`` was asked.

    :raises ApiError: 422 for any other value.
    """
    values = [v for k, v in request.query if k == "dryRun" and v]
    for value in values:
        if value != "All":
            cause = Cause(
                "FieldValueNotSupported", f'Unsupported value: ["{value}"]: supported values: "All"', "dryRun"
            )
            raise invalid("meta.k8s.io", kind or "CreateOptions", "", [cause])
    return bool(values)


def field_validation(request: Request) -> str:
    """Strict, Warn or Ignore; Warn by default, as upstream."""
    value = request.param("fieldValidation", "Warn") or "Warn"
    if value not in ("Strict", "Warn", "Ignore"):
        cause = Cause(
            "FieldValueNotSupported",
            f'Unsupported value: "{value}": supported values: "", "Ignore", "Strict", "Warn"',
            "fieldValidation",
        )
        raise invalid("meta.k8s.io", "CreateOptions", "", [cause])
    return value


@dataclass(slots=True)
class DeleteOptions:
    """What a deletion asks. ``propagation`` "" means the kind's default."""

    grace_period: int | None = None
    propagation: str = ""
    uid: str = ""
    resource_version: str = ""
    dry_run: bool = False


def delete_options(request: Request) -> DeleteOptions:
    """Options from the body (a DeleteOptions object) or, when there is none, from the query.

    :raises ApiError: 400 or 422 for what cannot be understood.
    """
    body: dict[str, Any] = {}
    if request.body:
        body = media.decode(request.body, request.headers.get("content-type", ""))
        if body.get("kind", "DeleteOptions") != "DeleteOptions":
            raise bad_request(f"expected DeleteOptions, got {body.get('kind')}")
    return delete_options_from(body, request)


def delete_options_from(body: dict[str, Any], request: Request) -> DeleteOptions:
    """The same from a decoded DeleteOptions; the query fills in what it leaves out."""
    preconditions = body.get("preconditions") or {}
    options = DeleteOptions(
        grace_period=_grace(body.get("gracePeriodSeconds"), request.param("gracePeriodSeconds")),
        propagation=str(body.get("propagationPolicy") or request.param("propagationPolicy")),
        uid=str(preconditions.get("uid") or ""),
        resource_version=str(preconditions.get("resourceVersion") or ""),
        dry_run=dry_run(request, "DeleteOptions") or _body_dry_run(body),
    )
    orphan = body.get("orphanDependents", request.param("orphanDependents") or None)
    if orphan is not None:
        if options.propagation:
            raise _invalid("orphanDependents and deletionPropagation cannot be both set", "propagationPolicy")
        options.propagation = "Orphan" if orphan in (True, "true") else "Background"
    if options.propagation not in ("", *POLICIES):
        listed = '"Foreground", "Background", "Orphan", "nil"'
        cause = Cause(
            "FieldValueNotSupported",
            f'Unsupported value: "{options.propagation}": supported values: {listed}',
            "propagationPolicy",
        )
        raise invalid("meta.k8s.io", "DeleteOptions", "", [cause])
    return options


def _invalid(why: str, field: str) -> ApiError:
    return invalid("meta.k8s.io", "DeleteOptions", "", [Cause("FieldValueInvalid", f"Invalid value: {why}", field)])


def _grace(value: Any, text: str) -> int | None:
    if value is None:
        if not text:
            return None
        value = text
    try:
        return int(value)
    except (ValueError, TypeError):
        raise bad_request(f'strconv.ParseInt: parsing "{value}": invalid syntax (gracePeriodSeconds)') from None


def _body_dry_run(body: dict[str, Any]) -> bool:
    values = body.get("dryRun") or []
    if values and values != ["All"]:
        raise _invalid(f"{values}: dryRun may only be [All]", "dryRun")
    return bool(values)
