"""A ``Pool``: what code for ``multiprocessing.Pool`` expects, on every backend."""

from __future__ import annotations

import itertools
import multiprocessing
import os
import pickle
import signal
import threading
from concurrent.futures import CancelledError
from typing import TYPE_CHECKING, Any

import pytest

import anymap
from anymap import Pool, WorkerLost, pmap
from anymap.testing import Gate

if TYPE_CHECKING:
    from collections.abc import Iterator

    from anymap.backends import Backend

LONG = 30.0


def invert(x: float) -> float:
    return 1 / x


def double(x: int) -> int:
    return 2 * x


# --- what it does -------------------------------------------------------------------------------------------------------


@pytest.mark.full
def test_each_method_returns_what_that_of_multiprocessing_does(backend: Backend) -> None:
    offset = 10
    with Pool(2, backend=backend) as pool:
        assert pool.map(lambda x: x + offset, range(5)) == [10, 11, 12, 13, 14]
        assert pool.starmap(pow, zip([2, 3], [4, 5], strict=True)) == [16, 243]
        assert pool.starmap(pow, []) == []
        assert list(pool.imap(double, iter(range(5)))) == [0, 2, 4, 6, 8]
        assert sorted(pool.imap_unordered(double, range(5), 2)) == [0, 2, 4, 6, 8]
        assert pool.apply(pow, (2, 5), {"mod": 7}) == 4
        assert pool.apply_async(pow, (2,), {"exp": 5}).get(LONG) == 32
        assert pool.map_async(double, range(50)).get(LONG) == [2 * x for x in range(50)]
        assert pool.starmap_async(pow, [(2, 3), (3, 2)], chunksize=1).get(LONG) == [8, 9]
        assert pool.map_async(double, []).get(LONG) == []


@pytest.mark.full
def test_errors_rise_where_multiprocessing_raises_them(backend: Backend) -> None:
    with Pool(2, backend=backend) as pool:
        with pytest.raises(ZeroDivisionError, match="zero") as caught:
            pool.map(invert, [1, 0, 2])
        assert "item 1 (0)" in "".join(caught.value.__notes__)
        result = pool.apply_async(invert, [0])
        with pytest.raises(ZeroDivisionError):
            result.get(LONG)
        results = pool.map_async(invert, [1, 0, 2])
        with pytest.raises(ZeroDivisionError):
            results.get(LONG)
        assert not result.successful()
        assert not results.successful()


def test_an_item_that_failed_raises_in_its_turn_and_the_others_go_on() -> None:
    with Pool(2, backend="threads") as pool:
        results = pool.imap(invert, [1, 0, 2])
        assert next(results) == 1
        with pytest.raises(ZeroDivisionError):
            next(results)
        assert list(results) == [0.5]


def test_an_input_that_fails_raises_after_what_it_gave() -> None:
    def two() -> Iterator[int]:
        yield from (1, 2)
        raise OSError("no more")

    with Pool(2, backend="threads") as pool:
        results = pool.imap(double, two())
        assert [next(results), next(results)] == [2, 4]
        with pytest.raises(OSError, match="no more"):
            next(results)
        assert list(results) == []
        with pytest.raises(OSError, match="no more"):
            pool.map_async(double, two())


def test_no_more_of_an_endless_input_is_read_than_there_is_room_for() -> None:
    read: list[int] = []

    def numbers() -> Iterator[int]:
        for number in itertools.count():
            read.append(number)
            yield number

    with Pool(2, backend="threads") as pool:
        assert list(itertools.islice(pool.imap(double, numbers(), chunksize=1), 3)) == [0, 2, 4]
        assert len(read) <= 3 + 4


@pytest.mark.processes
@pytest.mark.full
def test_a_worker_that_dies_costs_its_item() -> None:
    def kill(x: int) -> int:
        if x == 2:
            os.kill(os.getpid(), signal.SIGKILL)
        return x

    with Pool(2, backend="processes") as pool:
        with pytest.raises(WorkerLost, match="SIGKILL"):
            pool.map(kill, range(4))
        with pytest.raises(WorkerLost, match="SIGKILL"):
            pool.apply(kill, [2])
        with pytest.raises(WorkerLost, match="SIGKILL"):
            pool.map_async(kill, range(4)).get(LONG)
        assert pool.map(kill, [0, 1]) == [0, 1]


def test_a_result_tells_whether_it_is_there() -> None:
    go_on = threading.Event()
    with Pool(1, backend="threads") as pool:
        result = pool.apply_async(go_on.wait)
        assert not result.ready()
        with pytest.raises(ValueError, match="not ended"):
            result.successful()
        with pytest.raises(multiprocessing.TimeoutError):
            result.get(timeout=0.01)
        result.wait(0.01)
        go_on.set()
        result.wait()
        assert result.ready()
        assert result.successful()
        assert result.get() is True


def test_one_callback_is_called_with_the_result_or_the_error() -> None:
    told: list[Any] = []
    with Pool(2, backend="threads") as pool:
        pool.apply_async(double, [1], {}, told.append, told.append)
        pool.apply_async(double, ["a", "b"], error_callback=lambda exc: told.append(type(exc)), callback=told.append)
        pool.map_async(double, [1, 2], callback=told.append)
        pool.starmap_async(pow, [(2, 2)], 1, told.append)
        pool.map_async(invert, [0], callback=told.append)
        pool.close()
        pool.join()
    assert sorted(map(str, told)) == sorted(map(str, [2, TypeError, [2, 4], [4]]))


def test_a_chunk_is_as_large_as_was_asked_for() -> None:
    gate = Gate(workers=2, pilot=lambda gate: gate.release())
    sizes: list[int] = []
    pool = Pool(2, backend=Gate(workers=2, pilot=lambda gate: (sizes.append(len(gate.held[0])), gate.release())))
    assert pool.map(double, range(10), 4) == [2 * x for x in range(10)]
    assert sorted(sizes) == [2, 4, 4]
    assert Pool(2, backend=gate).map_async(double, range(10), chunksize=3).get(LONG) == [2 * x for x in range(10)]
    assert gate.submitted == 4
    for wrong in (0, -1):
        with pytest.raises(ValueError, match="chunksize"):
            pool.map_async(double, range(10), wrong)
        with pytest.raises(ValueError, match="chunksize"):
            pool.map(double, range(10), wrong)


# --- its end ------------------------------------------------------------------------------------------------------------


def test_close_and_join_finish_what_nobody_has_asked_for() -> None:
    done: list[int] = []
    pool = Pool(2, backend="threads")
    pool.imap_unordered(done.append, range(100))
    results = pool.imap(double, [1, 2])
    pool.apply_async(done.append, [100])
    pool.map_async(done.append, range(101, 200))
    with pytest.raises(ValueError, match="still running"):
        pool.join()
    pool.close()
    pool.join()
    assert sorted(done) == list(range(200))
    assert list(results) == [2, 4]


@pytest.mark.parametrize("end", [Pool.close, Pool.terminate])
def test_one_that_has_ended_takes_no_more(end: Any) -> None:
    pool = Pool(2, backend="threads")
    end(pool)
    end(pool)
    pool.join()
    for call in (pool.map, pool.starmap, pool.imap, pool.imap_unordered, pool.map_async, pool.starmap_async):
        with pytest.raises(ValueError, match="the pool is closed"):
            call(double, [1])
    with pytest.raises(ValueError, match="the pool is closed"):
        pool.apply(double, [1])
    with pytest.raises(ValueError, match="the pool is closed"), pool:
        pass


def test_the_end_of_the_block_ends_what_still_runs() -> None:
    gate = Gate(workers=1)
    with Pool(1, backend=gate) as pool:
        call = pool.apply_async(abs, [1])
        calls = pool.map_async(abs, [1, 2, 3], 1)
        begun, not_begun = pool.imap(abs, range(5), 1), pool.imap(abs, range(5), 1)
        gate.expect(2)
        taken = threading.Thread(target=take_and_note, args=(begun, outcome := []))
        taken.start()
        gate.expect(3)
    for result in (call, calls):
        with pytest.raises(CancelledError):
            result.get(LONG)
    taken.join(LONG)
    with pytest.raises(CancelledError):
        next(not_begun)
    assert outcome == [CancelledError]
    assert list(not_begun) == []
    pool.join()
    assert all(gate.closed)


def take_and_note(results: Iterator[Any], outcome: list[type]) -> None:
    try:
        next(results)
    except Exception as exc:  # noqa: BLE001 - any of them is the outcome
        outcome.append(type(exc))


def test_a_map_of_another_thread_ends_with_its_pool() -> None:
    gate = Gate(workers=1)
    pool = Pool(1, backend=gate)
    outcome: list[type] = []
    mapping = threading.Thread(target=lambda: take_and_note(map(pool.map, [abs], [[1, 2]]), outcome))
    mapping.start()
    gate.expect()
    pool.terminate()
    mapping.join(LONG)
    assert outcome == [CancelledError]


# --- where it is used ---------------------------------------------------------------------------------------------------


class Model:
    """Has a pool, as samplers have, and methods that go to workers with all that the object has."""

    def __init__(self, pool: Pool) -> None:
        self.pool = pool

    def inner(self, x: int) -> int:
        return sum(self.pool.map(double, [x, x]))

    def outer(self, xs: list[int]) -> list[int]:
        return self.pool.map(self.inner, xs)


@pytest.mark.full
def test_an_object_that_has_one_can_go_to_its_workers(backend: Backend) -> None:
    with Pool(2, backend=backend) as pool:
        assert Model(pool).outer([1, 2]) == [4, 8]


def test_a_copy_is_a_pool_of_its_own() -> None:
    with Pool(2, backend="threads") as pool:
        copy = pickle.loads(pickle.dumps(pool))
    assert copy.map(double, [1]) == [2]


def test_who_runs_the_program_says_where_it_runs(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("ANYMAP_BACKEND", "threads")
    with Pool() as pool:
        assert set(pool.map(lambda _: os.getpid(), range(3))) == {os.getpid()}
    with anymap.using(retries=1), Pool() as pool:
        calls: list[int] = []
        with pytest.raises(ZeroDivisionError):
            pool.map(lambda x: invert(calls.append(x) or 0), [1])  # type: ignore[func-returns-value]
        assert calls == [1, 1]


def test_a_wrong_backend_is_refused_at_once() -> None:
    with pytest.raises(anymap.UnknownBackend):
        Pool(backend="thread")
    with pytest.raises(anymap.ConfigError):
        Pool("many")


def test_its_results_in_a_bar_are_what_pmap_gives() -> None:
    with Pool(2, backend="threads") as pool:
        assert pool.map(double, range(1000)) == pmap(double, range(1000), backend="threads")
