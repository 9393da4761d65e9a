"""The one renderer."""

from __future__ import annotations

import io
import json

import yaml

from glebe.cli.output import Column, Format, Output

ROWS = [
    {"name": "a", "gpus": 64, "why": "the fleet is full until job b ends", "secret": 1},
    {"name": "long-name", "gpus": 8, "why": ""},
]
COLUMNS = (
    Column("NAME", "name"),
    Column("GPUS", "gpus", right=True),
    Column("WHY", "why", flexible=True),
    Column("SECRET", "secret", wide=True),
)


def printed(form: Format, rows: list[dict[str, object]] = ROWS, width: int | None = 200) -> str:
    stream = io.StringIO()
    Output(form, stream, width).rows(COLUMNS, rows, empty="Nothing here.")
    return stream.getvalue()


def test_table_has_aligned_columns() -> None:
    assert printed(Format.TABLE) == (
        "NAME       GPUS  WHY\na            64  the fleet is full until job b ends\nlong-name     8\n"
    )


def test_wide_shows_more() -> None:
    assert "SECRET" in printed(Format.WIDE)
    assert "SECRET" not in printed(Format.TABLE)


def test_flexible_cells_wrap_in_a_narrow_terminal() -> None:
    lines = printed(Format.TABLE, width=50).splitlines()
    assert max(len(line) for line in lines) <= 50
    assert lines[1].startswith("a            64  the fleet")
    assert lines[2].strip() == "ends"


def test_machine_formats_print_the_rows() -> None:
    assert json.loads(printed(Format.JSON)) == ROWS
    assert yaml.safe_load(printed(Format.YAML)) == ROWS
    assert printed(Format.NAME) == "a\nlong-name\n"


def test_empty_says_why_to_people_and_nothing_to_machines() -> None:
    assert printed(Format.TABLE, []) == "Nothing here.\n"
    assert json.loads(printed(Format.JSON, [])) == []
    assert printed(Format.NAME, []) == ""


def test_lines_are_for_people_only() -> None:
    stream = io.StringIO()
    Output(Format.JSON, stream).line("hello")
    assert stream.getvalue() == ""
