"""What all verbs share: common options, the session they make, and errors turned into exit codes.

A verb is an ordinary typer function whose first parameter is a :class:`Session`. :func:`verb` replaces that parameter
by the common options, runs the coroutine, and prints any failure in one form: what is wrong, and what to do.
"""

from __future__ import annotations

import asyncio
import inspect
import os
import sys
import typing
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Annotated, Any

import typer

from glebe.cli.exits import Exit, Failure, from_api_error
from glebe.cli.output import Format, Output
from glebe.kube.errors import ApiError
from glebe.kube.transport import ConnectionLost

if TYPE_CHECKING:
    from glebe.kube.client import Client

Kubeconfig = Annotated[
    str,
    typer.Option("--kubeconfig", help="Kubeconfig file (else $KUBECONFIG, ~/.glebe/kubeconfig, ~/.kube/config)."),
]
Context = Annotated[str, typer.Option("--context", help="Context of the kubeconfig.")]
Cluster = Annotated[str, typer.Option("--cluster", help="Logical cluster on that server.")]
Namespace = Annotated[str, typer.Option("--namespace", "-n", help="Namespace (else the context's, else default).")]
OutputFormat = Annotated[Format, typer.Option("--output", "-o", help="How to print the answer.")]


@dataclass(slots=True)
class Session:
    """Where a command talks to, and how it prints."""

    kubeconfig: str = ""
    context: str = ""
    cluster: str = ""
    namespace_option: str = ""
    out: Output = field(default_factory=Output)
    namespace: str = "default"  # as resolved by connect()

    @asynccontextmanager
    async def connect(self) -> AsyncIterator[Client]:
        """A client for the chosen cluster; :attr:`namespace` is resolved on the way."""
        from glebe.kube.client import Client
        from glebe.kube.http import HttpTransport
        from glebe.kube.kubeconfig import KubeconfigError, load_kubeconfig
        from glebe.platform.paths import default_kubeconfig

        path = self.kubeconfig or default_kubeconfig()
        try:
            config = load_kubeconfig(path, context=self.context or None)
        except KubeconfigError as error:
            known = bool(path or os.environ.get("KUBECONFIG"))
            remedy = "check --kubeconfig and --context" if known else "start a platform on this machine with: glebe up"
            raise Failure(Exit.BAD_INPUT if known else Exit.UNREACHABLE, str(error), remedy) from error
        self.namespace = self.namespace_option or config.namespace or "default"
        transport = HttpTransport.from_config(config)
        try:
            yield Client(transport, cluster=self.cluster, field_manager="glebe-cli")
        except ConnectionLost as error:
            raise Failure(
                Exit.UNREACHABLE, f"no answer from {config.server}: {error}", "is the platform running? glebe up"
            ) from error
        finally:
            await transport.close()


def _common(with_output: bool) -> list[inspect.Parameter]:
    kind = inspect.Parameter.KEYWORD_ONLY
    parameters = [
        inspect.Parameter("namespace", kind, default="", annotation=Namespace),
        inspect.Parameter("kubeconfig", kind, default="", annotation=Kubeconfig),
        inspect.Parameter("context", kind, default="", annotation=Context),
        inspect.Parameter("cluster", kind, default="", annotation=Cluster),
    ]
    if with_output:
        parameters.insert(0, inspect.Parameter("output", kind, default=Format.TABLE, annotation=OutputFormat))
    return parameters


def verb(
    app: typer.Typer, *, output: bool = True, **settings: Any
) -> Callable[[Callable[..., Awaitable[int | None]]], Any]:
    """Register ``async def NAME(session, ...)`` as the command NAME of ``app``; it may return an exit code."""

    def register(function: Callable[..., Awaitable[int | None]]) -> Callable[..., Awaitable[int | None]]:
        hints = typing.get_type_hints(function, include_extras=True)
        own = [
            parameter.replace(annotation=hints[parameter.name], kind=inspect.Parameter.KEYWORD_ONLY)
            for parameter in list(inspect.signature(function).parameters.values())[1:]
        ]

        def run(**arguments: Any) -> None:
            common = {name: arguments.pop(name) for name in ("kubeconfig", "context", "cluster")}
            namespace = arguments.pop("namespace")
            session = Session(**common, namespace_option=namespace, out=Output(arguments.pop("output", Format.TABLE)))
            raise typer.Exit(run_async(function(session, **arguments)))

        parameters = own + _common(output)
        run.__signature__ = inspect.Signature(parameters)  # type: ignore[attr-defined]
        run.__annotations__ = {parameter.name: parameter.annotation for parameter in parameters}
        run.__doc__ = function.__doc__
        app.command(function.__name__.rstrip("_"), **settings)(run)
        return function

    return register


def run_async(work: Awaitable[int | None]) -> int:
    """Run a verb's coroutine to its exit code, printing its failure if it has one."""

    async def main() -> int | None:
        return await work

    try:
        return int(asyncio.run(main()) or Exit.OK)
    except Failure as failure:
        return fail(failure)
    except ApiError as error:
        return fail(from_api_error(error))
    except KeyboardInterrupt:
        return int(Exit.INTERRUPTED)
    except BrokenPipeError:
        # the reader (head, less) has gone: that is its business
        sys.stderr.close()
        return int(Exit.OK)


def fail(failure: Failure) -> int:
    """Print a failure to stderr in its one form."""
    print(f"error: {failure.message}", file=sys.stderr)
    if failure.remedy:
        print(f"  try: {failure.remedy}", file=sys.stderr)
    return int(failure.code)
