"""``glebe up``: a private GPU cloud in this process."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from glebe.cli import serving, storage
from glebe.cli.app import app
from glebe.cli.serverflags import with_server_flags


@app.command()
@with_server_flags
def up(
    data_dir: Annotated[
        str, typer.Option("--data-dir", help="Where everything is kept (else $GLEBE_DATA_DIR, else ~/.glebe).")
    ] = "",
    fleet: Annotated[
        str, typer.Option("--fleet", help="Fleet file (else the last one, else 16 simulated 8-GPU nodes and this one).")
    ] = "",
    scenario: Annotated[
        str, typer.Option("--scenario", help="Scenario file: what befalls simulated nodes and their pods.")
    ] = "",
    queue_config: Annotated[
        str, typer.Option("--queue-config", help="Configuration of the queue, with Kueue's fields.")
    ] = "",
    listen: serving.Listen = "127.0.0.1:0",
    etcd_servers: storage.EtcdServers = "",
    etcd_cafile: storage.EtcdCa = "",
    etcd_certfile: storage.EtcdCertificate = "",
    etcd_keyfile: storage.EtcdKey = "",
    etcd_prefix: storage.EtcdPrefix = "/glebe/",
    encryption: storage.Encryption = "",
    pod_network: Annotated[
        str,
        typer.Option("--pod-network", help="Network of this machine's pods: auto, namespace (one each) or loopback."),
    ] = "auto",
    pod_cidr: Annotated[
        str, typer.Option("--pod-cidr", help="IPv4 network in which the addresses of this machine's pods are to lie.")
    ] = "10.244.0.0/16",
    quiet: serving.Quiet = False,
    verbose: Annotated[bool, typer.Option("--verbose", "-v", help="Log what the controllers do.")] = False,
    *,
    flags: dict[str, object],
) -> None:
    """Run the platform until Ctrl-C; the next up on the same directory continues."""
    from glebe.platform.paths import default_data_dir
    from glebe.platform.storage import StorageOptions
    from glebe.platform.up import UpConfig, main

    config = UpConfig(
        data_dir=Path(data_dir) if data_dir else default_data_dir(),
        fleet=Path(fleet) if fleet else None,
        scenario=Path(scenario) if scenario else None,
        queue_config=Path(queue_config) if queue_config else None,
        listen=listen,
        storage=StorageOptions(etcd_servers, etcd_cafile, etcd_certfile, etcd_keyfile, etcd_prefix, encryption),
        pod_network=pod_network,
        pod_cidr=pod_cidr,
        quiet=quiet,
        verbose=verbose,
        flags=flags,
    )
    serving.run(lambda: main(config))
