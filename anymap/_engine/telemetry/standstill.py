"""Say it when a map stands still: no item ends, and no worker uses a CPU."""

from __future__ import annotations

import os
import time
from typing import TYPE_CHECKING

from anymap._host import descendants, own_log

if TYPE_CHECKING:
    from collections.abc import Collection

    from anymap._host.status_board import Mark
    from anymap.backends.base import Backend

_LONG = 60.0
"""Seconds without the end of an item after which a map may stand still."""
_SAMPLE = 10.0
"""Seconds before that, for which the CPU time of the workers is measured."""
_IDLE = 0.01
"""Share of a CPU. A worker that uses no more than this does nothing but look whether it is still wanted."""


class Standstill:
    """Watches a map whose workers are processes of this host; says once that it stands still."""

    def __init__(self, backend: Backend) -> None:
        self._backend = backend
        self._known: frozenset[Mark] = frozenset()
        self._since = time.monotonic()
        self._cpu: float | None = None
        """What the workers had used when the sample began."""
        traits = backend.traits
        self._is_over = traits.remote or traits.shares_memory

    def look(self, marks: Collection[Mark]) -> None:
        """Take in where the chunks in flight are."""
        running = frozenset(mark for mark in marks if mark.pid)
        now = time.monotonic()
        if self._is_over or not running or running != self._known:
            self._begin(running, now)
        elif now > self._since + _LONG:
            self._judge({mark.pid for mark in running}, now)
        elif self._cpu is None and now > self._since + _LONG - _SAMPLE:
            self._cpu = _cpu_seconds({mark.pid for mark in running})

    def _begin(self, running: frozenset[Mark], now: float) -> None:
        self._known, self._since, self._cpu = running, now, None

    def _judge(self, pids: set[int], now: float) -> None:
        used = _cpu_seconds(pids)
        if used is not None and self._cpu is not None and used - self._cpu <= _IDLE * _SAMPLE * len(pids):
            self._is_over = True
            self._say(pids)
        self._begin(self._known, now)

    def _say(self, pids: set[int]) -> None:
        own_log.warning(
            "none of the items of a map on backend %r has ended for %d s, and its workers (%s) use no CPU: they wait for "
            "something.%s",
            self._backend.name,
            _LONG,
            ", ".join(map(str, sorted(pids))),
            _ABOUT_FORKS if self._backend.traits.forks else "",
        )


_ABOUT_FORKS = (
    " They are forks: a lock that another thread of this process held when they were made is never released there. "
    "Workers of backend='processes' inherit none."
)


def _cpu_seconds(pids: Collection[int]) -> float | None:
    """Return how long processes and those below them have run on a CPU; ``None`` where that cannot be told."""
    try:
        ticks = [sum(map(int, _fields(pid)[11:13])) for pid in [*pids, *descendants.find(*pids)]]
    except OSError:  # one has ended, or there is no such file
        return None
    return sum(ticks) / os.sysconf("SC_CLK_TCK")


def _fields(pid: int) -> list[bytes]:
    with open(f"/proc/{pid}/stat", "rb") as file:
        return file.read().rpartition(b")")[2].split()
