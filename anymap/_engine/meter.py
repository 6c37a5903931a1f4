"""Where the time of a map goes. Added up by chunk, never by item."""

from __future__ import annotations

import time
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from anymap._engine.advice import Costs

if TYPE_CHECKING:
    from collections.abc import Iterator

    from anymap._worker import Answer


@dataclass(slots=True)
class Meter:
    """What one map has measured so far, in seconds."""

    began: float = field(default_factory=time.monotonic)
    start_up: float | None = None
    work: float = 0.0
    cpu: float = 0.0
    packing: float = 0.0
    waiting: float = 0.0

    @property
    def elapsed(self) -> float:
        return time.monotonic() - self.began

    def note(self, answer: Answer) -> None:
        """Take in what a chunk cost."""
        if self.start_up is None:
            self.start_up = max(self.elapsed - answer.seconds, 0.0)
        self.work += answer.seconds
        self.cpu += answer.cpu

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
