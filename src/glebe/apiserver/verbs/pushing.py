"""Watch events on their shortest way: from the store to the connection, without a task that runs for each."""

from __future__ import annotations

from collections.abc import Callable

from glebe.apiserver.sharing.pieces import pushes
from glebe.apiserver.store import Event, Subscription
from glebe.kube.transport import StreamSink


def push(
    subscription: Subscription,
    sink: StreamSink,
    frame: Callable[[Event], bytes],
    most: int,
    cluster: str,
    sent: list[int],
) -> None:
    """Write to ``sink`` what comes while the subscription's reader waits; b"" is nothing to write.

    At most one write per turn of the loop: what is acknowledged together goes out together. Whenever the client lags,
    more than ``most`` events are queued or one cannot be encoded, the reader is woken and does it its own way. The
    watchers of many share turns by ``cluster``; ``sent`` counts what was written.
    """
    soon, queue = pushes(), subscription.queue
    scheduled = False

    def flush() -> None:
        nonlocal scheduled
        scheduled = False
        if sink.full or len(queue) > most or not subscription.waiting:
            subscription.wake()
            return
        try:
            frames = [line for line in map(frame, queue) if line]
        except Exception:
            subscription.wake()  # the reader meets the same event, and tells its watcher
            return
        queue.clear()
        if frames:
            sent[0] += len(frames)
            sink.write(frames[0] if len(frames) == 1 else b"".join(frames))

    def on_event() -> None:
        nonlocal scheduled
        if not scheduled:
            scheduled = True
            soon.add(cluster, flush)

    subscription.on_event = on_event
