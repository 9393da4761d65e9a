"""The checks of level ``baseline``: known ways out of a container are closed."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

from glebe.apiserver.admission.podsecurity.words import (
    Check,
    Spec,
    Violation,
    bad_containers,
    containers,
    context,
    has_user_namespace,
    named,
    plural,
    quoted,
    setters,
)

_Meta = Mapping[str, Any]
_APPARMOR = "container.apparmor.security.beta.kubernetes.io/"
_SECCOMP_POD = "seccomp.security.alpha.kubernetes.io/pod"
_SECCOMP_CONTAINER = "container.seccomp.security.alpha.kubernetes.io/"
_PROFILES = ("RuntimeDefault", "Localhost")
_CAPABILITIES = frozenset(
    [
        "AUDIT_WRITE",
        "CHOWN",
        "DAC_OVERRIDE",
        "FOWNER",
        "FSETID",
        "KILL",
        "MKNOD",
        "NET_BIND_SERVICE",
        "SETFCAP",
        "SETGID",
        "SETPCAP",
        "SETUID",
        "SYS_CHROOT",
    ]
)
_SELINUX_TYPES = frozenset({"", "container_t", "container_init_t", "container_kvm_t"})
_SYSCTLS = frozenset(
    {
        "kernel.shm_rmid_forced",
        "net.ipv4.ip_local_port_range",
        "net.ipv4.tcp_syncookies",
        "net.ipv4.ping_group_range",
        "net.ipv4.ip_unprivileged_port_start",
    }
)
_SYSCTLS_27 = _SYSCTLS | {"net.ipv4.ip_local_reserved_ports"}
_SYSCTLS_29 = _SYSCTLS_27 | {
    "net.ipv4.tcp_keepalive_time",
    "net.ipv4.tcp_fin_timeout",
    "net.ipv4.tcp_keepalive_intvl",
    "net.ipv4.tcp_keepalive_probes",
}
_SYSCTLS_32 = _SYSCTLS_29 | {"net.ipv4.tcp_rmem", "net.ipv4.tcp_wmem"}


def app_armor(meta: _Meta, spec: Spec) -> Violation | None:
    values: set[str] = set()

    def is_bad(holder: Mapping[str, Any]) -> bool:
        profile = holder.get("appArmorProfile")
        if profile is None or profile.get("type") in _PROFILES:
            return False
        values.add(profile.get("type", ""))
        return True

    pod = is_bad(context(spec))
    who = [setters(pod, bad_containers(spec, is_bad))]
    notes = sorted(
        f'{key}="{value}"'
        for key, value in (meta.get("annotations") or {}).items()
        if key.startswith(_APPARMOR) and value and value != "runtime/default" and not value.startswith("localhost/")
    )
    if notes:
        who.append(plural("annotation", len(notes)))
    listed = [*sorted(values), *notes]
    if not listed:
        return None
    reason = plural("forbidden AppArmor profile", len(listed))
    return Violation(
        reason, f"{' and '.join(filter(None, who))} must not set AppArmor profile type to {quoted(listed)}"
    )


def capabilities(meta: _Meta, spec: Spec) -> Violation | None:
    added: set[str] = set()

    def is_bad(holder: Mapping[str, Any]) -> bool:
        bad = [c for c in (holder.get("capabilities") or {}).get("add") or () if c not in _CAPABILITIES]
        added.update(bad)
        return bool(bad)

    names = bad_containers(spec, is_bad)
    if not names:
        return None
    detail = f"{named(names)} must not include {quoted(sorted(added))} in securityContext.capabilities.add"
    return Violation("non-default capabilities", detail)


def host_namespaces(meta: _Meta, spec: Spec) -> Violation | None:
    used = [f"{field}=true" for field in ("hostNetwork", "hostPID", "hostIPC") if spec.get(field)]
    return Violation("host namespaces", ", ".join(used)) if used else None


def host_paths(meta: _Meta, spec: Spec) -> Violation | None:
    names = [v["name"] for v in spec.get("volumes") or () if v.get("hostPath") is not None]
    return Violation("hostPath volumes", f"{plural('volume', len(names))} {quoted(names)}") if names else None


def host_ports(meta: _Meta, spec: Spec) -> Violation | None:
    names, ports = [], set()
    for container in containers(spec):
        used = {str(p["hostPort"]) for p in container.get("ports") or () if p.get("hostPort")}
        ports |= used
        if used:
            names.append(container["name"])
    if not names:
        return None
    uses = f"{'uses' if len(names) == 1 else 'use'} {plural('hostPort', len(ports))}"
    return Violation("hostPort", f"{named(names)} {uses} {', '.join(sorted(ports))}")


def host_probes(meta: _Meta, spec: Spec) -> Violation | None:
    names, hosts = set(), set()
    for container in containers(spec):
        used = set(_hosts(container))
        hosts |= used
        if used:
            names.add(container["name"])
    if not names:
        return None
    uses = f"{'uses' if len(names) == 1 else 'use'} {plural('probe or lifecycle host', len(hosts))}"
    return Violation("probe or lifecycle host", f"{named(sorted(names))} {uses} {quoted(sorted(hosts))}")


def _hosts(container: Mapping[str, Any]) -> Iterator[str]:
    handlers = [container.get(f"{kind}Probe") for kind in ("liveness", "readiness", "startup")]
    handlers += [(container.get("lifecycle") or {}).get(kind) for kind in ("postStart", "preStop")]
    for handler in filter(None, handlers):
        for kind in ("httpGet", "tcpSocket"):
            host = (handler.get(kind) or {}).get("host")
            if host:
                yield host


def privileged(meta: _Meta, spec: Spec) -> Violation | None:
    names = bad_containers(spec, lambda holder: holder.get("privileged") is True)
    detail = f"{named(names)} must not set securityContext.privileged=true"
    return Violation("privileged", detail) if names else None


def proc_mount(meta: _Meta, spec: Spec) -> Violation | None:
    kinds: set[str] = set()

    def is_bad(holder: Mapping[str, Any]) -> bool:
        kind = holder.get("procMount")
        if kind in (None, "Default"):
            return False
        kinds.add(str(kind))
        return True

    names = bad_containers(spec, is_bad)
    detail = f"{named(names)} must not set securityContext.procMount to {quoted(sorted(kinds))}"
    return Violation("procMount", detail) if names else None


def proc_mount_35(meta: _Meta, spec: Spec) -> Violation | None:
    return None if has_user_namespace(spec) else proc_mount(meta, spec)


def _selinux(allowed: frozenset[str]) -> Check:
    def check(meta: _Meta, spec: Spec) -> Violation | None:
        kinds: set[str] = set()
        fields: set[str] = set()

        def is_bad(holder: Mapping[str, Any]) -> bool:
            options = holder.get("seLinuxOptions")
            if options is None:
                return False
            kind = options.get("type") or ""
            bad = {name for name in ("user", "role") if options.get(name)}
            fields.update(bad)
            if kind not in allowed:
                kinds.add(kind)
            return bool(bad) or kind not in allowed

        pod = is_bad(context(spec))
        who = setters(pod, bad_containers(spec, is_bad))
        if not who:
            return None
        data = [f"{plural('type', len(kinds))} {quoted(sorted(kinds))}"] if kinds else []
        data += [f"{name} may not be set" for name in ("user", "role") if name in fields]
        return Violation("seLinuxOptions", f"{who} set forbidden securityContext.seLinuxOptions: {'; '.join(data)}")

    return check


def seccomp_annotations(meta: _Meta, spec: Spec) -> Violation | None:
    notes = meta.get("annotations") or {}
    keys = [_SECCOMP_POD, *(_SECCOMP_CONTAINER + c["name"] for c in containers(spec))]
    bad = sorted({f'{key}="{notes[key]}"' for key in keys if key in notes and not _valid_seccomp(notes[key])})
    return Violation("seccompProfile", f"forbidden {plural('annotation', len(bad))} {', '.join(bad)}") if bad else None


def _valid_seccomp(value: str) -> bool:
    return value in ("runtime/default", "docker/default") or value.startswith("localhost/")


def seccomp(meta: _Meta, spec: Spec) -> Violation | None:
    kinds: set[str] = set()

    def is_bad(holder: Mapping[str, Any]) -> bool:
        profile = holder.get("seccompProfile")
        if profile is None or profile.get("type") in _PROFILES:
            return False
        kinds.add(profile.get("type", ""))
        return True

    pod = is_bad(context(spec))
    who = setters(pod, bad_containers(spec, is_bad))
    detail = f"{who} must not set securityContext.seccompProfile.type to {quoted(sorted(kinds))}"
    return Violation("seccompProfile", detail) if who else None


def _sysctls(allowed: frozenset[str]) -> Check:
    def check(meta: _Meta, spec: Spec) -> Violation | None:
        bad = [s["name"] for s in context(spec).get("sysctls") or () if s.get("name") not in allowed]
        return Violation("forbidden sysctls", ", ".join(bad)) if bad else None

    return check


def windows_host_process(meta: _Meta, spec: Spec) -> Violation | None:
    def is_bad(holder: Mapping[str, Any]) -> bool:
        return (holder.get("windowsOptions") or {}).get("hostProcess") is True

    who = setters(is_bad(context(spec)), bad_containers(spec, is_bad))
    detail = f"{who} must not set securityContext.windowsOptions.hostProcess=true"
    return Violation("hostProcess", detail) if who else None


selinux, selinux_31 = _selinux(_SELINUX_TYPES), _selinux(_SELINUX_TYPES | {"container_engine_t"})
sysctls, sysctls_27, sysctls_29, sysctls_32 = map(_sysctls, (_SYSCTLS, _SYSCTLS_27, _SYSCTLS_29, _SYSCTLS_32))
