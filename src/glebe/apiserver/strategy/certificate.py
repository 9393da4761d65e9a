"""CertificateSigningRequest: what was asked for never changes; who may approve and who may sign write their part."""

from __future__ import annotations

import re
from base64 import b64decode
from binascii import Error as NotBase64
from typing import Any

from glebe.apiserver.strategy.base import Strategy, forbidden
from glebe.kube.errors import Cause
from glebe.kube.objects import Object

REQUESTER = ("username", "uid", "groups", "extra")
LEGACY_UNKNOWN = "kubernetes.io/legacy-unknown"
USAGES = (
    "any", "cert sign", "client auth", "code signing", "content commitment", "crl sign", "data encipherment",
    "decipher only", "digital signature", "email protection", "encipher only", "ipsec end system", "ipsec tunnel",
    "ipsec user", "key agreement", "key encipherment", "microsoft sgc", "netscape sgc", "ocsp signing", "s/mime",
    "server auth", "signing", "timestamping",
)  # fmt: skip
_DECIDED = ("Approved", "Denied")
_FINAL = (*_DECIDED, "Failed")
_LABEL = r"[a-z0-9](?:[-a-z0-9]{0,61}[a-z0-9])?"
_DOMAIN = re.compile(rf"{_LABEL}(?:\.{_LABEL})+")
_PATH = re.compile(r"[A-Za-z0-9](?:[-A-Za-z0-9._]*[A-Za-z0-9])?")


class _Judged(dict[str, Any]):
    """A status that a write to ``approval`` has made; an update of anything else keeps the old one."""


class CertificateStrategy(Strategy):
    """See the module. Who asks is filled in by admission, which knows the user."""

    def prepare_create(self, obj: Object, now: str) -> None:
        for field in REQUESTER:
            (obj.get("spec") or {}).pop(field, None)
        obj["status"] = {}

    def prepare_update(self, obj: Object, old: Object, now: str) -> None:
        obj["spec"] = old.get("spec") or {}
        status = obj.get("status")
        if isinstance(status, _Judged):
            obj["status"] = _stamped(dict(status), old, now)
        else:
            obj["status"] = old.get("status") or {}

    def prepare_status(self, obj: Object, old: Object, now: str) -> None:
        super().prepare_status(obj, old, now)
        status, before = obj.get("status") or {}, old.get("status") or {}
        conditions = list(status.get("conditions") or ())
        for kind in _DECIDED:
            places = [i for i, c in enumerate(conditions) if c.get("type") == kind]
            kept = [c for c in before.get("conditions") or () if c.get("type") == kind]
            if len(places) == len(kept):
                for place, condition in zip(places, kept, strict=True):
                    conditions[place] = condition
        if conditions:
            status = {**status, "conditions": conditions}
        obj["status"] = _stamped(status, old, now)

    def confine(self, obj: Object, old: Object, subresource: str) -> None:
        wanted = (obj.get("status") or {}).get("conditions")
        status = _Judged({k: v for k, v in (old.get("status") or {}).items() if k != "conditions"})
        if wanted:
            status["conditions"] = wanted
        obj["status"] = status

    def validate_create(self, obj: Object) -> list[Cause]:
        return _check(obj, None)

    def validate_update(self, obj: Object, old: Object, subresource: str) -> list[Cause]:
        return [*_check(obj, old), *_check_change(obj, old, subresource)]


def _stamped(status: Object, old: Object, now: str) -> Object:
    """Times of conditions are filled in."""
    before = (old.get("status") or {}).get("conditions") or ()
    for condition in status.get("conditions") or ():
        if not condition.get("lastUpdateTime"):
            condition["lastUpdateTime"] = now
        if not condition.get("lastTransitionTime"):
            same = (
                c
                for c in before
                if (c.get("type"), c.get("status")) == (condition.get("type"), condition.get("status"))
            )
            found = next((c["lastTransitionTime"] for c in same if c.get("lastTransitionTime")), None)
            condition["lastTransitionTime"] = found or now
    return status


def _invalid(path: str, value: str, why: str) -> Cause:
    return Cause("FieldValueInvalid", f'Invalid value: "{value}": {why}', path)


def _check(obj: Object, old: Object | None) -> list[Cause]:
    spec = obj.get("spec") or {}
    causes = []
    if old is None:  # it cannot change any more
        causes += _check_request(str(spec.get("request") or ""))
        causes += _check_usages(spec.get("usages") or [])
        causes += _check_signer(str(spec.get("signerName") or ""))
        life = spec.get("expirationSeconds")
        if isinstance(life, int) and life < 600:
            why = "may not specify a duration less than 600 seconds (10 minutes)"
            causes.append(Cause("FieldValueInvalid", f"Invalid value: {life}: {why}", "spec.expirationSeconds"))
    causes += _check_conditions((obj.get("status") or {}).get("conditions") or ())
    certificate = (obj.get("status") or {}).get("certificate")
    if certificate and certificate != ((old or {}).get("status") or {}).get("certificate"):
        causes += _check_certificate(str(certificate))
    return causes


def _check_request(text: str) -> list[Cause]:
    from cryptography import x509  # late: most servers never see one
    from cryptography.exceptions import UnsupportedAlgorithm

    path = "spec.request"
    try:
        pem = b64decode(text, validate=True)
    except NotBase64:
        pem = b""
    if b"-----BEGIN CERTIFICATE REQUEST-----" not in pem:
        return [_invalid(path, text, "PEM block type must be CERTIFICATE REQUEST")]
    try:
        if not x509.load_pem_x509_csr(pem).is_signature_valid:
            return [_invalid(path, text, "x509: signature check failed")]
    except (ValueError, TypeError, UnsupportedAlgorithm) as error:
        return [_invalid(path, text, str(error) or "asn1: structure error")]
    return []


def _check_usages(usages: list[Any]) -> list[Cause]:
    if not usages:
        return [Cause("FieldValueRequired", "Required value", "spec.usages")]
    causes = []
    known = ", ".join(f'"{u}"' for u in USAGES)
    for i, usage in enumerate(usages):
        if usage not in USAGES:
            text = f'Unsupported value: "{usage}": supported values: {known}'
            causes.append(Cause("FieldValueNotSupported", text, f"spec.usages[{i}]"))
        if usage in usages[:i]:
            causes.append(Cause("FieldValueDuplicate", f'Duplicate value: "{usage}"', f"spec.usages[{i}]"))
    return causes


def _check_signer(name: str) -> list[Cause]:
    path = "spec.signerName"
    if not name:
        return [Cause("FieldValueRequired", "Required value", path)]
    if name == LEGACY_UNKNOWN:
        return [_invalid(path, name, "the legacy signerName is not allowed via this API version")]
    domain, slash, rest = name.partition("/")
    if not slash or "/" in rest:
        why = 'must be a fully qualified domain and path of the form "example.com/signer-name"'
        return [_invalid(path, name, why)]
    causes = []
    if not _DOMAIN.fullmatch(domain):
        causes.append(_invalid(path, domain, "should be a domain with at least two segments separated by dots"))
    if not all(_PATH.fullmatch(part) for part in rest.split(".")):
        causes.append(_invalid(path, rest, "a DNS-1123 subdomain must consist of alphanumeric characters, '-' or '.'"))
    if len(name) > 571:
        causes.append(Cause("FieldValueTooLong", "Too long: may not be more than 571 bytes", path))
    return causes


def _check_conditions(conditions: Any) -> list[Cause]:
    causes, seen = [], []
    path = "status.conditions"
    for i, condition in enumerate(conditions):
        kind, status = condition.get("type") or "", condition.get("status") or ""
        allowed = ("True",) if kind in _FINAL else ("False", "True", "Unknown")
        if not kind:
            causes.append(Cause("FieldValueRequired", "Required value", f"{path}[{i}].type"))
        if not status:
            causes.append(Cause("FieldValueRequired", "Required value", f"{path}[{i}].status"))
        elif status not in allowed:
            listed = ", ".join(f'"{a}"' for a in allowed)
            text = f'Unsupported value: "{status}": supported values: {listed}'
            causes.append(Cause("FieldValueNotSupported", text, f"{path}[{i}].status"))
        if kind in _DECIDED and any(other in seen for other in _DECIDED if other != kind):
            causes.append(_invalid(path, kind, "Approved and Denied conditions are mutually exclusive"))
        if kind in seen:
            causes.append(Cause("FieldValueDuplicate", f'Duplicate value: "{kind}"', f"{path}[{i}].type"))
        seen.append(kind)
    return causes


def _check_certificate(text: str) -> list[Cause]:
    from cryptography import x509

    path = "status.certificate"
    try:
        pem = b64decode(text, validate=True)
        for kind in re.findall(rb"-----BEGIN ([A-Z0-9 ]+)-----", pem):
            if kind != b"CERTIFICATE":
                why = f'only CERTIFICATE PEM blocks are allowed, found "{kind.decode()}"'
                return [Cause("FieldValueInvalid", f'Invalid value: "<certificate data>": {why}', path)]
        x509.load_pem_x509_certificates(pem)
    except (ValueError, NotBase64):
        why = "must contain at least one CERTIFICATE PEM block"
        return [Cause("FieldValueInvalid", f'Invalid value: "<certificate data>": {why}', path)]
    return []


def _check_change(obj: Object, old: Object, subresource: str) -> list[Cause]:
    causes = []
    path = "status.conditions"
    status, before = obj.get("status") or {}, old.get("status") or {}
    for kind in _FINAL:
        new, was = ([c for c in s.get("conditions") or () if c.get("type") == kind] for s in (status, before))
        if len(new) < len(was):
            causes.append(forbidden(path, f'updates may not remove a condition of type "{kind}"'))
        elif kind in _DECIDED and subresource != "approval":
            if len(new) > len(was):
                causes.append(forbidden(path, f'updates may not add a condition of type "{kind}"'))
            elif new != was:
                causes.append(forbidden(path, f'updates may not modify a condition of type "{kind}"'))
    if status.get("certificate") != before.get("certificate"):
        if subresource != "status":
            causes.append(forbidden("status.certificate", "updates may not set certificate content"))
        elif before.get("certificate"):
            why = "updates may not modify existing certificate content"
            causes.append(forbidden("status.certificate", why))
    return causes
