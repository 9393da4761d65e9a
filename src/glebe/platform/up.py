"""``glebe up``: the embedded platform with its files and sockets, until a signal ends it.

In order: take the data directory, read the fleet file, open the store, start the platform, listen with TLS, write the
kubeconfig, say what to do next. A second ``up`` on the directory continues where the first ended, whatever ended it.
"""

from __future__ import annotations

import asyncio
import errno
import logging
import os
import shutil
import signal
import socket
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import AsyncExitStack, contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING
from urllib.parse import urlsplit

from glebe.platform.paths import DataDir
from glebe.platform.storage import StorageError, StorageOptions

if TYPE_CHECKING:
    from glebe.node.fleet import Fleet, FleetError
    from glebe.node.network.options import NetworkOptions
    from glebe.node.simulated.scenario import Scenario
    from glebe.platform.embedded import Platform
    from glebe.platform.serverflags import ServerFlags
    from glebe.queueing.configuration import Configuration

log = logging.getLogger("glebe.platform")

CONFIG_REMEDY = "the fields are those of Kueue's Configuration, see docs/queue-configuration.md"
_PATIENCE = 5.0  # seconds to find out what this machine allows

Say = Callable[[str], None]


class StartError(Exception):
    """The platform cannot start: what is wrong, and the remedy. ``conflict``: somebody else holds the directory."""

    def __init__(self, problem: str, remedy: str, *, conflict: bool = False) -> None:
        super().__init__(problem)
        self.remedy = remedy
        self.conflict = conflict


@dataclass(frozen=True, slots=True)
class UpConfig:
    """The options of ``glebe up``. ``listen`` is HOST:PORT; port 0 takes the last one, or lets the system choose."""

    data_dir: Path
    fleet: Path | None = None
    scenario: Path | None = None
    queue_config: Path | None = None
    listen: str = "127.0.0.1:0"
    quiet: bool = False
    verbose: bool = False
    storage: StorageOptions = field(default_factory=StorageOptions)
    pod_network: str = "auto"
    pod_cidr: str = "10.244.0.0/16"
    flags: Mapping[str, object] = field(default_factory=dict)
    """What :mod:`.serverflags` reads: identity and audit."""


def main(config: UpConfig) -> int:
    """Run until SIGINT or SIGTERM; returns the exit code.

    :raises StartError: before anything was started.
    """
    log_to_stderr(config.verbose)
    data = DataDir(config.data_dir.expanduser().absolute())
    host, port = parse_listen(config.listen)
    with taken(data), explained(config.listen, data):
        flags = read_flags(config.flags)
        fleet = read_fleet(config.fleet, data)
        scenario = read_scenario(config.scenario)
        queue = read_queue_config(config.queue_config)
        check_ledger(data.ledger)
        network = read_network(config)
        with asyncio.Runner(loop_factory=loop_factory()) as runner:
            return runner.run(_serve(config, data, fleet, scenario, queue, host, port, flags, network))


def log_to_stderr(verbose: bool) -> None:
    """What a server has to say besides its answers."""
    logging.basicConfig(
        level=logging.INFO if verbose else logging.WARNING,
        format="%(asctime)s %(levelname)s %(name)s: %(message)s",
        stream=sys.stderr,
    )


@contextmanager
def explained(listen: str, data: DataDir) -> Iterator[None]:
    """Turns what a user can mend into a :class:`StartError`."""
    from glebe.apiserver.store import StoreUnavailable

    try:
        yield
    except StorageError as error:
        raise StartError(str(error), error.remedy) from error
    except StoreUnavailable as error:
        problem, _, remedy = str(error).rpartition(": ")
        raise StartError(problem or remedy, remedy if problem else "give another directory with --data-dir") from error
    except PermissionError as error:
        raise StartError(f"{error.filename or data.root}: {error.strerror}", "check who owns the directory") from error
    except OSError as error:
        if not isinstance(error, socket.gaierror) and error.errno not in (errno.EADDRINUSE, errno.EADDRNOTAVAIL):
            raise
        raise StartError(
            f"--listen: cannot listen on {listen}: {error.strerror or error}",
            "give an address of this machine and a free port, or port 0",
        ) from error


@contextmanager
def taken(data: DataDir) -> Iterator[None]:
    """The data directory, made if need be, and ours alone while the block runs."""
    from glebe.apiserver.store import StoreLocked, StoreUnavailable
    from glebe.apiserver.store.lock import DataLock

    lock = DataLock(data.lock)
    try:
        data.root.mkdir(parents=True, exist_ok=True, mode=0o700)
        lock.acquire()
    except StoreLocked as error:
        raise StartError(
            str(error).partition(":")[0], "stop that platform, or give --data-dir another directory", conflict=True
        ) from error
    except (OSError, StoreUnavailable) as error:
        problem = f"{data.root}: {error.strerror}" if isinstance(error, OSError) else str(error)
        raise StartError(problem, "give --data-dir a directory that you may write to") from error
    try:
        yield
    finally:
        lock.release()


def parse_listen(text: str) -> tuple[str, int]:
    """``127.0.0.1:6443`` -> ("127.0.0.1", 6443); ``[::1]:0`` works too.

    :raises StartError: when it is no address.
    """
    try:
        parts = urlsplit(f"//{text}")
        host, port = parts.hostname, parts.port
    except ValueError:
        host, port = None, None
    if not host or port is None:
        raise StartError(f"--listen: {text!r} is not HOST:PORT", "write for example 127.0.0.1:6443 or 127.0.0.1:0")
    return host, port


def check_ledger(path: Path) -> None:
    """A platform that cannot count would run on and say so in its log only; it is said before anything starts.

    :raises StartError: the ledger cannot be used.
    """
    from glebe.metering.ledger import Ledger, LedgerError

    try:
        Ledger(path).close()
    except LedgerError as error:
        problem, _, remedy = str(error).partition("; ")
        raise StartError(problem, remedy) from error


def read_flags(flags: Mapping[str, object]) -> ServerFlags:
    """The options about identity and audit.

    :raises StartError: a flag or its file cannot be used.
    """
    from glebe.platform.serverflags import FlagError, read

    try:
        return read(flags)
    except FlagError as error:
        raise StartError(str(error), "docs/cli.md says what the flag takes") from error


def read_network(config: UpConfig) -> NetworkOptions:
    """How this machine's pods are to be connected.

    :raises StartError: an option cannot be used.
    """
    from glebe.node.network.modes import why_not
    from glebe.node.network.options import parse_options

    try:
        options = parse_options(config.pod_network, config.pod_cidr)
    except ValueError as error:
        raise StartError(str(error), "docs/pod-network.md says what the modes are") from error
    if options.mode == "namespace":
        with tempfile.TemporaryDirectory(prefix="glebe-") as directory:
            if problem := why_not(options, Path(directory, "network")):
                raise StartError(f"--pod-network namespace: {problem}", "give auto or loopback")
    return options


def read_fleet(path: Path | None, data: DataDir) -> Fleet:
    """The fleet of ``path``, which is remembered; without it the remembered one; else the default.

    :raises StartError: when the file cannot be used.
    """
    from glebe.node.fleet import DEFAULT_FLEET, FleetError, load_fleet, parse_fleet

    try:
        if path is not None:
            fleet = load_fleet(path)
            shutil.copyfile(path, data.fleet)
            return fleet
        return load_fleet(data.fleet) if data.fleet.exists() else parse_fleet(DEFAULT_FLEET, "the default fleet")
    except FleetError as error:
        raise _bad_file(error) from error


def read_scenario(path: Path | None) -> Scenario:
    """What befalls simulated nodes.

    :raises StartError: when the file cannot be used.
    """
    from glebe.node.fleet import FleetError
    from glebe.node.simulated.scenario import NO_SCENARIO, load_scenario

    try:
        return load_scenario(path) if path is not None else NO_SCENARIO
    except FleetError as error:
        raise _bad_file(error) from error


def read_queue_config(path: Path | None) -> Configuration:
    """The queue's configuration.

    :raises StartError: when the file cannot be used.
    """
    from glebe.queueing.configuration import DEFAULT, ConfigurationError, read

    try:
        return read(path) if path is not None else DEFAULT
    except ConfigurationError as error:
        raise StartError(str(error), CONFIG_REMEDY) from error


def _bad_file(error: FleetError) -> StartError:
    where = f"{error.file}: {error.field}" if error.field else error.file
    return StartError(f"{where}: {error.problem}", error.remedy)


def loop_factory() -> Callable[[], asyncio.AbstractEventLoop] | None:
    try:
        import uvloop
    except ImportError:  # not on every system; asyncio's own loop does
        return None
    return uvloop.new_event_loop


def process_age() -> float:
    """Seconds since this process began, its imports included: what a person has waited for."""
    fields = Path("/proc/self/stat").read_text(encoding="ascii").rpartition(")")[2].split()
    began = int(fields[19]) / os.sysconf("SC_CLK_TCK")  # field 22, clock ticks since the machine's start
    return time.clock_gettime(time.CLOCK_BOOTTIME) - began


async def _serve(
    config: UpConfig,
    data: DataDir,
    fleet: Fleet,
    scenario: Scenario,
    queue: Configuration,
    host: str,
    port: int,
    flags: ServerFlags,
    network: NetworkOptions,
) -> int:
    from glebe.platform.frontend import open_platform

    say: Say = (lambda text: None) if config.quiet else (lambda text: print(text, flush=True))
    stop = asyncio.Event()
    loop = asyncio.get_running_loop()
    for number in (signal.SIGINT, signal.SIGTERM):
        loop.add_signal_handler(number, stop.set)
    async with AsyncExitStack() as stack:
        url, platform = await stack.enter_async_context(
            open_platform(data, fleet, host, port, config.storage, flags, network, scenario, queue)
        )
        say(f"Glebe is up at {url} after {process_age():.1f} s")
        isolation = await isolation_of(platform)
        for line in next_steps(data, fleet, platform.first_start, isolation):
            say(line)
        await stop.wait()
        say("stopping ...")
        for number in (signal.SIGINT, signal.SIGTERM):
            loop.remove_signal_handler(number)  # a second Ctrl-C does not wait
    say(f"stopped; continue with: {_again(data)}")
    return 0


async def isolation_of(platform: Platform) -> tuple[str, ...]:
    """What this machine's node keeps apart; nothing without one, or when it takes long to find out."""
    if platform.config.fleet.local is None:
        return ()
    try:
        async with asyncio.timeout(_PATIENCE):
            while (node := platform.process_node) is None:  # noqa: ASYNC110 - it is built by its part's own task
                await asyncio.sleep(0.01)
            return await node.isolation()
    except TimeoutError:
        return ()


def next_steps(data: DataDir, fleet: Fleet, first_start: bool, isolation: tuple[str, ...] = ()) -> list[str]:
    """What to tell somebody who has just started a platform."""
    gpus = sum(int(node.capacity.get("nvidia.com/gpu", "0")) for node in fleet.nodes)
    have = [f"{len(fleet.nodes)} simulated node{'s' * (len(fleet.nodes) != 1)} with {gpus} GPUs"] if fleet.nodes else []
    if fleet.local is not None:
        have.append(f"this machine as node {fleet.local.name}")
    lines = [
        f"  fleet       {' and '.join(have) or 'no nodes of its own; kubelets may register'}",
        f"  data        {data.root} ({'new' if first_start else 'continued'})",
        f"  kubeconfig  {data.kubeconfig}",
        *(f"  {name:<11} {text}" for name, text in zip(("containers", "pod network"), isolation, strict=False)),
        "",
        "Next, in another terminal:",
        f"  export KUBECONFIG={data.kubeconfig}",
        "  kubectl get nodes",
    ]
    if fleet.local is not None:
        lines.append("  glebe run --name hello --queue local -- echo 'a real process on this machine'")
    if fleet.nodes:
        lines.append("  glebe run --name train --nodes 8 --gpus-per-node 8 --expected 20m -- torchrun train.py")
    return [*lines, "  glebe queue", "", "Ctrl-C stops the platform and keeps its data."]


def _again(data: DataDir) -> str:
    from glebe.platform.paths import default_data_dir

    return "glebe up" if data.root == default_data_dir() else f"glebe up --data-dir {os.fspath(data.root)}"
