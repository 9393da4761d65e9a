"""The end of a pod: which refusals of its removal are an answer, and which are to be tried again."""

from __future__ import annotations

from typing import Any

import pytest

from glebe.kube.errors import ApiError, conflict, internal, modified, not_found
from glebe.node.podwrites import finish_deletion

POD = {"metadata": {"name": "p", "namespace": "n", "uid": "u"}}


class Refusing:
    def __init__(self, error: ApiError) -> None:
        self._error = error

    async def delete(self, *_: Any, **__: Any) -> None:
        raise self._error


@pytest.mark.parametrize(
    ("error", "fine"),
    [
        (not_found("", "pods", "p"), True),
        (conflict("", "pods", "p", "the UID in the precondition (u) does not match the UID in record (v)"), True),
        (modified("", "pods", "p"), False),
        (internal("etcd"), False),
    ],
)
async def test_a_pod_is_gone_or_it_is_tried_again(error: ApiError, fine: bool) -> None:
    client: Any = Refusing(error)
    if fine:
        await finish_deletion(client, POD)
        return
    with pytest.raises(ApiError):
        await finish_deletion(client, POD)
