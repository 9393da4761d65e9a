"""``glebe cluster``: logical clusters, from their creation to the kubeconfig of those who work in them."""

from __future__ import annotations

from enum import StrEnum
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from glebe.cli.app import app
from glebe.cli.command import Session, verb

if TYPE_CHECKING:
    from glebe.kube.client import Client
    from glebe.kube.objects import Object

_MERGE = "application/merge-patch+json"


class Action(StrEnum):
    """What to do."""

    CREATE = "create"
    LIST = "list"
    GET = "get"
    BUDGET = "budget"
    DELETE = "delete"
    KUBECONFIG = "kubeconfig"


@verb(app)
async def cluster(
    session: Session,
    action: Annotated[Action, typer.Argument(help="create, list, get, budget, delete or kubeconfig.")],
    name: Annotated[str, typer.Argument(help="The logical cluster (not for list).")] = "",
    objects: Annotated[str, typer.Option("--objects", help="How many objects it may hold; none: no limit.")] = "",
    size: Annotated[str, typer.Option("--bytes", help="How much they may take, e.g. 64Mi; none: no limit.")] = "",
    requests: Annotated[str, typer.Option("--requests", help="Requests per second; none: no limit.")] = "",
    burst: Annotated[str, typer.Option("--burst", help="Requests at once; none: twice --requests.")] = "",
    watches: Annotated[str, typer.Option("--watches", help="Watches open at once; none: no limit.")] = "",
    to: Annotated[Path | None, typer.Option("--to", help="Write the kubeconfig to this file, not to stdout.")] = None,
    user: Annotated[str, typer.Option("--user", help="Whom the kubeconfig is for.")] = "admin",
    groups: Annotated[
        str, typer.Option("--groups", help="The user's groups, by commas; rights inside the cluster only.")
    ] = "system:masters",
    days: Annotated[int, typer.Option("--days", min=1, help="How long the kubeconfig is good.")] = 365,
    data_dir: Annotated[
        Path | None, typer.Option("--data-dir", help="The platform's data directory, whose CA signs the kubeconfig.")
    ] = None,
) -> None:
    """Create, list, show, limit and delete logical clusters, and make kubeconfigs for them."""
    from glebe.cli.exits import Exit, Failure

    if not name and action is not Action.LIST:
        raise Failure(Exit.BAD_INPUT, f"glebe cluster {action} needs a NAME", f"glebe cluster {action} team-a")
    asked = {"objects": objects, "bytes": size, "requests": requests, "burst": burst, "watches": watches}
    async with session.connect() as client:
        match action:
            case Action.LIST:
                _show(session, (await _ask(client, "GET", ""))["items"])
            case Action.GET:
                _show(session, [await _ask(client, "GET", name)])
            case Action.CREATE:
                body = {"metadata": {"name": name}, "spec": _spec(asked)}
                made = await _ask(client, "POST", "", body)
                session.out.line(f"logical cluster {name} is ready")
                session.out.line(f"  kubeconfig: glebe cluster kubeconfig {name} --to {name}.kubeconfig")
                if not session.out.for_people:
                    _show(session, [made])
            case Action.BUDGET:
                _show(session, [await _ask(client, "PATCH", name, {"spec": _spec(asked)})])
            case Action.DELETE:
                await _ask(client, "DELETE", name)
                session.out.line(f"logical cluster {name} is deleted with everything in it")
            case Action.KUBECONFIG:
                found = await _ask(client, "GET", name)
                _kubeconfig(session, found, data_dir, to, user, groups, days)


async def _ask(client: Client, method: str, name: str, body: Object | None = None) -> Any:
    import orjson

    kind = _MERGE if method == "PATCH" else "application/json"
    path = f"/clusters/{name}" if name else "/clusters"
    return orjson.loads((await client.raw(method, path, body=body, content_type=kind)).body)


def _spec(asked: dict[str, str]) -> Object:
    """``none`` takes a limit away; what is not given stays."""
    budget = {field: _limit(value) for field, value in asked.items() if value}
    return {"budget": budget} if budget else {}


def _limit(text: str) -> Any:
    if text == "none":
        return None
    return int(text) if text.isdigit() else text


def _show(session: Session, items: list[Object]) -> None:
    from glebe.cli.output import Column

    rows = [_row(item) for item in items] if session.out.for_people or session.out.format == "name" else items
    columns = (
        Column("NAME", "name"),
        Column("OBJECTS", "objects", right=True),
        Column("BYTES", "bytes", right=True),
        Column("MAX OBJECTS", "max_objects", right=True),
        Column("MAX BYTES", "max_bytes", right=True),
        Column("CREATED", "created"),
        Column("UID", "uid", wide=True),
    )
    session.out.rows(columns, rows, empty="No logical clusters.")


def _row(item: Object) -> Object:
    meta, used = item["metadata"], item["status"].get("used") or {}
    budget = item.get("spec", {}).get("budget") or {}
    return {
        "name": meta["name"],
        "objects": used.get("objects"),
        "bytes": used.get("bytes"),
        "max_objects": budget.get("objects"),
        "max_bytes": budget.get("bytes"),
        "created": meta["creationTimestamp"],
        "uid": meta["uid"],
    }


def _kubeconfig(
    session: Session, found: Object, data_dir: Path | None, to: Path | None, user: str, groups: str, days: int
) -> None:
    """A client certificate that is good in this very cluster and nowhere else."""
    from datetime import timedelta
    from tempfile import TemporaryDirectory

    from glebe.apiserver.auth.pki import Pki
    from glebe.apiserver.auth.scope import Scope
    from glebe.cli.exits import Exit, Failure
    from glebe.kube.clock import Env
    from glebe.kube.kubeconfig import load_kubeconfig, write_kubeconfig
    from glebe.platform.paths import DataDir, default_data_dir, default_kubeconfig

    data = DataDir((data_dir or default_data_dir()).expanduser().absolute())
    name = found["metadata"]["name"]
    try:
        pki = Pki(data.pki).authority()
    except OSError as error:
        remedy = "run this where the platform runs, and name its directory with --data-dir"
        raise Failure(Exit.BAD_INPUT, f"{data.pki} holds no certificate authority: {error}", remedy) from error
    scope = Scope(name, found["metadata"]["uid"])
    members = [group for group in groups.split(",") if group]
    pair = pki.issue_client(user, members, Env.system().clock.now(), scope=scope, life=timedelta(days=days))
    config = load_kubeconfig(session.kubeconfig or default_kubeconfig(), context=session.context or None)
    server = f"{config.server.rstrip('/')}/clusters/{name}"
    with TemporaryDirectory() as directory:
        path = to or Path(directory) / "kubeconfig"
        write_kubeconfig(path, server, ca=pki.ca_pem, certificate=pair.certificate, key=pair.key, name=name)
        if to is None:
            print(path.read_text(encoding="utf-8"), end="")
        else:
            session.out.line(f"{to}: {user} in logical cluster {name} for {days} days")
