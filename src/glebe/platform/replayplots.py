"""Plots of replays. matplotlib is imported here and nowhere else, and only when a plot is asked for."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from glebe.platform.replays import Outcome

_POINTS = 400


class NoPlots(RuntimeError):
    """matplotlib is not installed."""


def plot(outcomes: Sequence[Outcome], path: Path) -> list[Path]:
    """Waits, use over time, and forecasts against starts, as ``path`` with the suffixes .png and .svg.

    :raises NoPlots: with the remedy.
    """
    try:
        import matplotlib as mpl
    except ImportError as error:
        raise NoPlots("plots need matplotlib: pip install 'glebe[plots]'") from error
    mpl.use("Agg")
    mpl.rcParams["svg.hashsalt"] = "glebe"
    from matplotlib import pyplot as plt

    figure, (waits, use, told) = plt.subplots(1, 3, figsize=(15, 4.5), layout="constrained")
    for o in outcomes:
        ordered = sorted((life.wait or 0.0) / 3600 for life in o.lives if life.started is not None)
        waits.plot(ordered, [(i + 1) / len(ordered) for i in range(len(ordered))], label=o.name)
        times, shares = _use(o)
        use.plot(times, shares, label=o.name, linewidth=0.8)
        starts = {life.job.key: life.started for life in o.lives}
        pairs = [((t.p50 - t.at) / 3600, (at - t.at) / 3600) for t in o.told if (at := starts[t.key]) and t.p50]
        told.scatter([p for p, _ in pairs], [a for _, a in pairs], s=4, alpha=0.4, label=o.name)
    waits.set(xlabel="wait (h)", ylabel="share of jobs", xscale="symlog", title="Waits")
    use.set(xlabel="days", ylabel="share of GPUs", ylim=(0, 1.05), title="Use")
    told.set(xlabel="predicted wait, P50 (h)", ylabel="wait (h)", xscale="symlog", yscale="symlog", title="Forecasts")
    most = max((t.p50 - t.at for o in outcomes for t in o.told if t.p50), default=0.0) / 3600
    told.plot([0, most], [0, most], color="0.6", linewidth=0.8)
    waits.legend()
    written = [path.with_suffix(suffix) for suffix in (".png", ".svg")]
    for file in written:
        figure.savefig(file, dpi=120, metadata={"Date": None} if file.suffix == ".svg" else None)
    plt.close(figure)
    return written


def _use(o: Outcome) -> tuple[list[float], list[float]]:
    """(days, share of GPUs in use) at equal steps."""
    events = sorted(
        (at, sign * life.job.gpus)
        for life in o.lives
        if life.started is not None and life.ended is not None
        for at, sign in ((life.started, 1), (life.ended, -1))
    )
    if not events:
        return [], []
    begin, end = events[0][0], events[-1][0]
    times, shares, used, i = [], [], 0, 0
    for step in range(_POINTS + 1):
        now = begin + (end - begin) * step / _POINTS
        while i < len(events) and events[i][0] <= now:
            used += events[i][1]
            i += 1
        times.append((now - begin) / 86_400)
        shares.append(used / max(1, o.gpus))
    return times, shares
