"""How much of a map is under way at once."""

from __future__ import annotations

from typing import TYPE_CHECKING

from anymap._engine import sizing
from anymap._engine.telemetry import rates

if TYPE_CHECKING:
    from anymap._engine.ledger import Ledger
    from anymap._engine.plan import Plan


class Sizes:
    """The sizes of one map's chunks and of its window, as far as the caller leaves them open."""

    def __init__(self, plan: Plan, ledger: Ledger) -> None:
        self.rate = rates.recall(plan.backend.name, plan.func)
        """How long items take. Changed under the dispatcher's lock."""
        self._plan = plan
        self._ledger = ledger
        self._target_duration = sizing.EACH_SOON if plan.lazy or plan.total is None else sizing.ALL_SOON

    def workers(self) -> int:
        return max(self._plan.backend.capacity(), 1)

    def total(self) -> int | None:
        """Return how many items there are, if that is known."""
        return self._ledger.pulled if self._ledger.exhausted else self._plan.total

    def window(self) -> int:
        """Return how many items may be in flight or undelivered."""
        if self._plan.window is not None:
            return self._plan.window
        return 2 * self.workers() * self._chunksize_by_rate()

    def chunksize(self) -> int:
        """Return how many items travel together."""
        size = self._chunksize_by_rate()
        if self._plan.window is not None and self._plan.chunksize is None:
            size = min(size, max(self._plan.window // (2 * self.workers()), 1))
        return size

    def budget(self) -> float | None:
        """Return the seconds after which a chunk ends before its last item; ``None``: it does not."""
        return None if self._plan.chunksize is not None else sizing.budget(self.rate, self._target_duration)

    def _chunksize_by_rate(self) -> int:
        if self._plan.chunksize is not None:
            return self._plan.chunksize
        total = self.total()
        remaining = None if total is None else max(total - self._ledger.pulled + self._ledger.waiting_rows(), 1)
        return sizing.chunksize(self.rate, self._target_duration, self.workers(), remaining)
