"""The HTTP/1.1 front: sockets and bytes outside, one coroutine from request to response inside."""

from glebe.apiserver.http.limits import Limits
from glebe.apiserver.http.listener import HttpServer

__all__ = ["HttpServer", "Limits"]
