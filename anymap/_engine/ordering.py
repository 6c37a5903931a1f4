"""The rule for handing out: in the order of the input, or as they come. Each has ``add`` and ``pop``."""

from __future__ import annotations

from collections import deque
from typing import Any, NamedTuple


class Batch(NamedTuple):
    """Results of consecutive rows, with the exceptions of those that failed by their position."""

    start: int
    values: list[Any]
    errors: dict[int, Exception]


class AsFinished:
    """Hand results out in the order in which they came."""

    def __init__(self) -> None:
        self._batches: deque[Batch] = deque()

    def add(self, batch: Batch) -> None:
        self._batches.append(batch)

    def pop(self) -> Batch | None:
        return self._batches.popleft() if self._batches else None


class InOrder:
    """Hand results out in the order of the input; hold back what comes too early."""

    def __init__(self) -> None:
        self._batches: dict[int, Batch] = {}
        self._next = 0

    def add(self, batch: Batch) -> None:
        self._batches[batch.start] = batch

    def pop(self) -> Batch | None:
        batch = self._batches.pop(self._next, None)
        if batch is not None:
            self._next += len(batch.values)
        return batch
