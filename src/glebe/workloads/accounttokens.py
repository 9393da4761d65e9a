"""Secrets that hold tokens: service accounts' are filled in and end with their account, new nodes' expire."""

from __future__ import annotations

from base64 import b64decode, b64encode
from binascii import Error as NotBase64
from collections.abc import Callable, Iterable

from glebe.kube.client import Client
from glebe.kube.clock import Env, parse_time
from glebe.kube.controller import Controller, Result
from glebe.kube.errors import ApiError, is_not_found
from glebe.kube.informer import Informers
from glebe.kube.objects import Object, ObjectKey, annotations_of, is_deleting, key_of
from glebe.kube.resources import SECRETS, SERVICE_ACCOUNTS

ACCOUNT_TOKEN = "kubernetes.io/service-account-token"
BOOTSTRAP_TOKEN = "bootstrap.kubernetes.io/token"
ACCOUNT = "kubernetes.io/service-account.name"
ACCOUNT_UID = "kubernetes.io/service-account.uid"
SYSTEM = "kube-system"

IssueToken = Callable[[str, Object, str], str]
"""(cluster, service account, name of the secret) -> a token without an end."""


class AccountTokenController:
    """Fills secrets of type ``kubernetes.io/service-account-token``."""

    def __init__(self, client: Client, informers: Informers, env: Env, issue: IssueToken, root_ca: str) -> None:
        self._client = client
        self._env = env
        self._issue = issue
        self._root_ca = root_ca
        self._secrets = informers.get(SECRETS, field_selector=f"type={ACCOUNT_TOKEN}")

    def controller(self) -> Controller:
        controller = Controller("accounttokens", self.reconcile, self._env)
        controller.watch(self._secrets)
        return controller

    async def reconcile(self, key: ObjectKey) -> Result | None:
        secret = self._secrets.store.get(key)
        if secret is None or is_deleting(secret):
            return None
        client = self._client.at(key.cluster)
        notes = annotations_of(secret)
        name, uid = notes.get(ACCOUNT, ""), notes.get(ACCOUNT_UID, "")
        if not name:
            return None
        try:
            account = await _read(client, name, key.namespace)
            if account is None or (uid and account["metadata"]["uid"] != uid):
                await client.delete(SECRETS, key.name, key.namespace, uid=secret["metadata"]["uid"])
                return None
            wanted = self._filled(key, secret, account)
            if wanted != secret:
                await client.update(SECRETS, wanted)
        except ApiError as error:
            if not is_not_found(error):
                raise
        return Result(requeue_after=_LOOK_AGAIN)

    def _filled(self, key: ObjectKey, secret: Object, account: Object) -> Object:
        data = dict(secret.get("data") or {})
        if not data.get("token"):
            data["token"] = b64encode(self._issue(key.cluster, account, key.name).encode()).decode()
        if self._root_ca:
            data["ca.crt"] = b64encode(self._root_ca.encode()).decode()
        data["namespace"] = b64encode(key.namespace.encode()).decode()
        notes = {**annotations_of(secret), ACCOUNT_UID: account["metadata"]["uid"]}
        return {**secret, "data": data, "metadata": {**secret["metadata"], "annotations": notes}}


_LOOK_AGAIN = 300.0
"""Seconds until it is seen that the account is gone; its token is worth nothing from the moment of its deletion."""


async def _read(client: Client, name: str, namespace: str) -> Object | None:
    try:
        return await client.get(SERVICE_ACCOUNTS, name, namespace)
    except ApiError as error:
        if is_not_found(error):
            return None
        raise


class TokenCleaner:
    """Deletes bootstrap tokens when their time is over."""

    def __init__(self, client: Client, informers: Informers, env: Env) -> None:
        self._client = client
        self._env = env
        self._secrets = informers.get(SECRETS, field_selector=f"type={BOOTSTRAP_TOKEN}")

    def controller(self) -> Controller:
        controller = Controller("tokencleaner", self.reconcile, self._env)
        controller.watch(self._secrets, self._system_only)
        return controller

    def _system_only(self, secret: Object) -> Iterable[ObjectKey]:
        if secret["metadata"].get("namespace") == SYSTEM:
            yield key_of(secret, self._secrets.cluster)

    async def reconcile(self, key: ObjectKey) -> Result | None:
        secret = self._secrets.store.get(key)
        left = None if secret is None else _time_left(secret, self._env.clock.now())
        if secret is None or left is None:
            return None
        if left > 0:
            return Result(requeue_after=left)
        try:
            await self._client.at(key.cluster).delete(SECRETS, key.name, SYSTEM, uid=secret["metadata"]["uid"])
        except ApiError as error:
            if not is_not_found(error):
                raise
        return None


def _time_left(secret: Object, now: float) -> float | None:
    """Seconds until the token ends; ``None``: never. What cannot be read has ended."""
    raw = (secret.get("data") or {}).get("expiration")
    if not raw:
        return None
    try:
        return parse_time(b64decode(raw).decode()) - now
    except (ValueError, NotBase64):
        return 0.0


def build(
    client: Client, informers: Informers, env: Env, issue: IssueToken | None = None, root_ca: str = ""
) -> list[Controller]:
    """The controllers of what ``client`` sees: one logical cluster, or all; without ``issue`` nothing is filled in."""
    made = [TokenCleaner(client, informers, env).controller()]
    if issue is not None:
        made.append(AccountTokenController(client, informers, env, issue, root_ca).controller())
    return made
