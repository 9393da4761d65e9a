"""What is wrong in a trace is named with its line, its field and what to do."""

from __future__ import annotations

import pytest

from glebe.scheduling.replay.trace import TraceError, read_csv

HEAD = "submitted,duration,gpus,limit,priority"


@pytest.mark.parametrize(
    ("row", "said"),
    [
        ("0,x,8,,", "line 2 of the trace: duration: 'x' is no number"),
        ("0,nan,8,,", "line 2 of the trace: duration: 'nan' is no number"),
        ("0,5,inf,,", "line 2 of the trace: gpus: 'inf' is no number"),
        ("soon,5,8,,", "line 2 of the trace: submitted: 'soon' is no number"),
        (",5,8,,", "line 2 of the trace: submitted: '' is no number"),
        ("0,5", "line 2 of the trace: gpus: None is no number"),
        ("0,5,1,never,", "line 2 of the trace: limit: 'never' is no number"),
        ("0,5,1,,high", "line 2 of the trace: priority: 'high' is no number"),
    ],
)
def test_faults_are_named(row: str, said: str) -> None:
    with pytest.raises(TraceError) as error:
        read_csv([HEAD, row], {})
    assert str(error.value) == said


def test_a_missing_column_says_how_to_map_it() -> None:
    with pytest.raises(TraceError, match="add --map submitted=COLUMN"):
        read_csv(["when,duration,gpus", "0,5,1"], {})


def test_times_are_seconds_or_dates() -> None:
    rows = ["20240101,5,1,,", "2024-01-01T00:00:00Z,5,1,,", "12.5,5,1,,"]
    assert [j.submitted for j in read_csv([HEAD, *rows], {}).jobs] == [12.5, 20240101.0, 1704067200.0]
