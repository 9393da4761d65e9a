"""``glebe plan``: whom to move so that a blocked job starts. It only tells; nothing is moved."""

from __future__ import annotations

from dataclasses import asdict
from typing import Annotated, Any

import typer

from glebe.cli.app import app
from glebe.cli.command import Session, verb


@verb(app)
async def plan(
    session: Session,
    moves: Annotated[int, typer.Option("--moves", min=1, help="Jobs moved for one that is blocked, at most.")] = 8,
    lost: Annotated[
        float, typer.Option("--lost", min=0, help="GPU hours done again per GPU hour of who starts, at most.")
    ] = 0.5,
    most: Annotated[int, typer.Option("--most", min=1, help="Plans shown, at most.")] = 10,
) -> int:
    """Show which preemptible jobs to move so that others start that have quota but no room; nothing is moved."""
    from glebe.kube.clock import Env
    from glebe.queueing.round.consolidating import plans
    from glebe.scheduling.consolidate import Bounds

    async with session.connect() as client:
        found = await plans(client, Env.system(), Bounds(most_moves=moves, lost=lost), most)
    if not session.out.for_people:
        session.out.document([asdict(each) | {"lost": each.lost} for each in found])
        return 0
    if not found:
        session.out.line("nobody who waits would start if others moved, within these bounds")
    for each in found:
        for text in lines(each):
            session.out.line(text)
    return 0


def lines(plan: Any) -> list[str]:
    """A plan in words."""
    hours = plan.lost / 3600
    head = f"{plan.key} ({plan.gpus} GPUs, queue {plan.queue}) starts on {_where(plan.nodes)}"
    jobs = "1 job moves" if len(plan.moves) == 1 else f"{len(plan.moves)} jobs move"
    out = [f"{head} if {jobs}; {hours:.1f} GPU hours of work are done again"]
    for number, move in enumerate(plan.moves, 1):
        place = f"from {_where(move.before)} to {_where(move.after)}"
        out.append(
            f"  {number}. {move.key} ({move.gpus} GPUs, queue {move.queue}) {place}, loses {move.lost / 3600:.1f}"
        )
    return out


def _where(nodes: tuple[tuple[str, int], ...]) -> str:
    names = list(dict.fromkeys(name for name, _ in nodes))
    return ", ".join(names) if len(names) <= 4 else f"{', '.join(names[:3])} and {len(names) - 3} more nodes"
