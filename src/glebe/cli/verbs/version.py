"""``glebe version``: of this program, and of the server if one answers."""

from __future__ import annotations

from glebe import __version__
from glebe.cli.app import app
from glebe.cli.command import Session, verb
from glebe.cli.exits import Failure


@verb(app)
async def version(session: Session) -> None:
    """Print the version of glebe and, if one answers, of the server."""
    import json

    found: dict[str, str | None] = {"glebe": __version__, "kubernetes": None}
    try:
        async with session.connect() as client:
            answer = await client.raw("GET", "/version")
            found["kubernetes"] = json.loads(answer.body).get("gitVersion")
    except Failure:
        pass  # the question is about this program first
    if session.out.for_people:
        session.out.line(f"glebe {found['glebe']}")
        session.out.line(f"server: {found['kubernetes'] or 'no answer'}")
    else:
        session.out.document(found)
