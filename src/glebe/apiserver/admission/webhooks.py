"""Mutating and validating admission webhooks (``admissionregistration.k8s.io/v1``)."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import orjson

from glebe.apiserver.admission import reviews
from glebe.apiserver.admission.base import AdmissionAttributes
from glebe.apiserver.admission.conditions import Asker, ConditionError, Conditions, request_value
from glebe.apiserver.admission.matching import Match, Matcher
from glebe.apiserver.admission.mutating import replace
from glebe.apiserver.admission.registrations import Shared
from glebe.apiserver.admission.versions import convert
from glebe.apiserver.dialing import DialError, decode_bundle
from glebe.apiserver.patch import json_patch
from glebe.kube import errors
from glebe.kube.objects import Object

if TYPE_CHECKING:
    from glebe.apiserver.server import ApiServer

log = logging.getLogger("glebe.apiserver")

_MUTATION = "mutation.webhook.admission.k8s.io/"
_FAILED_OPEN = {True: f"failed-open.{_MUTATION}", False: "failed-open.validating.webhook.admission.k8s.io/"}
_HARMLESS = ("None", "NoneOnDryRun")


class CallFailed(Exception):
    """The webhook did not answer, or not with an answer: its failure policy decides."""


class Compiled:
    """What can be worked out once about a webhook, whoever registers it."""

    __slots__ = ("conditions", "ignore", "matcher", "reinvoke", "spec", "timeout", "versions")

    def __init__(self, spec: Mapping[str, Any]) -> None:
        self.spec = spec
        self.matcher = Matcher(spec)
        self.ignore = spec.get("failurePolicy") == "Ignore"
        self.conditions = Conditions(list(spec.get("matchConditions") or ()), ignore=self.ignore)
        self.timeout = float(spec.get("timeoutSeconds") or 10)
        self.reinvoke = spec.get("reinvocationPolicy") == "IfNeeded"
        self.versions: list[str] = list(spec.get("admissionReviewVersions") or ())


@dataclass(frozen=True, slots=True)
class Hook:
    """One webhook of one configuration."""

    configuration: str
    name: str
    uid: str
    compiled: Compiled


_shared: Shared[Compiled] = Shared(Compiled)


def _hooks(stored: dict[str, list[Object]]) -> tuple[Hook, ...]:
    found: list[Hook] = []
    for configuration in (c for objs in stored.values() for c in objs):
        name = configuration["metadata"]["name"]
        times: dict[str, int] = {}
        for spec in configuration.get("webhooks") or ():
            count = times[spec["name"]] = times.get(spec["name"], -1) + 1
            found.append(Hook(name, spec["name"], f"{name}/{spec['name']}/{count}", _shared.of(spec)))
    return tuple(found)


class _Forms:
    """The request's objects, converted once per version that somebody wants to see."""

    def __init__(self, server: ApiServer, a: AdmissionAttributes) -> None:
        self._server = server
        self._a = a
        self._made: dict[tuple[str, bool], Object | None] = {}

    async def get(self, match: Match, old: bool = False) -> Object | None:
        a = self._a
        obj = a.old if old else a.obj
        # what stands below an object (Scale, PodExecOptions...) has a form of its own
        if obj is None or match.info is a.info or (a.subresource and match.kind[2] != a.info.kind):
            return obj
        key = (match.info.api_version, old)
        if key not in self._made:
            self._made[key] = await convert(self._server, a.cluster, obj, a.info, match.info)
        return self._made[key]

    def changed(self) -> None:
        """The object is another now."""
        self._made = {key: form for key, form in self._made.items() if key[1]}


class _Webhooks:
    """What both kinds have in common."""

    mutating = False

    def __init__(self, server: ApiServer) -> None:
        self._server = server

    @staticmethod
    def read(stored: dict[str, list[Object]]) -> tuple[Hook, ...]:
        """All webhooks by the names of their configurations, in their order inside."""
        return _hooks(stored)

    async def _select(self, hook: Hook, a: AdmissionAttributes, forms: _Forms, asker: Asker) -> Match | None:
        """The version to call the webhook in; None when it is not to be called.

        :raises ApiError: 403 when its conditions fail, or its namespace is not there.
        """
        match = hook.compiled.matcher.match(self._server, a)
        if match is None or not hook.compiled.conditions:
            return match

        async def values() -> Mapping[str, Any]:
            return {
                "object": await forms.get(match),
                "oldObject": await forms.get(match, old=True),
                "request": request_value(a, match),
                "authorizer": asker.authorizer,
            }

        try:
            return match if await hook.compiled.conditions.hold(asker, values) else None
        except ConditionError as error:
            raise a.refusal(str(error)) from None

    async def _call(self, hook: Hook, match: Match, a: AdmissionAttributes, forms: _Forms) -> reviews.Verdict:
        """:raises CallFailed: no answer. :raises ApiError: it may not be called in a dry run."""
        spec = hook.compiled.spec
        if a.dry_run and spec.get("sideEffects") not in _HARMLESS:
            raise errors.bad_request(f'admission webhook "{hook.name}" does not support dry run')
        version = reviews.version_for(hook.compiled.versions)
        if not version:
            why = "webhook does not accept known AdmissionReview versions (v1, v1beta1)"
            raise CallFailed(f"could not create admission objects: {why}")
        uid = self._server.env.new_uid()
        body = reviews.request_for(a, match, version, uid, await forms.get(match), await forms.get(match, old=True))
        answer = await self._post(hook, a.cluster, body)
        try:
            verdict = reviews.verdict_of(answer, version, uid, self.mutating)
        except reviews.BadReview as error:
            raise CallFailed(f"received invalid webhook response: {error}") from None
        for key, value in verdict.annotations.items():
            a.annotate(f"{hook.name}/{key}", value)
        for warning in verdict.warnings:
            a.warn(warning)
        return verdict

    async def _post(self, hook: Hook, cluster: str, body: bytes) -> bytes:
        dialer, config = self._server.dialer, hook.compiled.spec.get("clientConfig") or {}
        timeout = hook.compiled.timeout
        url = str(config.get("url") or "")
        try:
            async with asyncio.timeout(timeout):
                target = await dialer.of_client_config(cluster, config)
                url = target.url
                context = dialer.context(decode_bundle(config.get("caBundle")), name=target.server_name)
                answer = await dialer.request(
                    target,
                    "POST",
                    body,
                    headers={"content-type": "application/json", "accept": "application/json"},
                    context=context,
                    timeout=timeout,
                    query=f"{'&' if '?' in target.path else '?'}timeout={int(timeout)}s",
                )
        except DialError as error:
            shown = url or _service_url(config)
            raise CallFailed(f'failed to call webhook: Post "{shown}?timeout={int(timeout)}s": {error}') from None
        except TimeoutError:
            why = "context deadline exceeded"
            shown = url or _service_url(config)
            raise CallFailed(f'failed to call webhook: Post "{shown}?timeout={int(timeout)}s": {why}') from None
        if not 200 <= answer.status < 300:
            raise CallFailed(f"failed to call webhook: {_http_failure(answer.status, answer.body)}")
        return answer.body

    def _fail(self, hook: Hook, why: str, a: AdmissionAttributes, mark: str) -> None:
        """A webhook could not be asked: refuse, or go on when it fails open.

        :raises ApiError: 500.
        """
        message = f'failed calling webhook "{hook.name}": {why}'
        if not hook.compiled.ignore:
            log.warning("failing closed: %s", message)
            error = errors.internal(message)
            error.details["causes"] = [{"message": message}]
            raise error
        log.warning("failing open: %s", message)
        a.annotate(f"{_FAILED_OPEN[self.mutating]}{mark}", hook.name)


def _service_url(config: Mapping[str, Any]) -> str:
    service = config.get("service") or {}
    path = str(service.get("path") or "/")
    return f"https://{service.get('name')}.{service.get('namespace')}.svc:{service.get('port') or 443}{path}"


def _http_failure(status: int, body: bytes) -> str:
    if status == 404:
        return "the server could not find the requested resource"
    text = body[:1024].decode("utf-8", "replace").strip()
    return f'an error on the server ("{text}") has prevented the request from succeeding'


class MutatingWebhooks(_Webhooks):
    """One after the other; each sees what the ones before have made."""

    mutating = True

    async def admit(self, a: AdmissionAttributes, hooks: tuple[Hook, ...]) -> None:
        """Call those of ``hooks`` that the request concerns."""
        again = a.rounds()
        state: set[str] = again.notes.setdefault("webhooks", set())
        if again.round and again.notes.get("webhooks' output") != _fingerprint(a.obj):
            again.notes["webhooks due"] = set(state)
        due: set[str] = again.notes.get("webhooks due", set())
        forms, asker = _Forms(self._server, a), Asker(self._server, a)
        for index, hook in enumerate(hooks):
            if again.round and hook.uid not in due:
                continue
            match = await self._select(hook, a, forms, asker)
            if match is None:
                continue
            if await self._mutate(hook, match, a, forms, f"round_{again.round}_index_{index}"):
                forms.changed()
                again.notes["webhooks due"] = set(state)
                due = again.notes["webhooks due"]
                again.wanted = True
            if hook.compiled.reinvoke:
                state.add(hook.uid)
        again.notes["webhooks' output"] = _fingerprint(a.obj)

    async def _mutate(self, hook: Hook, match: Match, a: AdmissionAttributes, forms: _Forms, mark: str) -> bool:
        """Ask one webhook; True when it has changed the object."""
        changed = False
        try:
            verdict = await self._call(hook, match, a, forms)
            if not verdict.allowed:
                raise reviews.denial(hook.name, verdict.result)
            if verdict.patch:
                changed = await self._patch(match, a, forms, verdict.patch)
        except CallFailed as error:
            self._fail(hook, str(error), a, mark)
        finally:
            note = {"configuration": hook.configuration, "webhook": hook.name, "mutated": changed}
            a.annotate(f"{_MUTATION}{mark}", orjson.dumps(note).decode())
        return changed

    async def _patch(self, match: Match, a: AdmissionAttributes, forms: _Forms, operations: list[Any]) -> bool:
        seen = await forms.get(match)
        if seen is None or a.obj is None:
            raise errors.internal(f"admission webhook attempted to modify the object, which is not supported for this "
                                  f"operation ({a.operation})")  # fmt: skip
        try:
            patched = json_patch.apply(orjson.loads(orjson.dumps(seen)), operations)
        except errors.ApiError as error:
            raise errors.internal(error.message) from None
        if not isinstance(patched, dict):
            raise errors.internal("the webhook's patch leaves no object")
        if match.info is not a.info and seen is not a.obj:
            patched = await convert(self._server, a.cluster, patched, match.info, a.info)
        return replace(a, patched)


class ValidatingWebhooks(_Webhooks):
    """All at once; the first refusal in their order is the answer."""

    async def validate(self, a: AdmissionAttributes, hooks: tuple[Hook, ...]) -> None:
        """Call those of ``hooks`` that the request concerns."""
        forms, asker = _Forms(self._server, a), Asker(self._server, a)
        calls = []
        chosen = [(hook, await self._select(hook, a, forms, asker)) for hook in hooks]
        for index, (hook, match) in enumerate((h, m) for h, m in chosen if m is not None):
            calls.append(self._judge(hook, match, a, forms, index))
        if len(calls) == 1:
            await calls[0]
            return
        outcomes = await asyncio.gather(*calls, return_exceptions=True)
        for outcome in outcomes:
            if isinstance(outcome, BaseException):
                raise outcome

    async def _judge(self, hook: Hook, match: Match, a: AdmissionAttributes, forms: _Forms, index: int) -> None:
        try:
            verdict = await self._call(hook, match, a, forms)
        except CallFailed as error:
            self._fail(hook, str(error), a, f"round_0_index_{index}")
            return
        if not verdict.allowed:
            raise reviews.denial(hook.name, verdict.result)


def _fingerprint(obj: Object | None) -> bytes:
    return b"" if obj is None else orjson.dumps(obj, option=orjson.OPT_SORT_KEYS)
