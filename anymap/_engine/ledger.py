"""The state of every row. A pure state machine: no futures, no threads, no clock of its own.

Rows are numbered as they are pulled. A row is staged, travels in a chunk, and gets one outcome: a result or an error.
Chunks are runs of consecutive rows, so that the usual case costs nothing per row; only rows that failed, were lost or
are suspected of killing a worker are looked at one by one.
"""

from __future__ import annotations

import bisect
import math
from collections import deque
from dataclasses import dataclass, field
from itertools import chain
from operator import attrgetter
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator, Sequence

_FREE_LOSSES = 3
"""So often may a chunk be lost with no item to blame before its items are run one by one."""

_PROOF = 2
"""So often must a row be lost alone, where it is not known what its worker was at, before it is blamed. Once may be chance:
the engine may have started what killed another worker again, by itself, where this row ran. If another was lost alone
just before, that is likely, and the loss counts half."""


@dataclass(slots=True, eq=False)
class Chunk:
    """Consecutive rows that travel together."""

    start: int
    rows: Sequence[Any]
    losses: int = 0
    """How often these rows were lost with nothing to blame."""
    alone: bool = False
    """No other chunk may be in flight with it: if a worker dies now, it was this one."""
    evidence: float = 0.0
    """How often it was lost then, when it was not known what its worker was at; what may be chance counts half."""
    not_before: float = 0.0
    """A retry's time to wait until."""
    expired: int | None = None
    """The position whose time ran out, once its worker has been killed for it."""

    def __len__(self) -> int:
        return len(self.rows)

    @property
    def indexes(self) -> range:
        return range(self.start, self.start + len(self.rows))

    def part(self, begin: int, end: int, **changes: Any) -> Chunk:
        return Chunk(self.start + begin, self.rows[begin:end], **({"losses": self.losses} | changes))


@dataclass(slots=True)
class Counts:
    """Totals for the progress events."""

    done: int = 0
    failed: int = 0
    retried: int = 0
    lost: int = 0


@dataclass(slots=True)
class Ledger:
    """Where each row stands, and what may be sent next."""

    counts: Counts = field(default_factory=Counts)
    exhausted: bool = False
    """There is nothing left to pull."""
    pulled: int = 0
    """Rows staged so far. Only the pulling thread writes it."""
    attempts: dict[int, int] = field(default_factory=dict)
    """Failed attempts of rows that may be tried again."""
    _next_index: int = 0
    _staged: list[Any] = field(default_factory=list)
    """Pulled rows that have not been sent. Only the pulling thread appends; :meth:`next` takes away."""
    _all: Sequence[Any] | None = None
    """All rows there are, sent or not, where they came at once."""
    _given_back: list[Chunk] = field(default_factory=list)
    """Rows that flew and were not begun, or were lost with a worker; in the order of the input."""
    _again: deque[Chunk] = field(default_factory=deque)
    """Failed rows that are to be tried again."""
    _suspects: deque[Chunk] = field(default_factory=deque)
    _in_flight: set[Chunk] = field(default_factory=set)
    _lost_alone: range | None = None
    """The suspect that was lost just before."""

    @property
    def in_flight_count(self) -> int:
        return len(self._in_flight)

    @property
    def waiting(self) -> bool:
        """There are rows that are ready to be sent or will be."""
        return bool(self.staged or self._given_back or self._again or self._suspects)

    @property
    def staged(self) -> int:
        """How many rows have been pulled and have not been sent."""
        return self.pulled - self._next_index

    def stage(self, rows: Sequence[Any]) -> None:
        """Take in rows that have been pulled."""
        self._staged.extend(rows)
        self.pulled += len(rows)

    def stager(self) -> Callable[[Any], None]:
        """Return what takes in one row, quicker than :meth:`stage`; the caller counts it in ``pulled`` then."""
        return self._staged.append

    def stage_all(self, rows: Sequence[Any]) -> None:
        """Take in all rows there are. They are left where they are, and must not change."""
        self._all = rows
        self.pulled = len(rows)

    def in_flight(self) -> Iterable[Chunk]:
        return tuple(self._in_flight)

    def is_in_flight(self, chunk: Chunk) -> bool:
        return chunk in self._in_flight

    def next(self, size: int, now: float, *, partial: bool) -> Chunk | None:
        """Take the next chunk to send. ``partial``: fewer than ``size`` staged rows will do."""
        chunk = self._suspect() if self._suspects else self._innocent(size, now, partial=partial)
        if chunk is not None:
            self._in_flight.add(chunk)
        return chunk

    def _suspect(self) -> Chunk | None:
        return None if self._in_flight else self._suspects.popleft()

    def _innocent(self, size: int, now: float, *, partial: bool) -> Chunk | None:
        if any(chunk.alone for chunk in self._in_flight):
            return None
        return self._returned(size) or self._ready_at(now) or self._fresh(size, partial=partial)

    def _returned(self, size: int) -> Chunk | None:
        if not self._given_back:
            return None
        chunk = self._given_back.pop(0)
        # It may have come back because its items take longer than was thought when it was cut.
        self._requeue(chunk.part(size, len(chunk)))
        return chunk.part(0, size)

    def _ready_at(self, now: float) -> Chunk | None:
        for chunk in self._again:
            if chunk.not_before <= now:
                self._again.remove(chunk)
                return chunk
        return None

    def _fresh(self, size: int, *, partial: bool) -> Chunk | None:
        count = min(size, self.staged)
        if not count or (count < size and not partial):
            return None
        rows = self._take(count)
        chunk = Chunk(self._next_index, rows)
        self._next_index += count
        return chunk

    def _take(self, count: int) -> Sequence[Any]:
        if self._all is not None:
            return self._all[self._next_index : self._next_index + count]
        rows = self._staged[:count]
        # In place, and only from the front: meanwhile another thread may append.
        del self._staged[:count]
        return rows

    def complete(
        self, chunk: Chunk, done: int, failed: Iterable[int], verdict: Callable[[int, int], float | None], now: float
    ) -> list[int]:
        """Enter an answer: ``done`` rows ran, those at the positions ``failed`` with an error.

        ``verdict(position, attempts)`` says after how many seconds to try such a row again, or ``None``: not at all.
        Returns the positions that will be tried again; the rows that were not begun are queued anew.
        """
        self._in_flight.discard(chunk)
        self._lost_alone = None
        again = [position for position in failed if self._try_again(chunk, position, verdict, now)]
        self.counts.done += done - len(again)
        self._requeue(chunk.part(done, len(chunk)))
        return again

    def fail(self, chunk: Chunk, position: int, verdict: Callable[[int, int], float | None], now: float) -> bool:
        """Enter that one row of a chunk failed; return whether that is its outcome."""
        if self._try_again(chunk, position, verdict, now):
            return False
        self.counts.done += 1
        return True

    def refuse(self, chunk: Chunk, positions: Iterable[int]) -> None:
        """Enter that rows of a chunk cannot be sent at all; the others are queued again."""
        self._in_flight.discard(chunk)
        begin = 0
        for position in [*sorted(positions), len(chunk)]:
            self._requeue(chunk.part(begin, position))
            begin = position + 1
        count = len(set(positions))
        self.counts.done += count
        self.counts.failed += count

    def fail_to_load(self, count: int) -> None:
        """Enter that so many results, of rows that are done, cannot be loaded here."""
        self.counts.failed += count

    def forget_attempts(self, index: int) -> int:
        """Return how many attempts a row took whose outcome is known now."""
        return max(self.attempts.pop(index, 1), 1)

    def lose(self, chunk: Chunk, position: int | None, *, certain: bool) -> int | None:
        """Enter that a chunk was lost and return the position to blame, if there is one.

        ``position`` is the row that was running; ``None``: not known. ``certain``: its worker is known to have
        died, so the row is to blame; else it is only suspected, and will be run alone.
        All other rows are queued again, at no cost to them. The blamed row is the caller's to :meth:`fail`.
        """
        self._in_flight.discard(chunk)
        running = position is not None and 0 <= position < len(chunk)
        if running and (certain or (chunk.alone and len(chunk) == 1)):
            self._requeue(chunk.part(0, position))  # type: ignore[arg-type]
            self._requeue(chunk.part(position + 1, len(chunk)))  # type: ignore[operator]
            return position
        if position is None and chunk.alone and len(chunk) == 1:
            return self._lose_suspect(chunk)
        if running and not certain:
            self._requeue(chunk.part(0, position))  # type: ignore[arg-type]
            self._suspects.append(chunk.part(position, position + 1, alone=True))  # type: ignore[operator, arg-type]
            self._requeue(chunk.part(position + 1, len(chunk)))  # type: ignore[operator]
            return None
        return self._lose_blameless(chunk, unknown=position is None)

    def _lose_suspect(self, chunk: Chunk) -> int | None:
        evidence = chunk.evidence + (1.0 if self._lost_alone in {None, chunk.indexes} else 0.5)
        self._lost_alone = chunk.indexes
        if evidence >= _PROOF:
            return 0
        self._suspects.append(chunk.part(0, 1, alone=True, evidence=evidence))
        return None

    def _lose_blameless(self, chunk: Chunk, *, unknown: bool) -> int | None:
        losses = chunk.losses + 1
        if len(chunk) == 1 and losses > 2 * _FREE_LOSSES:
            return 0
        if unknown or losses > _FREE_LOSSES:
            self._suspects.extend(_pieces(chunk, losses))
        else:
            self._requeue(chunk.part(0, len(chunk), losses=losses))
        return None

    def _try_again(self, chunk: Chunk, position: int, verdict: Callable[[int, int], float | None], now: float) -> bool:
        index = chunk.start + position
        self.attempts[index] = self.attempts.get(index, 0) + 1
        delay = verdict(position, self.attempts[index])
        if delay is None:
            self.counts.failed += 1
            return False
        self.counts.retried += 1
        self._again.append(chunk.part(position, position + 1, not_before=now + delay))
        return True

    def failed_so_far(self, chunk: Chunk, position: int) -> int:
        """Return how many attempts of a row have failed."""
        return self.attempts.get(chunk.start + position, 1)

    def _requeue(self, chunk: Chunk) -> None:
        if len(chunk):
            bisect.insort(self._given_back, chunk, key=attrgetter("start"))

    def next_ready(self) -> float | None:
        """Return when the next row may be tried again; ``None`` where none is waiting."""
        return 0.0 if self._given_back else min((chunk.not_before for chunk in self._again), default=None)

    def waiting_rows(self) -> int:
        """How many rows are ready to be sent or will be."""
        return self.staged + sum(map(len, chain(self._given_back, self._again, self._suspects)))


def _pieces(chunk: Chunk, losses: int) -> Iterator[Chunk]:
    """Cut a chunk that killed a worker: one by one if it is small, else so that three more deaths find the row."""
    size = 1 if len(chunk) <= 64 else math.isqrt(len(chunk))
    for begin in range(0, len(chunk), size):
        yield chunk.part(begin, begin + size, losses=losses, alone=True)
