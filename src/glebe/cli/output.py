"""One renderer for every verb: the same rows as a table, as JSON, as YAML or as names.

A row is a plain dictionary with stable keys, and that dictionary is what JSON and YAML print; the table shows the
columns that the verb chose, in words. An empty table prints the sentence that says why it is empty.
"""

from __future__ import annotations

import json
import shutil
import sys
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from enum import StrEnum
from typing import Any, TextIO

Row = Mapping[str, Any]


class Format(StrEnum):
    """Values of ``--output``."""

    TABLE = "table"
    WIDE = "wide"
    JSON = "json"
    YAML = "yaml"
    NAME = "name"


@dataclass(frozen=True, slots=True)
class Column:
    """``key`` picks the cell, ``show`` turns its value into text; ``wide`` columns need ``-o wide``."""

    title: str
    key: str
    show: Callable[[Any], str] = lambda value: "" if value is None else str(value)
    wide: bool = False
    right: bool = False
    flexible: bool = False  # takes the room that is left, and wraps there


@dataclass(slots=True)
class Output:
    """Prints answers in one format."""

    format: Format = Format.TABLE
    stream: TextIO | None = None  # default: the current stdout
    width: int | None = None  # of the terminal, in characters; None asks, and does not wrap into a pipe

    @property
    def for_people(self) -> bool:
        return self.format in (Format.TABLE, Format.WIDE)

    def line(self, text: str = "") -> None:
        """A line for people: swallowed by the machine formats."""
        if self.for_people:
            self._write(text)

    def rows(self, columns: Sequence[Column], rows: Sequence[Row], *, empty: str, name: str = "name") -> None:
        """Print ``rows``; ``name`` is the key that ``-o name`` prints."""
        if self.format is Format.NAME:
            for row in rows:
                self._write(str(row[name]))
        elif self.for_people:
            self._write(self.table(columns, rows) if rows else empty)
        else:
            self.document(list(rows))

    def document(self, value: Any) -> None:
        """Print any JSON-like value in a machine format (tables print YAML)."""
        text = json.dumps(value, indent=2, default=str)
        if self.format is Format.JSON:
            self._write(text)
        else:
            import yaml

            plain = json.loads(text)  # enums and tuples have become what YAML can say
            self._write(yaml.safe_dump(plain, sort_keys=False, allow_unicode=True).rstrip("\n"))

    def table(self, columns: Sequence[Column], rows: Sequence[Row]) -> str:
        """Columns two spaces apart, as ``kubectl`` prints them."""
        shown = [column for column in columns if self.format is Format.WIDE or not column.wide]
        cells = [[column.title for column in shown]]
        cells += [[column.show(row.get(column.key)) for column in shown] for row in rows]
        widths = [max(len(line[i]) for line in cells) for i in range(len(shown))]
        for i, column in enumerate(shown):
            if column.flexible:
                others = sum(widths) - widths[i] + 2 * (len(shown) - 1)
                widths[i] = min(widths[i], max(30, self._terminal_width() - others))
        lines: list[str] = []
        for line in cells:
            lines.extend(_lay_out(line, widths, shown))
        return "\n".join(lines)

    def _terminal_width(self) -> int:
        if self.width is not None:
            return self.width
        out = self.stream or sys.stdout
        return shutil.get_terminal_size().columns if out.isatty() else 10_000

    def _write(self, text: str) -> None:
        print(text, file=self.stream or sys.stdout, flush=True)


def _lay_out(cells: Sequence[str], widths: Sequence[int], columns: Sequence[Column]) -> list[str]:
    """One row as one or more lines: flexible cells wrap under themselves."""
    import textwrap

    wrapped = [
        textwrap.wrap(cell, width) or [""] if column.flexible else [cell]
        for cell, width, column in zip(cells, widths, columns, strict=True)
    ]
    lines = []
    for number in range(max(len(cell) for cell in wrapped)):
        parts = []
        for cell, width, column in zip(wrapped, widths, columns, strict=True):
            text = cell[number] if number < len(cell) else ""
            parts.append(text.rjust(width) if column.right else text.ljust(width))
        lines.append("  ".join(parts).rstrip())
    return lines
