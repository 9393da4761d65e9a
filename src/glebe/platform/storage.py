"""Where the objects of a server are kept, from its options: the data directory's SQLite file, or an etcd."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING
from urllib.parse import urlsplit

from glebe.platform.paths import DataDir

if TYPE_CHECKING:
    from glebe.apiserver.store import Store
    from glebe.apiserver.store.sealing import Sealing


class StorageError(Exception):
    """The options cannot be used: what is wrong, and the remedy."""

    def __init__(self, problem: str, remedy: str) -> None:
        super().__init__(problem)
        self.remedy = remedy


@dataclass(frozen=True, slots=True)
class StorageOptions:
    """The storage options of ``glebe up`` and ``glebe apiserver``. ``etcd_servers``: URLs, separated by commas."""

    etcd_servers: str = ""
    etcd_cafile: str = ""
    etcd_certfile: str = ""
    etcd_keyfile: str = ""
    etcd_prefix: str = "/glebe/"
    encryption: str = ""

    @property
    def shared(self) -> bool:
        """Whether other servers use the same objects."""
        return bool(self.etcd_servers)

    def open(self, data: DataDir) -> Store:
        """The store, not started yet.

        :raises StorageError: an option is wrong.
        """
        sealing = self.sealing()
        if not self.shared:
            from glebe.apiserver.store.sqlite import SQLiteStore

            return SQLiteStore(data.database, sealing=sealing)
        from glebe.apiserver.store.etcd import EtcdOptions, EtcdStore

        if not self.etcd_prefix.startswith("/") or not self.etcd_prefix.endswith("/"):
            raise StorageError(f"--etcd-prefix: {self.etcd_prefix!r} does not begin and end with /", "write /glebe/")
        options = EtcdOptions(
            servers=_servers(self.etcd_servers),
            ca_file=_file("--etcd-cafile", self.etcd_cafile),
            certificate_file=_file("--etcd-certfile", self.etcd_certfile),
            key_file=_file("--etcd-keyfile", self.etcd_keyfile),
            prefix=self.etcd_prefix,
        )
        if (options.certificate_file is None) != (options.key_file is None):
            raise StorageError("--etcd-certfile and --etcd-keyfile belong together", "give both or none")
        return EtcdStore(options, sealing=sealing)

    def sealing(self) -> Sealing | None:
        """What encrypts objects at rest, if anything does.

        :raises StorageError: the file cannot be used.
        """
        if not self.encryption:
            return None
        from glebe.apiserver.store.sealing import EncryptionConfigError, load_encryption_config

        try:
            return load_encryption_config(Path(self.encryption))
        except EncryptionConfigError as error:
            raise StorageError(f"--encryption-provider-config: {self.encryption}: {error}", error.remedy) from error


def _servers(text: str) -> tuple[str, ...]:
    servers = tuple(server.strip() for server in text.split(",") if server.strip())
    for server in servers:
        parts = urlsplit(server)
        if parts.scheme not in ("http", "https") or not parts.hostname:
            raise StorageError(f"--etcd-servers: {server!r} is no URL", "write for example https://10.0.0.1:2379")
    return servers


def _file(option: str, name: str) -> Path | None:
    if not name:
        return None
    path = Path(name)
    if not path.is_file():
        raise StorageError(f"{option}: there is no file {name}", "check the path")
    return path
