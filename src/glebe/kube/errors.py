"""The API's errors, as Kubernetes words them.

One exception, :class:`ApiError`, carries a ``metav1.Status``; constructors for the usual cases give the message,
reason and code that upstream gives (``k8s.io/apimachinery/pkg/api/errors``). Server and client share it, so an error
raised in the server is the error that an in-process caller catches.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any


@dataclass(frozen=True, slots=True)
class Cause:
    """One field's fault: ``field`` is a path like ``spec.template.spec.containers[0].image``."""

    reason: str  # FieldValueInvalid, FieldValueRequired, FieldValueNotSupported, FieldValueForbidden, ...
    message: str
    field: str

    def text(self) -> str:
        """``FIELD: MESSAGE`` as it stands in an Invalid error's message."""
        return f"{self.field}: {self.message}"


class ApiError(Exception):
    """A request that the API refused or could not serve."""

    def __init__(
        self,
        code: int,
        reason: str,
        message: str,
        *,
        details: dict[str, Any] | None = None,
        retry_after: int | None = None,
        continue_: str = "",
    ) -> None:
        super().__init__(message)
        self.code = code
        self.reason = reason
        self.message = message
        self.details = details or {}
        self.continue_ = continue_
        """Where an expired list may go on (``metadata.continue`` of the Status)."""
        if retry_after is not None:
            self.details["retryAfterSeconds"] = retry_after

    def status(self) -> dict[str, Any]:
        """The ``metav1.Status`` object that goes over the wire."""
        body: dict[str, Any] = {
            "kind": "Status",
            "apiVersion": "v1",
            "metadata": {"continue": self.continue_} if self.continue_ else {},
            "status": "Failure",
            "message": self.message,
            "reason": self.reason,
        }
        if self.details:
            body["details"] = self.details
        body["code"] = self.code
        return body

    @classmethod
    def from_status(cls, status: dict[str, Any], code: int) -> ApiError:
        """Rebuild the error from a response body; tolerates bodies that are not a Status."""
        return cls(
            int(status.get("code") or code),
            str(status.get("reason") or "Unknown"),
            str(status.get("message") or f"the server answered {code}"),
            details=status.get("details") or {},
            continue_=str((status.get("metadata") or {}).get("continue") or ""),
        )

    @property
    def retry_after(self) -> int | None:
        value = self.details.get("retryAfterSeconds")
        return int(value) if value is not None else None


def _details(group: str, kind: str, name: str, causes: list[Cause] | None = None) -> dict[str, Any]:
    out: dict[str, Any] = {}
    if name:
        out["name"] = name
    if group:
        out["group"] = group
    if kind:
        out["kind"] = kind
    if causes:
        out["causes"] = [{"reason": c.reason, "message": c.message, "field": c.field} for c in causes]
    return out


def _qualified(resource: str, group: str) -> str:
    return f"{resource}.{group}" if group else resource


def not_found(group: str, resource: str, name: str) -> ApiError:
    message = f'{_qualified(resource, group)} "{name}" not found'
    return ApiError(404, "NotFound", message, details=_details(group, resource, name))


def path_not_found() -> ApiError:
    return ApiError(404, "NotFound", "the server could not find the requested resource")


def already_exists(group: str, resource: str, name: str) -> ApiError:
    message = f'{_qualified(resource, group)} "{name}" already exists'
    return ApiError(409, "AlreadyExists", message, details=_details(group, resource, name))


def conflict(group: str, resource: str, name: str, why: str) -> ApiError:
    message = f'Operation cannot be fulfilled on {_qualified(resource, group)} "{name}": {why}'
    return ApiError(409, "Conflict", message, details=_details(group, resource, name))


def modified(group: str, resource: str, name: str) -> ApiError:
    """The optimistic-locking conflict."""
    why = "the object has been modified; please apply your changes to the latest version and try again"
    return conflict(group, resource, name, why)


#: A body of a few hundred kilobytes can have a hundred thousand faults; nobody reads so many.
_MAX_CAUSES = 1000


def invalid(group: str, kind: str, name: str, causes: list[Cause]) -> ApiError:
    if (more := len(causes) - _MAX_CAUSES) > 0:
        causes = [*causes[:_MAX_CAUSES], Cause("FieldValueInvalid", f"and {more} more", "<nil>")]
    texts = [c.text() for c in causes]
    listed = texts[0] if len(texts) == 1 else "[" + ", ".join(texts) + "]"
    message = f'{_qualified(kind, group)} "{name}" is invalid: {listed}'
    return ApiError(422, "Invalid", message, details=_details(group, kind, name, causes))


def bad_request(message: str) -> ApiError:
    return ApiError(400, "BadRequest", message)


def unauthorized() -> ApiError:
    return ApiError(401, "Unauthorized", "Unauthorized")


def forbidden(group: str, resource: str, name: str, why: str) -> ApiError:
    target = (
        f'{_qualified(resource, group)} "{name}" is forbidden'
        if name
        else f"{_qualified(resource, group)} is forbidden"
    )
    return ApiError(403, "Forbidden", f"{target}: {why}", details=_details(group, resource, name))


def method_not_allowed() -> ApiError:
    message = "the server does not allow this method on the requested resource"
    return ApiError(405, "MethodNotAllowed", message)


def unsupported_media_type(got: str, accepted: list[str]) -> ApiError:
    message = (
        f"the body of the request was in an unknown format - accepted media types include: {', '.join(accepted)}"
        f" (got {got or 'none'})"
    )
    return ApiError(415, "UnsupportedMediaType", message)


def gone(message: str) -> ApiError:
    """The requested resourceVersion is older than the history that the server keeps."""
    return ApiError(410, "Expired", message)


def too_many_requests(message: str, retry_after: int = 1) -> ApiError:
    return ApiError(429, "TooManyRequests", message, retry_after=retry_after)


def internal(message: str) -> ApiError:
    return ApiError(500, "InternalError", f"Internal error occurred: {message}")


def is_not_found(error: BaseException) -> bool:
    return isinstance(error, ApiError) and error.code == 404


def is_conflict(error: BaseException) -> bool:
    """A lost optimistic lock, not an existing name."""
    return isinstance(error, ApiError) and error.code == 409 and error.reason == "Conflict"


def is_already_exists(error: BaseException) -> bool:
    return isinstance(error, ApiError) and error.code == 409 and error.reason == "AlreadyExists"
