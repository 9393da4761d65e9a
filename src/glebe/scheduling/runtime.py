"""When running work is expected to end."""

from __future__ import annotations

OVERDUE_FLOOR = 60.0  # seconds: the least that a job past its prediction is expected to go on
OVERDUE_SHARE = 0.05  # of its predicted run time: the same, for long jobs


def predicted_end(started_at: float, predicted: float, now: float) -> float:
    """Expected end of a job that runs at ``now``; seconds since the epoch, always after ``now``.

    Before the predicted end, that is the answer. After it, all we know is that the prediction was too low by at least
    the overrun so far; run times are heavy-tailed, and for such (Lindy's law: what has lasted t lasts t more) the
    expected remaining time grows in proportion to what has passed. So the overrun is expected to double, with a floor
    so that a job just past its prediction is not promised to end at once.
    """
    end = started_at + predicted
    if end > now:
        return end
    return now + max(now - end, OVERDUE_SHARE * predicted, OVERDUE_FLOOR)
