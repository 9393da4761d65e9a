"""What the tables are made of: rows of texts."""

from __future__ import annotations

Row = tuple[str, ...]
