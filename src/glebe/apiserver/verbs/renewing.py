"""Renewals: a Lease of which nothing but ``spec.renewTime`` is new.

Every node writes one each few seconds, so that a server has more of them to do than of everything else together. The
steps of an update that only look at the object would find nothing to do, and are left out; admission is asked as ever.
"""

from __future__ import annotations

import orjson

from glebe.apiserver.patch.apply import identity_of
from glebe.apiserver.request.call import Call
from glebe.apiserver.types.prune import is_time
from glebe.kube.objects import Object

LEASES = "leases.coordination.k8s.io"
_FIELDS = 4  # apiVersion, kind, metadata, spec


def is_renewal(call: Call, new: Object, old: Object) -> bool:
    """Whether pruning, defaults, validation and field ownership would leave ``new`` as it is and allow it.

    ``old`` has been through them. That also the order of fields must be the old one costs those who write them in
    another order (as long as they do) the shorter way, nothing else.
    """
    if call.info.group_resource != LEASES or call.route.subresource or call.duplicates:
        return False
    spec, was, meta = new.get("spec"), old.get("spec"), old["metadata"]
    if type(spec) is not dict or type(was) is not dict or len(new) != _FIELDS or "deletionTimestamp" in meta:
        return False
    renewed, before = spec.get("renewTime"), was.get("renewTime")
    if renewed == before or type(before) is not str or not is_time(renewed):
        return False
    return _same({**new, "spec": {**spec, "renewTime": before}}, old) and _owns(call, meta)


def _same(a: Object, b: Object) -> bool:
    """As texts: to Python ``1 == True``."""
    return orjson.dumps(a) == orjson.dumps(b)


def _owns(call: Call, meta: Object) -> bool:
    """Whether the writer, and nobody else, is known to write ``spec.renewTime``."""
    me, owned = (call.field_manager(), "Update", call.info.api_version, ""), False
    for entry in meta.get("managedFields") or ():
        if "f:renewTime" in ((entry.get("fieldsV1") or {}).get("f:spec") or ()):
            if identity_of(entry) != me:
                return False
            owned = True
    return owned
