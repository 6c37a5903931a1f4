"""Runs the items of a chunk one after another, until the chunk, its time budget or the map ends."""

from __future__ import annotations

import os
import time
from functools import partial
from typing import TYPE_CHECKING, Any, NamedTuple

from anymap._host import forks, guarded, status_board
from anymap._serialize import exceptions
from anymap._worker.context import task_context

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from anymap._host.ticker import Ticker
    from anymap._worker.protocol import TaskData

_CHECK_INTERVAL = 0.0002
"""Seconds of items between two looks at what else there is: whether the map has ended, or the chunk's time."""
_FIRST_CHECK_INTERVAL = 0.00002
"""Seconds until the first, which finds out whether the items are quick."""
_QUICK = 5e-7
"""Seconds. For items that take no longer, to look at the clock after each would cost as much again."""
_TICK = 0.01
"""Seconds between two ticks of the ticker that they are run by instead."""
_WORTH_A_TICK = 0.0003
"""Seconds of quick items that are left. A thread ticks, and to start one takes a third of that."""
_WORTH_A_LOOK = 0.001
"""Seconds of a chunk without a CPU. To find out whether it waited for one takes some twenty microseconds."""


class Ran(NamedTuple):
    """What became of the rows of a chunk that were run."""

    done: int
    values: list[Any]
    failures: list[tuple[int, Any, float]]
    seconds: float
    longest: float
    slowest: int
    cpu: float
    queued: float | None


def run_rows(task: TaskData, func: Callable[..., Any], rows: Any, board: status_board.Buffer, slot: int) -> Ran:
    """Run the rows of a task in the environment of its map."""
    environment = task.spec.environment
    if environment is None:
        return _run_each(task, func, rows, board, slot)
    with environment.inside():
        return _run_each(task, environment.around(func), rows, board, slot)


def _run_each(task: TaskData, func: Callable[..., Any], rows: Any, board: status_board.Buffer, slot: int) -> Ran:
    """Run the rows one after another until the chunk, its time budget or the map ends."""
    spec, offset = task.spec, status_board.item_offset(slot)
    status_board.sign(board, slot)
    values: list[Any] = []
    failures: list[tuple[int, Any, float]] = []
    _enter_slot(board, offset, values if spec.shares_memory else None)
    call_some = _caller(task, func, rows, board, offset)
    may_fail = task.count if task.may_fail is None else task.may_fail
    cpu = time.thread_time()
    watch = _Watch(task, board, offset, values)
    try:
        goes_on = watch.look()
        while goes_on and len(values) < task.most:
            try:
                call_some(values, watch)
                goes_on = False
            except BaseException as exc:  # noqa: BLE001 - it is the item's outcome, whatever it is
                watch.end_if_fork(1)
                values.append(None)
                goes_on = watch.look()
                guarded.put(exc, "__traceback__", exceptions.users_part(guarded.get(exc, "__traceback__")))
                failures.append((len(values) - 1, exc, watch.latest))
                # What there is no memory for here may find some elsewhere.
                if len(failures) > may_fail or issubclass(type(exc), MemoryError):
                    break
    finally:
        watch.close()
    ended = watch.measure()
    # From here on no item is running, though the answer is still to be packed and sent.
    status_board.write_item(board, offset, status_board.position_at_end(task.count, len(values)), ended)
    _enter_slot(board, offset, None)
    seconds, cpu = ended - watch.began, time.thread_time() - cpu
    queued = _waited_for_a_cpu(seconds - cpu)
    return Ran(len(values), values, failures, seconds, watch.longest, watch.slowest, cpu, queued)


def _waited_for_a_cpu(idle: float) -> float | None:
    """Return how much of the time without a CPU was spent waiting for one; see ``run_queue``."""
    if idle < _WORTH_A_LOOK:
        return 0.0
    from anymap._host import run_queue  # noqa: PLC0415 - where items compute on a machine of their own, it is not needed

    return run_queue.seconds_within(idle)


class _Watch:
    """Looks up from a chunk's rows now and then: at the time, at the order to stop, and to say on the board where it is.

    As a rule it does so once a check interval has gone by, for which a clock is read after each row. Where they are too quick for
    that, they are run until the ticker ticks.
    """

    __slots__ = (
        "_board",
        "_check_interval",
        "_end",
        "_is_fork",
        "_known",
        "_may_hear",
        "_mean",
        "_most",
        "_offset",
        "_timeout",
        "_uses_ticker",
        "_values",
        "began",
        "is_quick",
        "latest",
        "longest",
        "rung",
        "since",
        "slowest",
        "until",
    )

    def __init__(self, task: TaskData, board: status_board.Buffer, offset: int, values: list[Any]) -> None:
        self._board = board
        self._offset = offset
        self._values = values
        self._timeout = task.spec.timeout
        # With a timeout each item's own beginning counts.
        self._check_interval = _FIRST_CHECK_INTERVAL if self._timeout is None else 0.0
        self._known = 0
        """Rows that had ended when it last looked."""
        self._most = task.most
        self._mean = 0.0
        """Seconds per row, of those that ended between the last two looks."""
        self.began = self.since = time.monotonic()
        """When it last looked."""
        self._end = float("inf") if task.budget is None else self.began + task.budget
        self.latest = 0.0
        """Seconds that the row before the last look took, as well as that can be told."""
        self.longest = 0.0
        """Seconds that the slowest row took."""
        self.slowest = 0
        self._may_hear = self._timeout is None
        self._uses_ticker = False
        self._is_fork = False
        self.until = 0.0
        """When to look again."""
        self.is_quick = False
        """The next rows are to be run until the ticker ticks."""
        self.rung: float | None = None
        """When the ticker first ticked since the last look."""
        _watches.add(self)

    def look(self) -> bool:
        """Look up, and set until when not to do so again; return whether another row is to begin."""
        self.end_if_fork(0)
        before, now = self.since, self.measure()
        if now > self._end or self._board[0]:
            return False
        status_board.write_item(self._board, self._offset, self._known, now)
        # The caller gives up an item that is out of time, and others get the rest of its chunk. It may have done so up to
        # the moment in which the board told it that the item has ended.
        has_ended = self.since != before
        if has_ended and self._timeout is not None and time.monotonic() - before > self._timeout:
            return False
        if has_ended and self._timeout is None:
            self._check_interval = _CHECK_INTERVAL
            self.is_quick = not self.is_quick and self._is_worth_a_tick() and self._uses_ticker_now()
        self.until = now + self._check_interval
        return True

    def measure(self) -> float:
        """Take in how long the rows have taken that have ended since the last time; return what time it is."""
        now, known = time.monotonic(), self._known
        self._known = len(self._values)
        if self._known == known:
            return now
        seconds, self.since = now - self.since, now
        self._mean = seconds / (self._known - known)
        self.latest = self._longest_of(seconds, now)
        if self.latest > self.longest:
            self.longest, self.slowest = self.latest, self._known - 1
        self.rung = None
        return now

    def _longest_of(self, seconds: float, now: float) -> float:
        """Of several rows only the last can have taken long: none was begun after the check interval was over, or the ticker ticked."""
        if self.is_quick:
            return self._mean if self.rung is None else max(self._mean, now - self.rung)
        return self._mean if seconds <= 2 * self._check_interval else seconds

    def _is_worth_a_tick(self) -> bool:
        return self._may_hear and self._mean <= _QUICK and (self._most - self._known) * self._mean >= _WORTH_A_TICK

    def _uses_ticker_now(self) -> bool:
        if not self._uses_ticker:
            try:
                _ticker().enter(self)
            except RuntimeError:  # no thread can be started
                self._may_hear = False
                return False
            self._uses_ticker = True
        return True

    def hear(self) -> None:
        """The ticker ticks."""
        if self.rung is None:
            self.rung = time.monotonic()

    def mark_as_fork(self) -> None:
        """In a fork that an item makes: have this chunk end when the item does."""
        self._is_fork = True
        self.until = 0.0
        self.hear()

    def end_if_fork(self, exitcode: int) -> None:
        """End this process if it is the child of an item: the parent answers for the item, and runs the rest."""
        if self._is_fork:
            os._exit(exitcode)

    def close(self) -> None:
        """Follow the ticker no more."""
        _watches.discard(self)
        if self._uses_ticker:
            _ticker().leave(self)


_watches: set[_Watch] = set()
"""Those of the chunks that this process runs."""


def _mark_forked_chunks() -> None:
    for watch in _watches:
        watch.mark_as_fork()
    _watches.clear()


forks.in_child(_mark_forked_chunks)

_ticker_lock = forks.Lock()
_the_ticker: Ticker[_Watch] | None = None


def _ticker() -> Ticker[_Watch]:
    global _the_ticker  # noqa: PLW0603 - the thread that rings it is the process's
    if _the_ticker is None:
        from anymap._host.ticker import Ticker  # noqa: PLC0415 - many a worker never has such items

        with _ticker_lock:
            _the_ticker = _the_ticker or Ticker(_Watch.hear, _TICK, "anymap-bell")
    return _the_ticker


def _enter_slot(board: status_board.Buffer, offset: int, values: list[Any] | None) -> None:
    """Record the current item of this thread."""
    if (taken := task_context.get()) is not None:
        taken.board, taken.offset, taken.values = board, offset, values


def _caller(
    task: TaskData, func: Callable[..., Any], rows: Any, board: status_board.Buffer, offset: int
) -> Callable[[list[Any], _Watch], None]:
    """Return what calls ``func`` with row after row, adds what it returns to a list, and looks up at certain times."""
    spec = task.spec
    if spec.around is not None:
        func = spec.around(func)
    if spec.shares_memory:
        # With shared memory a dead worker ends the whole process, and no caller is left to read the board.
        return partial(_call_some, func, spec.star, iter(rows))
    # A range makes its numbers one by one more slowly than all at once.
    rows = list(rows) if isinstance(rows, range) else rows
    return partial(_call_some_on_board, func, spec.star, rows, task.most, status_board.place(board, offset))


# All that is done for each item is in the loops of these two: they are what a map of many quick items costs.


def _call_some(
    func: Callable[..., Any],
    star: bool,
    rows: Iterator[Any],
    values: list[Any],
    watch: _Watch,
) -> None:
    clock = time.monotonic
    for row in rows:
        values.append(func(*row) if star else func(row))
        if clock() < watch.until:
            continue
        if not watch.look():
            break
        if watch.is_quick:
            for row in rows:  # noqa: PLW2901 - the next ones
                values.append(func(*row) if star else func(row))
                if watch.rung is not None:
                    break
            if not watch.look():
                break


def _call_some_on_board(
    func: Callable[..., Any],
    star: bool,
    rows: Any,
    most: int,
    place: memoryview,
    values: list[Any],
    watch: _Watch,
) -> None:
    clock, positions = time.monotonic, iter(range(len(values), most))
    for position in positions:
        place[0] = position
        row = rows[position]
        values.append(func(*row) if star else func(row))
        if clock() < watch.until:
            continue
        if not watch.look():
            break
        if watch.is_quick:
            for position in positions:  # noqa: PLW2901 - the next ones
                place[0] = position
                row = rows[position]
                values.append(func(*row) if star else func(row))
                if watch.rung is not None:
                    break
            if not watch.look():
                break
