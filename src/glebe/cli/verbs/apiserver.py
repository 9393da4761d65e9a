"""``glebe apiserver``: the control plane alone, one of any number of replicas."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from glebe.cli import storage
from glebe.cli.app import app
from glebe.cli.command import fail
from glebe.cli.exits import Exit, Failure
from glebe.cli.serverflags import with_server_flags


@app.command()
@with_server_flags
def apiserver(
    data_dir: Annotated[
        str, typer.Option("--data-dir", help="This server's own files (else $GLEBE_DATA_DIR, else ~/.glebe).")
    ] = "",
    listen: Annotated[
        str, typer.Option("--listen", help="HOST:PORT of the API; port 0 lets the system choose.")
    ] = "127.0.0.1:0",
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
    quiet: Annotated[bool, typer.Option("--quiet", help="Print nothing but errors.")] = False,
    verbose: Annotated[bool, typer.Option("--verbose", "-v", help="Log what the server does.")] = False,
    *,
    flags: dict[str, object],
) -> None:
    """Run an API server without queue and nodes until Ctrl-C; several on one etcd serve the same objects."""
    from glebe.platform.apiserver import ServerConfig, main
    from glebe.platform.paths import default_data_dir
    from glebe.platform.storage import StorageOptions
    from glebe.platform.up import StartError

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
    try:
        raise typer.Exit(main(config))
    except StartError as error:
        code = Exit.CONFLICT if error.conflict else Exit.BAD_INPUT
        raise typer.Exit(fail(Failure(code, str(error), error.remedy))) from error
