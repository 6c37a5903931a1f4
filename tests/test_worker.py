"""What a worker does with one chunk, on a clock that the test moves."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import pytest

from anymap._config.scope import Inherited
from anymap._host.status_board import Board
from anymap._worker import items
from anymap._worker.protocol import MapSpec
from anymap._worker.task import Task

if TYPE_CHECKING:
    from collections.abc import Callable

SECOND_OF_WORK = 1.0
QUICK = 2e-7
"""Seconds of an item for which nobody looks at the clock."""


class Clock:
    """Stands still but for what the items take."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.now = 100.0
        self.read = 0
        """So often was it looked at."""
        monkeypatch.setattr(items.time, "monotonic", self._read)

    def _read(self) -> float:
        self.read += 1
        return self.now

    def take(self, seconds: float) -> float:
        self.now += seconds
        return seconds


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> Clock:
    return Clock(monkeypatch)


def run(func: Callable[..., Any], rows: Any, board: Board, **how: Any) -> Any:
    """Run one chunk as a thread would, or as a process if it does not share memory."""
    how = {"budget": None, "timeout": None, "shares_memory": True, "may_fail": None, "star": False} | how
    spec = MapSpec(
        map_id="",
        function=func,
        star=how["star"],
        board=board.buffer,
        channel=None,
        timeout=how["timeout"],
        spool=None,
        parent=0,
        shares_memory=how["shares_memory"],
        inherited=Inherited(1, "serial", None, 1, {}),
    )
    task = Task(spec, rows, len(rows), board.take(), how["budget"], {}, may_fail=how["may_fail"])
    return items.run_rows(task, func, rows, board.buffer, task.slot)


memory = pytest.mark.parametrize("shares_memory", [True, False], ids=["memory", "bytes"])


@memory
def test_a_chunk_over_its_time_gives_back_what_it_has_not_begun(clock: Clock, shares_memory: bool) -> None:
    durations = [0.0] * 5 + [SECOND_OF_WORK] * 3 + [0.0] * 5
    ran = run(clock.take, durations, Board(None), budget=1.5, shares_memory=shares_memory)
    assert ran.values == durations[:7]
    assert ran.done == 7


@memory
def test_a_chunk_ends_with_an_item_that_the_map_may_have_given_up(clock: Clock, shares_memory: bool) -> None:
    durations = [0.0, SECOND_OF_WORK, 2.0 * SECOND_OF_WORK, 0.0]
    ran = run(clock.take, durations, Board(None), timeout=1.5, shares_memory=shares_memory)
    assert ran.values == durations[:3]


@memory
def test_a_chunk_that_begins_late_begins(monkeypatch: pytest.MonkeyPatch, shares_memory: bool) -> None:
    now = iter(range(100, 1000))
    monkeypatch.setattr(items.time, "monotonic", lambda: float(next(now)))
    assert run(abs, [-1, -2], Board(None), timeout=0.5, shares_memory=shares_memory).done == 1


@memory
def test_a_map_that_has_ended_begins_no_further_item(clock: Clock, shares_memory: bool) -> None:
    board = Board(None)

    def cancel_at_three(x: int) -> int:
        clock.take(0.001)
        if x == 3:
            board.cancel()
        return x

    assert run(cancel_at_three, range(10), board, shares_memory=shares_memory).values == [0, 1, 2, 3]


@memory
@pytest.mark.parametrize("timeout", [None, 9.0])
def test_items_that_fail_use_up_the_time_of_their_chunk_too(
    clock: Clock, shares_memory: bool, timeout: float | None
) -> None:
    def fail(seconds: float) -> None:
        clock.take(seconds)
        raise ValueError

    durations = [0.0] * 3 + [SECOND_OF_WORK] * 3
    ran = run(fail, durations, Board(None), budget=1.5, shares_memory=shares_memory, timeout=timeout)
    assert ran.done == 5
    assert [seconds for _, _, seconds in ran.failures] == durations[:5]


@memory
def test_a_map_that_has_ended_begins_no_item_after_one_that_fails(clock: Clock, shares_memory: bool) -> None:
    board = Board(None)

    def cancel_and_fail_at_two(x: int) -> int:
        clock.take(1e-6)
        if x == 2:
            board.cancel()
            raise ValueError
        return x

    assert run(cancel_and_fail_at_two, range(10), board, shares_memory=shares_memory).done == 3


@memory
def test_an_item_that_takes_long_to_fail_is_the_slowest(clock: Clock, shares_memory: bool) -> None:
    def fail_if_long(seconds: float) -> None:
        clock.take(seconds)
        if seconds == SECOND_OF_WORK:
            raise ValueError

    rows = [1e-5] * 5 + [SECOND_OF_WORK]
    ran = run(fail_if_long, rows, Board(None), shares_memory=shares_memory)
    assert ran.slowest == 5
    assert ran.failures[0][2] == pytest.approx(SECOND_OF_WORK, rel=1e-3)


@memory
@pytest.mark.parametrize("timeout", [None, 9.0])
def test_the_slowest_item_is_found_among_quick_ones(clock: Clock, shares_memory: bool, timeout: float | None) -> None:
    durations = [1e-6] * 40 + [SECOND_OF_WORK] + [1e-6] * 40
    ran = run(clock.take, durations, Board(None), shares_memory=shares_memory, timeout=timeout)
    assert ran.slowest == 40
    assert SECOND_OF_WORK <= ran.longest < 1.01 * SECOND_OF_WORK


@memory
def test_quick_items_are_not_taken_for_long_ones(clock: Clock, shares_memory: bool) -> None:
    ran = run(clock.take, [1e-6] * 1000, Board(None), shares_memory=shares_memory)
    assert ran.longest == pytest.approx(1e-6)


@memory
def test_each_item_that_fails_is_known_by_its_place(clock: Clock, shares_memory: bool) -> None:
    def fail_at_every_third(x: int, y: int) -> int:
        if x % 3 == 0:
            raise ValueError(x)
        return x + y

    rows = [(x, 1) for x in range(10)]
    ran = run(fail_at_every_third, rows, Board(None), shares_memory=shares_memory, star=True)
    assert [(position, exc.args) for position, exc, _ in ran.failures] == [(x, (x,)) for x in (0, 3, 6, 9)]
    assert ran.values == [None, 2, 3, None, 5, 6, None, 8, 9, None]


@memory
def test_a_chunk_in_which_one_more_row_fails_than_may_ends_there(clock: Clock, shares_memory: bool) -> None:
    ran = run(lambda x: 1 / x, [0, 1, 0, 2, 0, 4], Board(None), shares_memory=shares_memory, may_fail=1)
    assert ran.done == 3
    assert [position for position, _, _ in ran.failures] == [0, 2]


@memory
def test_where_errors_end_the_map_nothing_comes_after_the_first(clock: Clock, shares_memory: bool) -> None:
    rows = [1, 2, 0, 4]
    ran = run(lambda x: 1 / x, rows, Board(None), shares_memory=shares_memory, may_fail=0)
    assert ran.done == 3
    assert [position for position, _, _ in ran.failures] == [2]


def test_the_board_says_at_which_item_a_process_is_before_it_begins(clock: Clock) -> None:
    board = Board(None)
    seen: list[int] = []

    def look(_: int) -> float:
        seen.append(board.read(0).position)
        return clock.take(1e-6)

    run(look, [7] * 5, board, shares_memory=False)
    assert seen == [0, 1, 2, 3, 4]
    assert (board.read(0).position > 5, board.read(0).ended(5)) == (True, 5)


@memory
def test_with_a_timeout_the_board_says_which_item_runs_and_since_when(clock: Clock, shares_memory: bool) -> None:
    board = Board(None)
    seen: list[tuple[int, float]] = []

    def look(seconds: float) -> None:
        mark = board.read(0)
        seen.append((mark.position, mark.began))
        clock.take(seconds)

    # Clocks tick: an item may take no time at all.
    run(look, [0.0, 0.5, 0.0, 0.0, 2.0, 1.0], board, timeout=60.0, shares_memory=shares_memory)
    assert seen == [(0, 100.0), (1, 100.0), (2, 100.5), (3, 100.5), (4, 100.5), (5, 102.5)]


# --- items so quick that it would cost as much again to look at the clock after each ----------------------------------


class Bell:
    """Rings when the test says so."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.heard_by: list[items._Watch] = []
        self.left = 0
        monkeypatch.setattr(items, "_ticker", lambda: self)

    def enter(self, watch: items._Watch) -> None:
        self.heard_by.append(watch)

    def leave(self, watch: items._Watch) -> None:
        self.heard_by.remove(watch)
        self.left += 1

    def ring(self) -> None:
        for watch in self.heard_by:
            watch.hear()


@pytest.fixture
def ticker(monkeypatch: pytest.MonkeyPatch) -> Bell:
    return Bell(monkeypatch)


def works(clock: Clock, ticker: Bell, rings_after: float) -> Callable[[float], float]:
    """Return a function that takes as long as it is told; the ticker ticks while it does, once so many seconds have gone by."""

    def work(seconds: float) -> float:
        rings_at, ends_at = 100.0 + rings_after, clock.now + seconds
        if clock.now <= rings_at < ends_at:
            clock.now = rings_at
            ticker.ring()
        clock.now = ends_at
        return seconds

    return work


@memory
def test_no_clock_is_looked_at_between_quick_items(clock: Clock, ticker: Bell, shares_memory: bool) -> None:
    ran = run(clock.take, [QUICK] * 10_000, Board(None), shares_memory=shares_memory)
    assert ran.done == 10_000
    assert clock.read < 10_000 / 10
    assert (ticker.left, ticker.heard_by) == (1, [])


@memory
def test_for_a_few_quick_items_nobody_rings_a_bell(clock: Clock, ticker: Bell, shares_memory: bool) -> None:
    assert run(clock.take, [QUICK] * 1000, Board(None), shares_memory=shares_memory).done == 1000
    assert not ticker.left


@memory
def test_with_a_time_limit_each_quick_item_has_its_own_beginning(
    clock: Clock, ticker: Bell, shares_memory: bool
) -> None:
    run(clock.take, [QUICK] * 10_000, Board(None), timeout=9.0, shares_memory=shares_memory)
    assert clock.read > 10_000
    assert not ticker.left


@memory
def test_where_no_thread_can_be_started_quick_items_are_run_by_the_clock(
    clock: Clock, ticker: Bell, shares_memory: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(_: object) -> None:
        raise RuntimeError("can't start new thread")

    monkeypatch.setattr(ticker, "enter", fail)
    assert run(clock.take, [QUICK] * 10_000, Board(None), shares_memory=shares_memory).done == 10_000
    assert clock.read > 10_000


@memory
def test_when_the_bell_rings_a_chunk_that_is_over_its_time_ends(
    clock: Clock, ticker: Bell, shares_memory: bool
) -> None:
    work = works(clock, ticker, rings_after=0.001)
    ran = run(work, [QUICK] * 10_000, Board(None), budget=0.0005, shares_memory=shares_memory)
    assert ran.done == pytest.approx(0.001 / QUICK, abs=2)
    assert not ticker.heard_by


@memory
def test_when_the_bell_rings_a_map_that_has_ended_begins_no_further_item(
    clock: Clock, ticker: Bell, shares_memory: bool
) -> None:
    board, begun = Board(None), 0

    def cancel_at_4000(seconds: float) -> None:
        nonlocal begun
        begun += 1
        clock.take(seconds)
        if begun == 4000:
            board.cancel()
            ticker.ring()

    assert run(cancel_at_4000, [QUICK] * 10_000, board, shares_memory=shares_memory).done == 4000


@memory
def test_one_item_that_takes_long_among_quick_ones_is_the_slowest(
    clock: Clock, ticker: Bell, shares_memory: bool
) -> None:
    durations = [QUICK] * 5000 + [SECOND_OF_WORK] + [QUICK] * 5000
    work = works(clock, ticker, rings_after=5000 * QUICK + 0.01)
    ran = run(work, durations, Board(None), shares_memory=shares_memory)
    assert ran.values == durations
    assert ran.slowest == 5000
    assert ran.longest == pytest.approx(SECOND_OF_WORK, rel=0.02)


@memory
def test_an_item_that_takes_long_after_quick_ones_is_the_slowest_and_the_last_that_is_not_timed(
    clock: Clock, ticker: Bell, shares_memory: bool
) -> None:
    durations = [QUICK] * 5000 + [SECOND_OF_WORK] * 4 + [QUICK] * 5000
    work = works(clock, ticker, rings_after=5000 * QUICK + 0.01)
    ran = run(work, durations, Board(None), shares_memory=shares_memory, budget=2.5)
    assert ran.done == 5003
    assert ran.slowest in {5000, 5001, 5002}
    assert ran.longest == pytest.approx(SECOND_OF_WORK, rel=0.02)


@memory
def test_quick_items_that_fail_are_known_one_by_one(clock: Clock, ticker: Bell, shares_memory: bool) -> None:
    rows = list(range(10_000))
    bad = {7777, 7778, 7790, 9999}

    def fail_if_bad(x: int) -> int:
        clock.take(QUICK)
        if x in bad:
            raise ValueError(x)
        return x

    ran = run(fail_if_bad, rows, Board(None), shares_memory=shares_memory)
    assert [position for position, _, _ in ran.failures] == sorted(bad)
    assert [seconds for _, _, seconds in ran.failures] == pytest.approx([QUICK] * 4)
    assert ran.values == [None if x in bad else x for x in rows]
    assert (ticker.left, ticker.heard_by) == (1, [])


def test_the_bell_rings() -> None:
    board = Board(None)

    def cancel_in_time(x: int) -> None:
        if x == 20_000:
            board.cancel()

    rows = range(30_000_000)  # some seconds
    assert 20_000 < run(cancel_in_time, rows, board).done < len(rows)
