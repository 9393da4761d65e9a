"""Image references: ``[DOMAIN/]PATH[:TAG][@DIGEST]``, with Docker's abbreviations, as container runtimes read them.

Grammar: github.com/distribution/reference.
"""

from __future__ import annotations

import re
from dataclasses import dataclass

from glebe.node.containers.images.errors import ImageError

DEFAULT_DOMAIN = "docker.io"
DEFAULT_TAG = "latest"
_OFFICIAL = "library/"
_MAX_NAME = 255

_COMPONENT = r"[a-zA-Z0-9](?:[a-zA-Z0-9-]*[a-zA-Z0-9])?"
_DOMAIN = re.compile(rf"(?:{_COMPONENT}(?:\.{_COMPONENT})*|\[(?:[a-fA-F0-9:]+)\])(?::[0-9]+)?", re.ASCII)
_PATH = re.compile(r"[a-z0-9]+(?:(?:\.|_|__|-+)[a-z0-9]+)*(?:/[a-z0-9]+(?:(?:\.|_|__|-+)[a-z0-9]+)*)*", re.ASCII)
_TAG = re.compile(r"\w[\w.-]{0,127}", re.ASCII)
_DIGEST = re.compile(r"[A-Za-z][A-Za-z0-9]*(?:[-_+.][A-Za-z][A-Za-z0-9]*)*:[0-9a-fA-F]{32,}", re.ASCII)
_LENGTHS = {"sha256": 64, "sha384": 96, "sha512": 128}


class InvalidReference(ValueError):
    """Not an image reference."""


@dataclass(frozen=True, slots=True, order=True)
class Reference:
    """A whole reference; at least one of ``tag`` and ``digest`` is there."""

    domain: str
    path: str
    tag: str = ""
    digest: str = ""

    @property
    def name(self) -> str:
        """Without tag and digest."""
        return f"{self.domain}/{self.path}"

    @property
    def selector(self) -> str:
        """What to ask a registry for."""
        return self.digest or self.tag

    def __str__(self) -> str:
        return self.name + (f":{self.tag}" if self.tag else "") + (f"@{self.digest}" if self.digest else "")


def parse(text: str) -> Reference:
    """Read a reference; without tag and digest it is the tag ``latest``.

    :raises InvalidReference: it is none.
    """
    if not text:
        raise InvalidReference("invalid reference format")
    if re.fullmatch(r"[a-f0-9]{64}", text):
        raise InvalidReference(f"invalid repository name ({text}), cannot specify 64-byte hexadecimal strings")
    domain, rest = _split_domain(text)
    rest, at, digest = rest.partition("@")
    path, tag = _split_tag(rest)
    if path != path.lower():
        raise InvalidReference(f"invalid reference format: repository name ({path}) must be lowercase")
    good = _DOMAIN.fullmatch(domain) and _PATH.fullmatch(path)
    if not good or (tag is not None and not _TAG.fullmatch(tag)) or (at and not _is_digest(digest)):
        raise InvalidReference("invalid reference format")
    if len(f"{domain}/{path}") > _MAX_NAME:
        raise InvalidReference(f"repository name must not be more than {_MAX_NAME} characters")
    return Reference(domain, path, tag or ("" if digest else DEFAULT_TAG), digest)


def _split_domain(text: str) -> tuple[str, str]:
    """What stands before the first slash is a domain when it looks like one."""
    first, slash, rest = text.partition("/")
    is_domain = bool(slash) and (any(sign in first for sign in ".:") or first == "localhost" or first != first.lower())
    domain, path = (first, rest) if is_domain else (DEFAULT_DOMAIN, text)
    if domain == "index.docker.io":
        domain = DEFAULT_DOMAIN
    if domain == DEFAULT_DOMAIN and "/" not in path:
        path = _OFFICIAL + path
    return domain, path


def _split_tag(text: str) -> tuple[str, str | None]:
    path, colon, tag = text.rpartition(":")
    return (path, tag) if colon and "/" not in tag else (text, None)


def _is_digest(digest: str) -> bool:
    if not _DIGEST.fullmatch(digest):
        return False
    algorithm, _, value = digest.partition(":")
    return len(value) == _LENGTHS.get(algorithm, 0) and value == value.lower()


def read(text: str) -> Reference:
    """As :func:`parse`, for a pod.

    :raises ImageError: InvalidImageName, in the kubelet's words.
    """
    try:
        return parse(text)
    except InvalidReference as error:
        raise ImageError("InvalidImageName", f'couldn\'t parse image name "{text}": {error}') from None
