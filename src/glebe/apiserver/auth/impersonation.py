"""``Impersonate-User`` and its kin: acting as somebody else, by those who may."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING
from urllib.parse import unquote

from glebe.kube import errors
from glebe.kube.transport import Request, User

if TYPE_CHECKING:
    from glebe.apiserver.contracts import Authorizer

_PREFIX, _EXTRA = "impersonate-", "impersonate-extra-"
_ACCOUNT = "system:serviceaccount:"
_ANONYMOUS = "system:anonymous"
_AUTHENTICATION = "authentication.k8s.io"


def is_asked(headers: Mapping[str, str]) -> bool:
    """Whether any of these headers (names in lower case) wants the request to be somebody else's."""
    return any(name.startswith(_PREFIX) for name in headers)


async def effective_user(request: Request, user: User, cluster: str, authorizer: Authorizer | None) -> User:
    """Whom the request is on behalf of.

    :raises ApiError: 403 when ``user`` may not act as that one, 400 for other parts of an identity without its name.
    """
    headers = request.headers
    name, uid = headers.get("impersonate-user", ""), headers.get("impersonate-uid", "")
    groups = _values(headers.get("impersonate-group", ""))
    extra = {unquote(k[len(_EXTRA) :]): _values(v) for k, v in headers.items() if k.startswith(_EXTRA)}
    if not name:
        raise errors.bad_request("requested groups, uid or extra without impersonating a user")
    asker = _Asker(user, cluster, authorizer)
    await asker.require(*_target(name))
    for group in groups:
        await asker.require("", "groups", name=group)
    if uid:
        await asker.require(_AUTHENTICATION, "uids", name=uid)
    for key, values in extra.items():
        for value in values:
            await asker.require(_AUTHENTICATION, "userextras", key, name=value)
    return User(name, _with_implied(name, groups), uid, extra)


def _values(text: str) -> tuple[str, ...]:
    return tuple(part.strip() for part in text.split(",") if part.strip())


def _account(name: str) -> tuple[str, str] | None:
    """(namespace, name) of a service account's user name."""
    namespace, _, account = name.removeprefix(_ACCOUNT).partition(":")
    proper = name.startswith(_ACCOUNT) and namespace and account and ":" not in account
    return (namespace, account) if proper else None


def _with_implied(name: str, groups: tuple[str, ...]) -> tuple[str, ...]:
    """The groups that come with the name."""
    account = _account(name)
    if account is not None and not groups:
        groups = ("system:serviceaccounts", f"system:serviceaccounts:{account[0]}")
    implied = "system:unauthenticated" if name == _ANONYMOUS else "system:authenticated"
    return groups if implied in groups else (*groups, implied)


def _target(name: str) -> tuple[str, str, str, str, str]:
    """(group, resource, subresource, namespace, name) on which the right to impersonate is needed."""
    account = _account(name)
    return ("", "users", "", "", name) if account is None else ("", "serviceaccounts", "", *account)


class _Asker:
    """The one who is really there."""

    def __init__(self, user: User, cluster: str, authorizer: Authorizer | None) -> None:
        self._user = user
        self._cluster = cluster
        self._authorizer = authorizer

    async def require(
        self, group: str, resource: str, subresource: str = "", namespace: str = "", name: str = ""
    ) -> None:
        """The right to impersonate this.

        :raises ApiError: 403.
        """
        user = self._user
        if self._authorizer is None or "system:masters" in user.groups:
            return
        allowed, _ = await self._authorizer.authorize(
            user, self._cluster, "impersonate", group, resource, subresource, namespace, name, ""
        )
        if not allowed:
            what = f"{resource}/{subresource}" if subresource else resource
            where = f'in the namespace "{namespace}"' if namespace else "at the cluster scope"
            why = f'User "{user.name}" cannot impersonate resource "{what}" in API group "{group}" {where}'
            raise errors.forbidden(group, resource, name, why)
