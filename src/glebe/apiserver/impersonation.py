"""``Impersonate-User`` and its kin: acting as somebody else, by those who may."""

from __future__ import annotations

from typing import TYPE_CHECKING

from glebe.kube import errors
from glebe.kube.transport import Request, User

if TYPE_CHECKING:
    from glebe.apiserver.server import Authorizer

_ACCOUNT = "system:serviceaccount:"


async def effective_user(request: Request, user: User, cluster: str, authorizer: Authorizer | None) -> User:
    """Whom the request is on behalf of.

    :raises ApiError: 403 when ``user`` may not act as that one, 400 for groups without a user.
    """
    headers = request.headers
    name = headers.get("impersonate-user", "")
    groups = tuple(g.strip() for g in headers.get("impersonate-group", "").split(",") if g.strip())
    if not name:
        if groups or "impersonate-uid" in headers:
            raise errors.bad_request("requested groups without impersonating a user")
        return user
    await _require(user, cluster, authorizer, *_target(name))
    for group in groups:
        await _require(user, cluster, authorizer, "groups", "", group)
    if name.startswith(_ACCOUNT) and not groups:
        namespace = name[len(_ACCOUNT) :].partition(":")[0]
        groups = ("system:serviceaccounts", f"system:serviceaccounts:{namespace}")
    if name != "system:anonymous" and "system:authenticated" not in groups:
        groups = (*groups, "system:authenticated")
    return User(name, groups, headers.get("impersonate-uid", ""))


def _target(name: str) -> tuple[str, str, str]:
    """(resource, namespace, name) on which the right to impersonate is needed."""
    if name.startswith(_ACCOUNT):
        namespace, _, account = name[len(_ACCOUNT) :].partition(":")
        return "serviceaccounts", namespace, account
    return "users", "", name


async def _require(
    user: User, cluster: str, authorizer: Authorizer | None, resource: str, namespace: str, name: str
) -> None:
    if authorizer is None or "system:masters" in user.groups:
        return
    allowed, _ = await authorizer.authorize(user, cluster, "impersonate", "", resource, "", namespace, name, "")
    if not allowed:
        where = f'in the namespace "{namespace}"' if namespace else "at the cluster scope"
        why = f'User "{user.name}" cannot impersonate resource "{resource}" in API group "" {where}'
        raise errors.forbidden("", resource, name, why)
