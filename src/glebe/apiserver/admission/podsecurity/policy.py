"""A namespace's policy: three modes, each with a level and a version, from its labels."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any, NamedTuple

from glebe.kube.errors import Cause

PREFIX = "pod-security.kubernetes.io/"
LEVELS = ("privileged", "baseline", "restricted")
"""From the laxest to the strictest."""
_VERSION = re.compile(r"v1\.(0|[1-9][0-9]{0,8})", re.ASCII)


class LevelVersion(NamedTuple):
    level: str
    minor: int | None
    """None: the latest version."""

    def __str__(self) -> str:
        return f"{self.level}:{'latest' if self.minor is None else f'v1.{self.minor}'}"


_PRIVILEGED = LevelVersion("privileged", None)


@dataclass(frozen=True, slots=True)
class Policy:
    enforce: LevelVersion = _PRIVILEGED
    audit: LevelVersion = _PRIVILEGED
    warn: LevelVersion = _PRIVILEGED

    def is_privileged(self) -> bool:
        return self.enforce.level == self.audit.level == self.warn.level == LEVELS[0]


def _level(text: str) -> tuple[str, str]:
    return (text, "") if text in LEVELS else ("restricted", f"must be one of {', '.join(LEVELS)}")


def _version(text: str) -> tuple[int | None, str]:
    if text == "latest":
        return None, ""
    match = _VERSION.fullmatch(text)
    return (int(match[1]), "") if match else (None, 'must be "latest" or "v1.x"')


def read(labels: Mapping[str, str], defaults: Policy) -> tuple[Policy, list[Cause]]:
    """The policy that ``labels`` state, and what is wrong with them.

    A wrong level counts as ``restricted`` when it is enforced, and not at all for warnings and the audit log. Warnings
    follow what is enforced, unless they are spoken of.
    """
    if not any(name.startswith(PREFIX) for name in labels):
        return defaults, []  # asked for every pod, and most namespaces say nothing
    policy, causes = defaults, []
    stated: set[str] = set()
    for mode in ("enforce", "audit", "warn"):
        level, minor = getattr(policy, mode)
        if (text := labels.get(PREFIX + mode)) is not None:
            level, wrong = _level(text)
            if wrong:
                causes.append(_invalid(mode, text, wrong))
                level = level if mode == "enforce" else LEVELS[0]
            if not wrong or mode != "enforce":
                stated.add(mode)
        if (text := labels.get(f"{PREFIX}{mode}-version")) is not None:
            minor, wrong = _version(text)
            stated.add(f"{mode}-version")
            if wrong:
                causes.append(_invalid(f"{mode}-version", text, wrong))
        policy = replace(policy, **{mode: LevelVersion(level, minor)})
    follows = "warn" not in stated and "enforce" in stated
    if follows and LEVELS.index(policy.enforce.level) > LEVELS.index(policy.warn.level):
        minor = policy.warn.minor if "warn-version" in stated else policy.enforce.minor
        policy = replace(policy, warn=LevelVersion(policy.enforce.level, minor))
    return policy, causes


def _invalid(label: str, text: str, why: str) -> Cause:
    return Cause("FieldValueInvalid", f'Invalid value: "{text}": {why}', f"metadata.labels[{PREFIX}{label}]")


def defaults_from(configuration: Mapping[str, Any]) -> Policy:
    """The policy of namespaces without labels (``defaults`` of a PodSecurityConfiguration).

    :raises ValueError: for a level or a version that does not exist.
    """
    labels = {PREFIX + key: str(value) for key, value in (configuration.get("defaults") or {}).items()}
    policy = Policy()
    for mode in ("enforce", "audit", "warn"):
        level, wrong = _level(labels.get(PREFIX + mode, LEVELS[0]))
        minor, wrong_too = _version(labels.get(f"{PREFIX}{mode}-version", "latest"))
        if wrong or wrong_too:
            raise ValueError(f"pod security defaults: {mode}: {wrong or wrong_too}")
        policy = replace(policy, **{mode: LevelVersion(level, minor)})
    return policy
