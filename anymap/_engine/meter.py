"""Where the time of a map goes. Added up by chunk, never by item."""

from __future__ import annotations

import heapq
import time
from contextlib import contextmanager
from dataclasses import dataclass, field
from operator import itemgetter
from typing import TYPE_CHECKING

from anymap._engine.advice import Costs

if TYPE_CHECKING:
    from collections.abc import Iterator

    from anymap._worker import Answer

_SLOWEST = 5
"""So many of the slowest items are remembered."""


@dataclass(slots=True)
class Meter:
    """What one map has measured so far, in seconds."""

    began: float = field(default_factory=time.monotonic)
    start_up: float | None = None
    work: float = 0.0
    cpu: float = 0.0
    packing: float = 0.0
    waiting: float = 0.0
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
        if answer.done:
            self._note_slowest(answer.longest, start + answer.slowest)

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

    @contextmanager
    def packed(self) -> Iterator[None]:
        before = time.monotonic()
        yield
        self.packing += time.monotonic() - before

    @contextmanager
    def waited(self) -> Iterator[None]:
        before = time.monotonic()
        try:
            yield
        finally:
            self.waiting += time.monotonic() - before

    def costs(self) -> Costs:
        return Costs(max(self.elapsed - self.waiting, 0.0), self.work, self.cpu)
