"""Exit codes and the one way in which a command fails.

Scripts may rely on these numbers; ``docs/cli.md`` prints this table.
"""

from __future__ import annotations

from enum import IntEnum

from glebe.kube.errors import ApiError


class Exit(IntEnum):
    """What the exit code of a ``glebe`` command says."""

    OK = 0
    FAILED = 1
    BAD_INPUT = 2
    NOT_FOUND = 3
    UNREACHABLE = 4
    NEVER_STARTS = 5
    NOT_ALLOWED = 6
    CONFLICT = 7
    INTERRUPTED = 130


#: The sentence for each code, as the documentation shows it.
MEANING: dict[Exit, str] = {
    Exit.OK: "done; a followed job succeeded",
    Exit.FAILED: "the command or the followed job failed, or its time was over",
    Exit.BAD_INPUT: "bad usage or an invalid object: the message names the field and the remedy",
    Exit.NOT_FOUND: "no such job, queue or namespace",
    Exit.UNREACHABLE: "no server answered, or no kubeconfig was found",
    Exit.NEVER_STARTS: "the job can never start as it is written",
    Exit.NOT_ALLOWED: "not authenticated or not allowed",
    Exit.CONFLICT: "the name exists already, or another process uses the data directory",
    Exit.INTERRUPTED: "interrupted (Ctrl-C); a followed job goes on",
}


class Failure(Exception):
    """Ends a command: ``message`` says what is wrong, ``remedy`` what to do about it."""

    def __init__(self, code: Exit, message: str, remedy: str = "") -> None:
        super().__init__(message)
        self.code = code
        self.message = message
        self.remedy = remedy


def _is_cluster(error: ApiError) -> bool:
    """It is about a logical cluster itself, not about something in it."""
    return error.details.get("kind") == "clusters"


def from_api_error(error: ApiError) -> Failure:
    """The exit code that fits the server's answer; its own message is kept word for word."""
    if error.code == 404:
        code, remedy = Exit.NOT_FOUND, ""
        if _is_cluster(error):
            remedy = "glebe cluster list shows which there are"
        elif error.message == "the server could not find the requested resource":
            remedy = "this cluster does not serve the kind: is Glebe installed there (glebe up, glebe controller)?"
    elif error.code in (400, 422):
        code, remedy = Exit.BAD_INPUT, ""
    elif error.code == 409:
        code, remedy = Exit.CONFLICT, ""
        if error.reason == "AlreadyExists":
            verb = "glebe cluster delete NAME" if _is_cluster(error) else "glebe cancel NAME"
            remedy = f"choose another name, or delete the old one first ({verb})"
    elif error.code == 403 and _is_cluster(error) and "root cluster may not" in error.message:
        code, remedy = Exit.NOT_ALLOWED, "it is the platform's own: delete the data directory instead"
    elif error.code in (401, 403):
        code, remedy = Exit.NOT_ALLOWED, "use a kubeconfig whose user may do this (--kubeconfig, --context)"
    else:
        code, remedy = Exit.FAILED, ""
    return Failure(code, error.message, remedy)
