"""``glebe nodes``: the fleet and what of it is in use."""

from __future__ import annotations

from dataclasses import asdict

from glebe.cli.app import app
from glebe.cli.command import Session, verb


@verb(app)
async def nodes(session: Session) -> None:
    """List nodes: state, GPUs in use, where they stand."""
    import asyncio

    from glebe.cli.output import Column
    from glebe.cli.read import items
    from glebe.cli.words import count
    from glebe.kube import resources as r
    from glebe.platform.nodeview import node_views

    async with session.connect() as client:
        all_nodes, pods = await asyncio.gather(items(client, r.NODES), items(client, r.PODS))
    views = node_views(all_nodes, pods)
    session.out.rows(
        (
            Column("NAME", "name"),
            Column("STATE", "state"),
            Column("KIND", "kind"),
            Column("GPUS", "use"),
            Column("MODEL", "gpu_model"),
            Column("PODS", "pods", right=True),
            Column("RACK", "rack"),
            Column("BLOCK", "block"),
            Column("MESSAGE", "message", wide=True, flexible=True),
        ),
        [asdict(view) | {"use": f"{view.gpus_used}/{view.gpus}"} for view in views],
        empty="No nodes: none has registered yet. The fleet file says which there are (glebe up --fleet FILE).",
    )
    if views:
        total, used = sum(v.gpus for v in views), sum(v.gpus_used for v in views)
        down = sum(v.gpus for v in views if v.state == "NotReady")
        session.out.line(
            f"{count(len(views), 'node')}, {used} of {total} GPUs in use" + (f", {down} down" if down else "")
        )
