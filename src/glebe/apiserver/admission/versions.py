"""Objects in the version in which a registration wants to see them."""

from __future__ import annotations

from typing import TYPE_CHECKING

import orjson

from glebe.apiserver.types.conversion import any_served, any_stored
from glebe.apiserver.types.registry import ResourceInfo
from glebe.kube.objects import Object

if TYPE_CHECKING:
    from glebe.apiserver.server import ApiServer


def copy(obj: Object) -> Object:
    """A deep copy."""
    made: Object = orjson.loads(orjson.dumps(obj))
    return made


async def convert(server: ApiServer, cluster: str, obj: Object, given: ResourceInfo, wanted: ResourceInfo) -> Object:
    """A copy of ``obj`` (of ``given``'s form) in the form of ``wanted``.

    :raises ApiError: a conversion webhook failed.
    """
    if given is wanted or given.api_version == wanted.api_version:
        return copy(obj)
    if given.is_custom:
        custom = given.custom
        if custom is not None and custom.conversion.get("strategy") == "Webhook":
            from glebe.apiserver.custom import converting  # late: few kinds have a conversion webhook

            converted = await converting.convert(server, cluster, custom, [copy(obj)], wanted.api_version)
            return converted[0]
        return {**copy(obj), "apiVersion": wanted.api_version}
    return any_served(wanted, any_stored(given, copy(obj)))
