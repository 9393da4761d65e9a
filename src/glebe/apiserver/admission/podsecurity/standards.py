"""Which checks make up a level in a version."""

from __future__ import annotations

from functools import cache
from typing import NamedTuple

from glebe.apiserver.admission.podsecurity import baseline as b
from glebe.apiserver.admission.podsecurity import restricted as r
from glebe.apiserver.admission.podsecurity.words import Check, Spec, Violation

NEWEST = 35
"""The minor version since which no standard has changed."""


class _Row(NamedTuple):
    name: str
    versions: tuple[tuple[int, Check], ...]
    """(from this minor version on, check), oldest first."""
    replaces: str = ""
    """The baseline check that need not run beside it."""


_BASELINE = (
    _Row("appArmorProfile", ((0, b.app_armor),)),
    _Row("capabilities_baseline", ((0, b.capabilities),)),
    _Row("hostNamespaces", ((0, b.host_namespaces),)),
    _Row("hostPathVolumes", ((0, b.host_paths),)),
    _Row("hostPorts", ((0, b.host_ports),)),
    _Row("hostProbesAndHostLifecycle", ((34, b.host_probes),)),
    _Row("privileged", ((0, b.privileged),)),
    _Row("procMount", ((0, b.proc_mount), (35, b.proc_mount_35))),
    _Row("seLinuxOptions", ((0, b.selinux), (31, b.selinux_31))),
    _Row("seccompProfile_baseline", ((0, b.seccomp_annotations), (19, b.seccomp))),
    _Row("sysctls", ((0, b.sysctls), (27, b.sysctls_27), (29, b.sysctls_29), (32, b.sysctls_32))),
    _Row("windowsHostProcess", ((0, b.windows_host_process),)),
)
_RESTRICTED = (
    _Row("allowPrivilegeEscalation", ((8, r.privilege_escalation), (25, r.privilege_escalation_25))),
    _Row("capabilities_restricted", ((22, r.capabilities), (25, r.capabilities_25)), "capabilities_baseline"),
    _Row("procMount_restricted", ((35, b.proc_mount),), "procMount"),
    _Row("restrictedVolumes", ((0, r.volumes),), "hostPathVolumes"),
    _Row("runAsNonRoot", ((0, r.run_as_non_root), (35, r.run_as_non_root_35))),
    _Row("runAsUser", ((23, r.run_as_user), (35, r.run_as_user_35))),
    _Row("seccompProfile_restricted", ((19, r.seccomp), (25, r.seccomp_25)), "seccompProfile_baseline"),
)


def _at(row: _Row, minor: int) -> Check | None:
    found = [check for since, check in row.versions if since <= minor]
    return found[-1] if found else None


@cache
def checks(level: str, minor: int) -> tuple[Check, ...]:
    """The checks of ``baseline`` or ``restricted`` (which has baseline's, too) in version 1.``minor``."""
    hard = [(row, check) for row in _RESTRICTED if level == "restricted" and (check := _at(row, minor)) is not None]
    replaced = {row.replaces for row, _ in hard}
    basic = [check for row in _BASELINE if row.name not in replaced and (check := _at(row, minor)) is not None]
    return (*basic, *(check for _, check in hard))


def violations(level: str, minor: int | None, meta: Spec, spec: Spec) -> list[Violation]:
    """Everything that a pod violates; ``minor`` None is the latest version."""
    if level == "privileged":
        return []
    found = (check(meta, spec) for check in checks(level, NEWEST if minor is None else min(minor, NEWEST)))
    return [violation for violation in found if violation is not None]
