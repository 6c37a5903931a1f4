"""The ledger: whatever happens to chunks, every row gets exactly one outcome."""

from __future__ import annotations

from collections import Counter
from typing import TYPE_CHECKING

from hypothesis import given
from hypothesis import strategies as st

from anymap._engine.ledger import Chunk, Ledger

if TYPE_CHECKING:
    from collections.abc import Callable

NEVER = 1e9


def no_retry(position: int, attempts: int) -> float | None:
    return None


def staged(count: int) -> Ledger:
    ledger = Ledger()
    ledger.stage(list(range(count)))
    ledger.exhausted = True
    return ledger


def take(ledger: Ledger, size: int) -> Chunk:
    chunk = ledger.next(size, 0.0, partial=True)
    assert chunk is not None
    return chunk


def test_what_is_all_there_is_cut_where_it_lies() -> None:
    ledger = Ledger()
    ledger.stage_all(range(0, 10, 2))
    assert (ledger.pulled, ledger.staged, ledger.waiting) == (5, 5, True)
    first, second = ledger.next(3, 0.0, partial=False), ledger.next(3, 0.0, partial=True)
    assert first is not None
    assert second is not None
    assert (first.rows, second.rows, second.start) == (range(0, 6, 2), range(6, 10, 2), 3)
    assert not ledger.waiting


def test_rows_fly_in_the_order_they_were_staged() -> None:
    ledger = staged(5)
    first, second = take(ledger, 3), take(ledger, 3)
    assert (first.start, first.rows) == (0, [0, 1, 2])
    assert (second.start, second.rows) == (3, [3, 4])
    assert ledger.next(3, 0.0, partial=True) is None


def test_a_chunk_waits_to_be_full_unless_part_of_it_will_do() -> None:
    ledger = staged(2)
    assert ledger.next(3, 0.0, partial=False) is None
    assert take(ledger, 3).rows == [0, 1]


def test_rows_that_were_not_begun_fly_again_before_new_ones() -> None:
    ledger = staged(6)
    chunk = take(ledger, 4)
    assert ledger.complete(chunk, 1, [], no_retry, 0.0) == []
    again = take(ledger, 4)
    assert (again.start, again.rows) == (1, [1, 2, 3])
    assert ledger.counts.done == 1


def test_rows_that_were_not_begun_fly_in_chunks_of_the_size_that_is_right_now() -> None:
    ledger = staged(10)
    ledger.complete(take(ledger, 8), 1, [], no_retry, 0.0)
    assert [take(ledger, 3).rows for _ in range(4)] == [[1, 2, 3], [4, 5, 6], [7], [8, 9]]


def test_rows_that_were_not_begun_fly_in_the_order_of_the_input() -> None:
    ledger = staged(9)
    dispatcher = [take(ledger, 3) for _ in range(3)]
    for flight in (dispatcher[1], dispatcher[2], dispatcher[0]):
        ledger.complete(flight, 1, [], no_retry, 0.0)
    assert [take(ledger, 2).rows for _ in range(3)] == [[1, 2], [4, 5], [7, 8]]


def test_a_failed_row_is_tried_again_when_its_time_has_come() -> None:
    ledger = staged(2)
    chunk = take(ledger, 2)
    assert ledger.complete(chunk, 2, [1], lambda _, attempts: 5.0 if attempts == 1 else None, now=10.0) == [1]
    assert ledger.next(1, 14.9, partial=True) is None
    assert ledger.next_ready() == 15.0
    retry = ledger.next(1, 15.0, partial=True)
    assert retry is not None
    assert (retry.start, retry.rows) == (1, [1])
    assert ledger.complete(retry, 1, [0], lambda _, attempts: 5.0 if attempts == 1 else None, now=16.0) == []
    assert (ledger.counts.done, ledger.counts.failed, ledger.counts.retried) == (2, 1, 1)


def test_the_row_that_ran_in_a_dead_worker_is_to_blame_and_no_other() -> None:
    ledger = staged(5)
    chunk = take(ledger, 5)
    assert ledger.lose(chunk, 2, certain=True) == 2
    assert ledger.fail(chunk, 2, no_retry, 0.0)
    rest = [take(ledger, 5), take(ledger, 5)]
    assert sorted(chunk.rows for chunk in rest) == [[0, 1], [3, 4]]
    assert ledger.attempts == {2: 1}


def test_nobody_is_blamed_for_a_chunk_whose_worker_did_not_die() -> None:
    ledger = staged(3)
    assert ledger.lose(take(ledger, 3), -1, certain=False) is None
    assert take(ledger, 3).rows == [0, 1, 2]
    assert ledger.counts.failed == 0


def test_a_suspect_flies_alone() -> None:
    ledger = staged(6)
    first, second = take(ledger, 3), take(ledger, 3)
    assert ledger.lose(first, 1, certain=False) is None
    assert ledger.next(3, 0.0, partial=True) is None, "the suspect waits until nothing else flies"
    ledger.complete(second, 3, [], no_retry, 0.0)
    suspect = take(ledger, 3)
    assert suspect.rows == [1]
    assert ledger.next(3, 0.0, partial=True) is None, "and nothing flies beside it"
    assert ledger.lose(suspect, 0, certain=False) == 0, "what dies alone is to blame"


def test_a_suspect_of_whom_nobody_knows_is_blamed_when_it_has_died_alone_twice() -> None:
    ledger = staged(2)
    assert ledger.lose(take(ledger, 2), None, certain=False) is None
    first = take(ledger, 1)
    assert ledger.lose(first, None, certain=False) is None, "once may be chance"
    other = take(ledger, 1)
    assert other.rows == [1], "another one meanwhile: what struck the first may still be there"
    ledger.complete(other, 1, [], no_retry, 0.0)
    again = take(ledger, 1)
    assert again.rows == [0]
    assert ledger.lose(again, None, certain=False) == 0


def deaths_until_the_blame(ledger: Ledger, deadly: Callable[[int, int | None], bool]) -> tuple[list[int], int]:
    """Fly suspects one by one; ``deadly`` tells by the row and the one before it whether a worker dies.

    Return who is blamed, and how many have died.
    """
    blamed, deaths, before = [], 0, None
    while ledger.waiting:
        suspect = take(ledger, 1)
        (row,) = suspect.rows
        if not deadly(row, before):
            ledger.complete(suspect, 1, [], no_retry, 0.0)
        else:
            deaths += 1
            if ledger.lose(suspect, None, certain=False) is not None:
                ledger.fail(suspect, 0, no_retry, 0.0)
                blamed.append(row)
        before = row
    return blamed, deaths


def test_a_suspect_is_not_blamed_for_what_struck_the_one_before_it() -> None:
    ledger = staged(3)
    assert ledger.lose(take(ledger, 3), None, certain=False) is None
    # Each time that row 0 has killed its worker, the engine starts it again, by itself, just where row 1 runs.
    assert deaths_until_the_blame(ledger, lambda row, before: row == 0 or (row, before) == (1, 0)) == ([0], 4)


def test_two_that_both_kill_are_both_blamed() -> None:
    ledger = staged(3)
    assert ledger.lose(take(ledger, 3), None, certain=False) is None
    blamed, deaths = deaths_until_the_blame(ledger, lambda row, _: row != 2)
    assert sorted(blamed) == [0, 1]
    assert deaths <= 8


def test_where_nobody_knows_who_ran_all_are_suspects() -> None:
    ledger = staged(3)
    assert ledger.lose(take(ledger, 3), None, certain=False) is None
    seen = []
    for _ in range(3):
        suspect = take(ledger, 3)
        seen += suspect.rows
        ledger.complete(suspect, 1, [], no_retry, 0.0)
    assert seen == [0, 1, 2]


def test_of_many_suspects_three_more_deaths_find_the_one() -> None:
    ledger = staged(1000)
    guilty, deaths = 777, 0
    chunk = take(ledger, 1000)
    while True:
        if guilty in chunk.rows:
            deaths += 1
            blamed = ledger.lose(chunk, None, certain=False)
            if blamed is not None:
                break
        else:
            ledger.complete(chunk, len(chunk), [], no_retry, 0.0)
        chunk = take(ledger, 1000)
    assert chunk.rows[blamed] == guilty
    assert deaths <= 4


def test_a_chunk_that_is_lost_again_and_again_without_a_culprit_comes_to_an_end() -> None:
    ledger = staged(2)
    outcomes = 0
    for _ in range(100):
        chunk = ledger.next(2, 0.0, partial=True)
        if chunk is None:
            break
        blamed = ledger.lose(chunk, -1, certain=False)
        if blamed is not None:
            outcomes += ledger.fail(chunk, blamed, no_retry, 0.0)
    assert outcomes == 2
    assert ledger.counts.done == 2


def test_rows_that_cannot_be_sent_fail_and_the_others_fly() -> None:
    ledger = staged(5)
    ledger.refuse(take(ledger, 5), [1, 3])
    assert sorted(take(ledger, 5).rows for _ in range(3)) == [[0], [2], [4]]
    assert (ledger.counts.done, ledger.counts.failed) == (2, 2)


@given(count=st.integers(0, 40), data=st.data())
def test_whatever_happens_every_row_gets_one_outcome(count: int, data: st.DataObject) -> None:
    ledger, flying, outcomes, now = staged(count), [], Counter[int](), 0.0
    tries = {"left": 60}

    def verdict(position: int, attempts: int) -> float | None:
        return float(data.draw(st.integers(0, 3))) if attempts < 3 else None

    def event() -> str:
        tries["left"] -= 1
        return str(data.draw(st.sampled_from(["complete", "lose", "refuse"]))) if tries["left"] > 0 else "complete"

    while sum(outcomes.values()) < count:
        now += 1.0
        chunk = ledger.next(data.draw(st.integers(1, 7)), now, partial=True)
        if chunk is not None:
            flying.append(chunk)
            if data.draw(st.booleans()):
                continue
        if not flying:
            continue
        landing = flying.pop(data.draw(st.integers(0, len(flying) - 1)))
        size = len(landing)
        match event():
            case "complete":
                done = data.draw(st.integers(0 if tries["left"] > 0 else size, size))
                failed = data.draw(st.lists(st.integers(0, done - 1), unique=True)) if done else []
                again = ledger.complete(landing, done, failed, verdict, now)
                outcomes.update(landing.rows[position] for position in range(done) if position not in again)
            case "refuse":
                refused = data.draw(st.lists(st.integers(0, size - 1), unique=True))
                ledger.refuse(landing, refused)
                outcomes.update(landing.rows[position] for position in refused)
            case "lose":
                position = data.draw(st.none() | st.integers(-1, size))
                blamed = ledger.lose(landing, position, certain=data.draw(st.booleans()) and position is not None)
                if blamed is not None and ledger.fail(landing, blamed, verdict, now):
                    outcomes[landing.rows[blamed]] += 1
    assert outcomes == Counter(range(count))
    assert ledger.counts.done == count
    assert not flying
    assert ledger.next(1, NEVER, partial=True) is None
