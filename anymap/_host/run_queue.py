"""How long this thread was ready to run and had no CPU, as other processes had them."""

from __future__ import annotations

import threading

_last = threading.local()


def seconds_within(idle: float) -> float | None:
    """Return how long this thread waited for a CPU of the last ``idle`` seconds in which it did not run.

    What passed since the last call, if that is more, counts too: the figure is read at the end only. ``None`` where the
    system does not tell.
    """
    so_far = _read()
    if so_far is None:
        return None
    before, _last.seconds = getattr(_last, "seconds", 0.0), so_far
    return min(max(so_far - before, 0.0), idle)


def _read() -> float | None:
    # Documentation/scheduler/sched-stats.rst of Linux: time on a CPU, time waiting for one, number of times.
    try:
        with open("/proc/thread-self/schedstat", "rb", buffering=0) as file:
            return int(file.read().split()[1]) / 1e9
    except (OSError, IndexError):
        return None
