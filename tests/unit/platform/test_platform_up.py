"""What ``glebe up`` looks at before it starts anything."""

from __future__ import annotations

from pathlib import Path

import pytest

from glebe.platform.up import StartError, check_ledger


def test_a_damaged_ledger_is_named_with_the_remedy(tmp_path: Path) -> None:
    path = tmp_path / "ledger.db"
    path.write_bytes(b"this is no ledger " * 500)
    with pytest.raises(StartError, match="file is not a database") as caught:
        check_ledger(path)
    assert str(path) in str(caught.value)
    assert caught.value.remedy == "move the file away to begin anew"


def test_a_ledger_is_opened_as_it_is(tmp_path: Path) -> None:
    for _ in range(2):
        check_ledger(tmp_path / "ledger.db")
