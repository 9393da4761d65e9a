"""``glebe apiserver``: the control plane alone, one of any number of replicas."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from glebe.cli import serving, storage
from glebe.cli.app import app
from glebe.cli.serverflags import with_server_flags


@app.command()
@with_server_flags
def apiserver(
    data_dir: Annotated[
        str, typer.Option("--data-dir", help="This server's own files (else $GLEBE_DATA_DIR, else ~/.glebe).")
    ] = "",
    listen: serving.Listen = "127.0.0.1:0",
    pki_dir: Annotated[
        str, typer.Option("--pki-dir", help="Keys and certificates, the same for all replicas (else DATA_DIR/pki).")
    ] = "",
    etcd_servers: storage.EtcdServers = "",
    etcd_cafile: storage.EtcdCa = "",
    etcd_certfile: storage.EtcdCertificate = "",
    etcd_keyfile: storage.EtcdKey = "",
    etcd_prefix: storage.EtcdPrefix = "/glebe/",
    encryption: storage.Encryption = "",
    controllers: Annotated[
        bool, typer.Option("--controllers/--no-controllers", help="Stand for election to run the controllers.")
    ] = True,
    quiet: serving.Quiet = False,
    verbose: Annotated[bool, typer.Option("--verbose", "-v", help="Log what the server does.")] = False,
    *,
    flags: dict[str, object],
) -> None:
    """Run an API server without queue and nodes until Ctrl-C; several on one etcd serve the same objects."""
    from glebe.platform.apiserver import ServerConfig, main
    from glebe.platform.paths import default_data_dir
    from glebe.platform.storage import StorageOptions

    config = ServerConfig(
        data_dir=Path(data_dir) if data_dir else default_data_dir(),
        listen=listen,
        pki_dir=Path(pki_dir) if pki_dir else None,
        controllers=controllers,
        storage=StorageOptions(etcd_servers, etcd_cafile, etcd_certfile, etcd_keyfile, etcd_prefix, encryption),
        quiet=quiet,
        verbose=verbose,
        flags=flags,
    )
    serving.run(lambda: main(config))
