"""The storage options that ``glebe up`` and ``glebe apiserver`` share."""

from __future__ import annotations

from typing import Annotated

import typer

EtcdServers = Annotated[
    str, typer.Option("--etcd-servers", help="Keep objects in this etcd (URLs, separated by commas).")
]
EtcdCa = Annotated[str, typer.Option("--etcd-cafile", help="CA of etcd's certificate.")]
EtcdCertificate = Annotated[str, typer.Option("--etcd-certfile", help="Client certificate for etcd.")]
EtcdKey = Annotated[str, typer.Option("--etcd-keyfile", help="Its key.")]
EtcdPrefix = Annotated[str, typer.Option("--etcd-prefix", help="Begins every key in etcd.")]
Encryption = Annotated[
    str, typer.Option("--encryption-provider-config", help="EncryptionConfiguration: what is encrypted at rest, how.")
]
