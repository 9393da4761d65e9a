"""The command starts quickly because it loads late, and fails in one form."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from glebe.cli.command import run_async
from glebe.cli.exits import Exit, Failure, from_api_error
from glebe.cli.main import VERBS
from glebe.kube import errors

HEAVY = ("aiohttp", "numpy", "cryptography", "yaml", "rich", "glebe.apiserver", "glebe.scheduling", "sqlite3")


def test_help_loads_nothing_heavy() -> None:
    script = (
        "import sys; sys.argv = ['glebe', '--help']\n"
        "from glebe.cli.main import main\n"
        "try: main()\n"
        "except SystemExit: pass\n"
        f"print([name for name in {HEAVY!r} if name in sys.modules], file=sys.stderr)"
    )
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True, timeout=30)
    assert done.stderr.strip() == "[]"
    for verb in VERBS:
        assert f"\n  {verb} " in done.stdout


def test_completion_is_offered() -> None:
    script = "from glebe.cli.main import main; main()"
    done = subprocess.run(
        [sys.executable, "-c", script],
        capture_output=True,
        text=True,
        check=False,
        timeout=30,
        env={"_GLEBE_COMPLETE": "complete_bash", "COMP_WORDS": "glebe que", "COMP_CWORD": "1", "PATH": ""},
    )
    assert "Traceback" not in done.stderr


@pytest.mark.parametrize(
    ("error", "code"),
    [
        (errors.not_found("batch", "jobs", "x"), Exit.NOT_FOUND),
        (errors.path_not_found(), Exit.NOT_FOUND),
        (errors.bad_request("no"), Exit.BAD_INPUT),
        (errors.invalid("batch", "Job", "x", [errors.Cause("FieldValueInvalid", "no", "spec")]), Exit.BAD_INPUT),
        (errors.already_exists("batch", "jobs", "x"), Exit.CONFLICT),
        (errors.modified("batch", "jobs", "x"), Exit.CONFLICT),
        (errors.unauthorized(), Exit.NOT_ALLOWED),
        (errors.forbidden("batch", "jobs", "x", "no"), Exit.NOT_ALLOWED),
        (errors.internal("oh"), Exit.FAILED),
    ],
)
def test_the_servers_answer_becomes_an_exit_code(error: errors.ApiError, code: Exit) -> None:
    failure = from_api_error(error)
    assert failure.code is code
    assert failure.message == error.message


def test_failures_have_one_form(capsys: Any) -> None:
    async def fails() -> int:
        raise Failure(Exit.NOT_FOUND, "there is no such thing", "look elsewhere")

    assert run_async(fails()) == 3
    assert capsys.readouterr().err == "error: there is no such thing\n  try: look elsewhere\n"


def test_a_missing_kubeconfig_says_how_to_get_one(tmp_path: Path) -> None:
    done = subprocess.run(
        [sys.executable, "-m", "glebe.cli.main", "jobs"],
        capture_output=True,
        text=True,
        check=False,
        timeout=30,
        env={"HOME": str(tmp_path), "PATH": ""},
    )
    assert done.returncode == Exit.UNREACHABLE
    assert "glebe up" in done.stderr
