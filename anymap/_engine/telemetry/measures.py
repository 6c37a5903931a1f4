"""Where the time of a map goes. Added up by chunk, never by item."""

from __future__ import annotations

import heapq
import os
import time
from dataclasses import dataclass, field
from operator import itemgetter
from typing import TYPE_CHECKING

from anymap._engine.telemetry.advice import Costs
from anymap._host import cpus

if TYPE_CHECKING:
    from anymap._worker.protocol import Answer

_SLOWEST = 5
"""So many of the slowest items are remembered."""


class Stopwatch:
    """Adds up the seconds spent inside of ``with`` blocks of one thread."""

    __slots__ = ("_began", "seconds")

    def __init__(self) -> None:
        self.seconds = 0.0

    def __enter__(self) -> None:
        self._began = time.monotonic()

    def __exit__(self, *_: object) -> None:
        self.seconds += time.monotonic() - self._began


@dataclass(slots=True)
class Timings:
    """What one map has measured so far, in seconds."""

    began: float = field(default_factory=time.monotonic)
    start_up: float | None = None
    work: float = 0.0
    cpu: float = 0.0
    queued: float | None = 0.0
    """``None`` where a system does not tell."""
    packing: float = 0.0
    waiting: Stopwatch = field(default_factory=Stopwatch)
    """Time in the caller's own code: in the input, and between two results."""
    slowest: list[tuple[float, int]] = field(default_factory=list)
    """Seconds and index of the items that took the longest, in no order."""

    @property
    def elapsed(self) -> float:
        return time.monotonic() - self.began

    def note(self, answer: Answer, start: int) -> None:
        """Take in what the chunk that begins with item ``start`` cost."""
        if self.start_up is None:
            self.start_up = max(self.elapsed - answer.seconds, 0.0)
        self.work += answer.seconds
        self.cpu += answer.cpu
        self.queued = None if self.queued is None or answer.queued is None else self.queued + answer.queued
        if answer.done:
            self._note_slowest(answer.longest, start + answer.slowest)

    def note_item(self, seconds: float, index: int) -> None:
        """Take in what one item took that ran in this thread."""
        if self.start_up is None:
            self.start_up = max(self.elapsed - seconds, 0.0)
        self.work += seconds
        if len(self.slowest) < _SLOWEST or seconds > self.slowest[0][0]:
            self._note_slowest(seconds, index)

    def _note_slowest(self, seconds: float, index: int) -> None:
        if len(self.slowest) < _SLOWEST:
            heapq.heappush(self.slowest, (seconds, index))
        elif seconds > self.slowest[0][0]:
            heapq.heapreplace(self.slowest, (seconds, index))

    def slowest_items(self) -> tuple[tuple[int, float], ...]:
        """Return index and seconds of each, the slowest first."""
        # One that was tried again may be among them twice.
        longest = {index: seconds for seconds, index in sorted(self.slowest)}
        return tuple(sorted(longest.items(), key=itemgetter(1), reverse=True))

    def costs(self) -> Costs:
        queued = self.queued
        if queued is None:
            # Whatever they waited for may have been a CPU.
            queued = max(self.work - self.cpu, 0.0) if _is_busy_machine() else 0.0
        return Costs(max(self.elapsed - self.waiting.seconds, 0.0), self.work, self.cpu, queued)


def _is_busy_machine() -> bool:
    try:
        return os.getloadavg()[0] > cpus.available()
    except (OSError, AttributeError):  # not on Windows
        return False
