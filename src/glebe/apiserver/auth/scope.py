"""In which logical clusters an identity is good.

Three rules (the contract of the platform): what was issued for a cluster is good in that very cluster, not in another
and not in a later one of the same name; what was issued by the platform without such a restriction is good in the root
cluster; and members of ``system:masters`` of the root cluster may reach all clusters.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from dataclasses import dataclass

from glebe.apiserver.request.routing import ROOT
from glebe.kube.transport import User

MASTERS = "system:masters"
PREFIX = "urn:glebe:"
_URN = re.compile(r"urn:glebe:cluster:([a-z0-9](?:[-a-z0-9]{0,61}[a-z0-9])?):([-0-9A-Za-z]{1,64})")

UidOf = Callable[[str], str]
"""The uid of a logical cluster by its name; "" when there is none."""


@dataclass(frozen=True, slots=True)
class Scope:
    """The one cluster for which something was issued."""

    name: str
    uid: str

    def urn(self) -> str:
        """As it stands among a certificate's subject alternative names."""
        return f"urn:glebe:cluster:{self.name}:{self.uid}"

    def holds_in(self, cluster: str, uid_of: UidOf) -> bool:
        """Whether ``cluster`` is the very one."""
        return bool(self.uid) and cluster == self.name and uid_of(cluster) == self.uid


def parse_urn(text: str) -> Scope:
    """The scope that a certificate's URI names.

    :raises ValueError: it begins like one and is none.
    """
    found = _URN.fullmatch(text)
    if found is None:
        raise ValueError(f"{text!r} names no logical cluster")
    return Scope(found[1], found[2])


def root_identity_holds(user: User, cluster: str) -> bool:
    """Whether an identity of the platform itself (not restricted to a cluster) is good in ``cluster``."""
    return cluster == ROOT or MASTERS in user.groups
