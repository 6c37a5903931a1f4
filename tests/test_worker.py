"""What a worker does with one chunk, on a clock that the test moves."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import pytest

from anymap import _worker
from anymap._board import Board
from anymap._config.scope import Inherited

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
        monkeypatch.setattr(_worker.time, "monotonic", self._read)

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
    how = {"budget": None, "timeout": None, "shares_memory": True, "stop_on_error": False, "star": False} | how
    spec = _worker.MapSpec(
        map_id="",
        function=func,
        star=how["star"],
        stop_on_error=how["stop_on_error"],
        board=board.buffer,
        channel=None,
        timeout=how["timeout"],
        spool=None,
        parent=0,
        shares_memory=how["shares_memory"],
        inline=False,
        inherited=Inherited(1, "serial", None, 1, {}),
    )
    task = _worker.Task(spec, rows, len(rows), board.take(), how["budget"], {})
    return _worker._run_rows(task, func, rows, board.buffer, task.slot)


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
    monkeypatch.setattr(_worker.time, "monotonic", lambda: float(next(now)))
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
def test_where_errors_end_the_map_nothing_comes_after_the_first(clock: Clock, shares_memory: bool) -> None:
    rows = [1, 2, 0, 4]
    ran = run(lambda x: 1 / x, rows, Board(None), shares_memory=shares_memory, stop_on_error=True)
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
    assert board.read(0).position == 5


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


@memory
def test_the_clock_is_seldom_looked_at_between_quick_items(clock: Clock, shares_memory: bool) -> None:
    ran = run(clock.take, [QUICK] * 10_000, Board(None), shares_memory=shares_memory)
    assert ran.done == 10_000
    assert clock.read < 10_000 / 10


@memory
def test_with_a_time_limit_each_quick_item_has_its_own_beginning(clock: Clock, shares_memory: bool) -> None:
    run(clock.take, [QUICK] * 1000, Board(None), timeout=9.0, shares_memory=shares_memory)
    assert clock.read > 1000


@memory
def test_what_is_slow_after_quick_items_soon_ends_a_chunk_that_is_over_its_time(
    clock: Clock, shares_memory: bool
) -> None:
    durations = [QUICK] * 1000 + [SECOND_OF_WORK] * 100
    ran = run(clock.take, durations, Board(None), budget=0.5, shares_memory=shares_memory)
    assert ran.values == durations[: ran.done]
    assert 1000 < ran.done <= 1000 + _worker._STRIDE


@memory
def test_slow_items_among_quick_ones_are_looked_after_one_by_one(clock: Clock, shares_memory: bool) -> None:
    durations = [QUICK] * 1000 + [SECOND_OF_WORK] * 100
    board = Board(None)

    def cancel_late(seconds: float) -> None:
        if clock.now > 150:  # fifty slow ones later
            board.cancel()
        clock.take(seconds)

    ran = run(cancel_late, durations, board, shares_memory=shares_memory)
    assert ran.done == 1000 + 51


@memory
def test_quick_items_that_fail_are_known_one_by_one(clock: Clock, shares_memory: bool) -> None:
    rows = list(range(1000))
    bad = {777, 778, 790, 999}

    def fail_if_bad(x: int) -> int:
        clock.take(QUICK)
        if x in bad:
            raise ValueError(x)
        return x

    ran = run(fail_if_bad, rows, Board(None), shares_memory=shares_memory)
    assert [position for position, _, _ in ran.failures] == sorted(bad)
    assert ran.values == [None if x in bad else x for x in rows]
