"""Discovery, OpenAPI and the root index."""

from __future__ import annotations

from typing import TYPE_CHECKING

from glebe.apiserver.routing import Route
from glebe.kube import errors
from glebe.kube.transport import Request, Response

if TYPE_CHECKING:
    from glebe.apiserver.server import ApiServer


def browse(server: ApiServer, request: Request, route: Route) -> Response:
    """Answer a path that names no object."""
    raise errors.path_not_found()
