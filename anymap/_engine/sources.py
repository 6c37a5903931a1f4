"""Where the rows of a map come from."""

from __future__ import annotations

import time
from collections import deque
from itertools import islice
from typing import TYPE_CHECKING, Any, Protocol

from anymap._host import own_log
from anymap._host.futures import Latch

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator, Sequence
    from concurrent.futures import Future

    from anymap._engine.ledger import Ledger
    from anymap._engine.ordering import Batch
    from anymap._engine.plan import Plan

_SLOW = 0.001
"""Seconds. An input that takes longer for a row may take for ever: what is there is sent, if a worker is idle."""
_STUCK = 10.0
"""Seconds after which an input that keeps finished results waiting is worth a word."""


class Source(Protocol):
    """Gives rows to the iterating thread, as many as there is room for."""

    ended: bool
    """There are no more rows."""
    slow: bool
    """The next row may be long in coming: what is there is sent, though it fills no chunk."""

    @property
    def empty(self) -> bool:
        """There is no row just now, and the thread that brings one will wake the map."""
        ...

    def pull(self, most: int, ledger: Ledger, completions: Sequence[object]) -> bool:
        """Stage up to ``most`` rows, or all there are, and no more once something has arrived; return whether that changed anything."""
        ...

    def speak_if_stuck(self) -> None:
        """Called by the supervisor while something has arrived: say it if :meth:`pull` has kept it for long."""
        ...


def rows_of(iterables: Sequence[Iterable[Any]], plan: Plan) -> list[Any] | range | tuple[Any, ...] | Iterator[Any]:
    """Return the rows of a map over these: as a sequence where they are all there and may all be taken."""
    if len(iterables) > 1:
        return zip(*iterables, strict=False)
    rows = iterables[0]
    if type(rows) in {list, range, tuple} and not plan.lazy and plan.window is None and plan.total is not None:
        # The caller may change the list while the map runs.
        return list(rows) if isinstance(rows, list) else rows  # type: ignore[return-value]
    return iter(rows)


def source_of(rows: list[Any] | range | tuple[Any, ...] | Iterator[Any], plan: Plan) -> Source:
    """Return what gives these rows to a map."""
    if isinstance(rows, list | range | tuple):
        return AtOnce(rows)
    return Rows(rows, prompt=plan.prompt)


class AtOnce:
    """What is all there, for a map that may take it all: a range is cut into ranges, and its numbers made where they are used."""

    slow = False
    empty = False

    def __init__(self, rows: list[Any] | range | tuple[Any, ...]) -> None:
        self.ended = False
        self._rows = rows

    def pull(self, most: int, ledger: Ledger, completions: Sequence[object]) -> bool:  # noqa: ARG002 - it takes no time
        ledger.stage_all(self._rows)
        self.ended = True
        return True

    def speak_if_stuck(self) -> None:
        pass


class Rows:
    """What an iterator gives. ``prompt``: that takes no time and waits for nothing."""

    def __init__(self, rows: Iterator[Any], *, prompt: bool) -> None:
        self.ended = False
        self.slow = False
        self._rows = rows
        self._prompt = prompt
        self._pulling_since: float | None = None

    @property
    def empty(self) -> bool:
        return False

    def pull(self, most: int, ledger: Ledger, completions: Sequence[object]) -> bool:
        if self._prompt:
            rows = list(islice(self._rows, most))
            ledger.stage(rows)
            self.ended = not rows
        else:
            self._pull_watchfully(most, ledger, completions)
        return True

    def _pull_watchfully(self, most: int, ledger: Ledger, completions: Sequence[object]) -> None:
        """Pull from an input that may wait for results: nothing that is ready may be kept back meanwhile."""
        # What is done for each row here is a good part of what a long stream costs.
        clock, stage, before = time.monotonic, ledger.stager(), ledger.pulled
        self._pulling_since = now = clock()
        enough = now + _SLOW
        for row in islice(self._rows, most):
            stage(row)
            ledger.pulled += 1
            if (now := clock()) > enough or completions:
                break
        self._pulling_since = None
        self.slow = now > enough
        self.ended = ledger.pulled == before

    def speak_if_stuck(self) -> None:
        since = self._pulling_since
        if since is None or time.monotonic() - since < _STUCK:
            return
        self._pulling_since = None
        own_log.warning(
            "the input of a map has given nothing for %d s, and finished results wait for it: if it needs those "
            "results to go on, say by window= how many items it can give ahead of them",
            _STUCK,
        )


class Listed:
    """Rows that are all there, of a map on a thread of its own that other threads may cancel."""

    empty = False

    def __init__(self, rows: Sequence[Any]) -> None:
        self.ended = False
        self.slow = False
        self.sent = Latch()
        """The first rows have been sent, or never will be."""
        self._rows = rows
        self._next = 0
        self._cancelled = False

    def pull(self, most: int, ledger: Ledger, completions: Sequence[object]) -> bool:  # noqa: ARG002 - it takes no time
        if self._next:
            self.sent.set()
        rows = [] if self._cancelled else self._rows[self._next : self._next + most]
        self._next += len(rows)
        ledger.stage(rows)
        self.slow = self._next == len(self._rows)
        self.ended = not rows
        return True

    def speak_if_stuck(self) -> None:
        pass

    def rows(self, wait: Callable[[], object]) -> Iterator[Any]:  # noqa: ARG002 - it never waits
        """Iterate over the rows, for a map in the thread that calls this."""
        self.sent.set()
        for row in self._rows:
            if self._cancelled:
                return
            yield row

    def cancel(self) -> None:
        """Give no more rows."""
        self._cancelled = True


class QueueSource:
    """What other threads put in, row by row, each with the future that gets its outcome. That thread wakes the map."""

    slow = True

    def __init__(self) -> None:
        self.ended = False
        self.sent = Latch()
        """The first row has been sent, or will never be."""
        self._closed = False
        self._queue: deque[tuple[Future[Any], Any]] = deque()
        self._in_flight: dict[int, Future[Any]] = {}
        self._pulled = 0

    @property
    def empty(self) -> bool:
        return not (self._queue or self._closed)

    def put(self, future: Future[Any], row: Any) -> None:
        self._queue.append((future, row))

    def close(self) -> None:
        """Take no more: the map ends when all that was put in has its outcome. May be called by the collector."""
        self._closed = True

    def pull(self, most: int, ledger: Ledger, completions: Sequence[object]) -> bool:  # noqa: ARG002 - it never waits
        if self._pulled:
            self.sent.set()
        rows: list[Any] = []
        while len(rows) < most and (entry := self._next()) is not None:
            future, row = entry
            if future.set_running_or_notify_cancel():
                self._in_flight[self._pulled] = future
                self._pulled += 1
                rows.append(row)
        ledger.stage(rows)
        self.ended = self._closed and not self._queue
        return bool(rows) or self.ended

    def speak_if_stuck(self) -> None:
        pass

    def rows(self, wait: Callable[[], object]) -> Iterator[Any]:
        """Iterate over the rows, for a map in the thread that calls this. Calls ``wait`` where there is none just now."""
        self.sent.set()
        while self._queue or not self._closed:
            if (entry := self._next()) is None:
                wait()
                continue
            future, row = entry
            if future.set_running_or_notify_cancel():
                self._in_flight[self._pulled] = future
                self._pulled += 1
                yield row

    def settle(self, batch: Batch) -> None:
        """Give futures their outcomes."""
        for position, value in enumerate(batch.values):
            future = self._in_flight.pop(batch.start + position)
            if (exc := batch.errors.get(position)) is not None:
                future.set_exception(exc)
            else:
                future.set_result(value)

    def cancel(self) -> None:
        """Cancel what was not yet pulled."""
        while (entry := self._next()) is not None:
            future, _ = entry
            future.cancel()
            future.set_running_or_notify_cancel()

    def fail(self, exc: BaseException) -> None:
        """Give every future that has no outcome this one."""
        self.sent.set()
        while self._in_flight:
            self._in_flight.popitem()[1].set_exception(exc)
        while (entry := self._next()) is not None:
            future, _ = entry
            if future.set_running_or_notify_cancel():
                future.set_exception(exc)

    def _next(self) -> tuple[Future[Any], Any] | None:
        # Several threads take from it.
        try:
            return self._queue.popleft()
        except IndexError:
            return None
