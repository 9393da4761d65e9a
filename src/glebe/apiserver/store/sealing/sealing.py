"""Which resource is sealed how, and what to say when something does not open."""

from __future__ import annotations

from collections.abc import Sequence

from glebe.apiserver.store.base import Key, StoreUnavailable
from glebe.apiserver.store.sealing.providers import SEALED, Provider, WrongKey

__all__ = ["SEALED", "Sealing", "SealingError", "refuse_sealed"]

_REMEDY = "give --encryption-provider-config a file that still has its key"


class SealingError(StoreUnavailable):
    """A stored object cannot be opened with the keys that we have."""


class Sealing:
    """The rules, first match first.

    :param rules: (resources, providers); the first provider seals, all open. Resources are ``secrets``, ``jobs.batch``,
        ``*.batch`` (a whole group, ``*.`` the core group) or ``*.*``.
    """

    def __init__(self, rules: Sequence[tuple[Sequence[str], Sequence[Provider]]]) -> None:
        self._rules = [(tuple(resources), tuple(providers)) for resources, providers in rules]
        self._found: dict[str, tuple[Provider, ...]] = {}

    def _providers(self, resource: str) -> tuple[Provider, ...]:
        """Those of a resource; none when no rule speaks of it."""
        found = self._found.get(resource)
        if found is None:
            group = resource.partition(".")[2]
            names = (resource, f"*.{group}", "*.*")
            rules = (providers for resources, providers in self._rules if any(name in resources for name in names))
            found = self._found[resource] = next(rules, ())
        return found

    def seal(self, key: Key, plain: bytes) -> bytes:
        """What to store."""
        providers = self._providers(key.resource)
        return providers[0].seal(plain, _address(key)) if providers else plain

    def open(self, key: Key, stored: bytes) -> tuple[bytes, bool]:
        """(the bytes, whether the first provider would store them otherwise).

        :raises SealingError: no provider opens them.
        """
        providers = self._providers(key.resource)
        if not providers:
            refuse_sealed(key, stored)
            return stored, False
        sealed = stored.startswith(SEALED)
        for position, provider in enumerate(providers):
            if bool(provider.prefix) == sealed and stored.startswith(provider.prefix):
                try:
                    return provider.open(stored[len(provider.prefix) :], _address(key)), position > 0
                except WrongKey:
                    continue  # another key may have the same name
        if not sealed:
            why = "is stored unencrypted, and the provider identity, which would read it, is not among its providers"
            raise SealingError(f"{describe(key)} {why}: add identity: {{}} to --encryption-provider-config")
        raise SealingError(f"{describe(key)} is encrypted with {_named(stored)}, which does not open it: {_REMEDY}")


def refuse_sealed(key: Key, stored: bytes) -> None:
    """
    :raises SealingError: it is encrypted, and there is nothing to open it with.
    """
    if stored.startswith(SEALED):
        why = "no provider is configured for it"
        raise SealingError(f"{describe(key)} is encrypted with {_named(stored)}, and {why}: {_REMEDY}")


def describe(key: Key) -> str:
    """The object for people: ``secrets default/db in cluster root``."""
    name = f"{key.namespace}/{key.name}" if key.namespace else key.name
    return f"{key.resource} {name} in cluster {key.cluster or '(register)'}"


def _named(stored: bytes) -> str:
    """Provider and key, as the stored form says."""
    parts = stored[len(SEALED) : len(SEALED) + 200].split(b":", 3)
    if len(parts) < 4:
        return "something unknown"
    kind, _, name, _ = parts
    return f"{kind.decode(errors='replace')} key {name.decode(errors='replace')!r}"


def _address(key: Key) -> bytes:
    return "/".join((key.cluster, key.resource, key.namespace, key.name)).encode()
