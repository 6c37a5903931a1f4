"""``Pool`` and ``Executor`` in the place of those that libraries and programs already use."""

from __future__ import annotations

import inspect
import os
import threading
from concurrent.futures import CancelledError
from typing import TYPE_CHECKING, Any

import pytest

import anymap
from anymap import ConfigError, Executor, Pool, UnsupportedOption, pmap
from anymap._host import cpus
from anymap.backends import Dask, Processes, Serial
from anymap.testing import Gate

if TYPE_CHECKING:
    from collections.abc import Callable

    from anymap.backends import Backend
    from anymap.progress import Event

LONG = 30.0


def invert(x: float) -> float:
    return 1 / x


def add(x: int, y: int) -> int:
    return x + y


# --- the arguments --------------------------------------------------------------------------------------------------


def test_both_take_the_same_arguments_in_one_order() -> None:
    pool, executor = (list(inspect.signature(kind).parameters.values()) for kind in (Pool, Executor))
    assert [parameter.name for parameter in pool[:3]] == ["workers", "initializer", "initargs"]
    assert [parameter.name for parameter in executor[:3]] == ["workers", "initializer", "initargs"]
    assert {p.name: p.kind for p in pool}["backend"] is inspect.Parameter.KEYWORD_ONLY
    assert {p.name: p.kind for p in executor}["backend"] is inspect.Parameter.KEYWORD_ONLY


def test_the_number_of_workers_goes_by_the_names_of_the_standard_library_too() -> None:
    pool, executor = Pool(processes=3, backend="threads"), Executor(max_workers=3, backend="threads")
    assert (pool.workers, pool.size, pool._processes) == (3, 3, 3)
    assert (executor.workers, executor._max_workers) == (3, 3)
    assert Executor(4, backend="threads").workers == 4
    assert Pool(4, backend="threads").workers == 4
    assert Executor().workers == Pool().workers == cpus.available()


@pytest.mark.full
def test_workers_tells_how_many_run_at_once(backend: Backend) -> None:
    with Pool(2, backend=backend) as pool, Executor(2, backend=backend) as executor:
        expected = 1 if isinstance(backend, Serial) else 2
        assert (pool.workers, executor.workers) == (expected, expected)
        assert executor.submit(abs, -1).result(LONG) == 1
        assert executor.workers == expected


def test_two_names_of_one_argument_are_refused() -> None:
    with pytest.raises(ConfigError, match="workers and processes are two names of the same argument"):
        Pool(2, processes=2)
    with pytest.raises(ConfigError, match="workers and max_workers are two names of the same argument"):
        Executor(2, max_workers=2)


@pytest.mark.parametrize("make", [Pool, Executor])
def test_a_backend_in_the_place_of_another_argument_is_named(make: Callable[..., Any]) -> None:
    with pytest.raises(ConfigError, match=r"workers must be a number, not 'threads'; give a backend by keyword"):
        make("threads")
    with pytest.raises(ConfigError, match=r"give a backend by keyword: backend=Processes\(\)"):
        make(Processes())
    with pytest.raises(TypeError, match=r"initializer must be a function .*, not 'threads'; give a backend by keyword"):
        make(2, "threads")


# --- the initializer ------------------------------------------------------------------------------------------------


def set_up(*values: Any) -> None:
    os.environ["SET_UP_BY"] = repr(values)
    prepared.append(values)


prepared: list[Any] = []


def seen(x: int) -> tuple[int, str]:
    return x, os.environ["SET_UP_BY"]


@pytest.fixture
def _clean(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SET_UP_BY", "nothing")


@pytest.mark.full
@pytest.mark.usefixtures("_clean")
def test_the_initializer_has_run_before_any_item_on_every_backend(backend: Backend) -> None:
    expected = [(x, "('a', 1)") for x in range(8)]
    with Pool(2, set_up, ("a", 1), backend=backend) as pool:
        assert pool.map(seen, range(8), 1) == expected
        assert list(pool.imap(seen, range(8))) == expected
        assert pool.map_async(seen, range(8)).get(LONG) == expected
        assert pool.apply(seen, [3]) == expected[3]
    with Executor(2, set_up, ("b", 2), backend=backend) as executor:
        assert executor.submit(seen, 1).result(LONG) == (1, "('b', 2)")
        assert list(executor.map(seen, [1, 2])) == [(1, "('b', 2)"), (2, "('b', 2)")]


def test_a_worker_is_prepared_once_for_each_pool_and_again_where_another_pool_came_between() -> None:
    prepared.clear()
    with Pool(1, set_up, ("a",), backend="serial") as one, Pool(1, set_up, ("b",), backend="serial") as other:
        assert one.map(seen, range(3)) == [(x, "('a',)") for x in range(3)]
        assert other.map(seen, range(3)) == [(x, "('b',)") for x in range(3)]
        assert one.map(seen, range(3)) == [(x, "('a',)") for x in range(3)]
        assert one.map(seen, range(3)) == [(x, "('a',)") for x in range(3)]
    assert prepared == [("a",), ("b",), ("a",)]


@pytest.mark.processes
def test_what_an_initializer_raises_is_the_error_of_the_item_and_says_so() -> None:
    with Pool(1, invert, (0,), backend="processes") as pool:
        with pytest.raises(ZeroDivisionError) as caught:
            pool.map(abs, [-1])
        assert any("raised by the initializer" in note for note in caught.value.__notes__)


@pytest.mark.processes
def test_a_worker_ends_after_as_many_tasks_as_it_may_run() -> None:
    with Pool(1, maxtasksperchild=2, backend="processes") as pool:
        assert len(set(pool.map(lambda _: os.getpid(), range(4), 1))) == 2
    with Executor(1, max_tasks_per_child=1, backend="processes") as executor:
        assert executor.submit(os.getpid).result(LONG) != executor.submit(os.getpid).result(LONG)


def test_a_limit_that_a_backend_cannot_keep_is_refused() -> None:
    with pytest.raises(UnsupportedOption, match=r"'threads' does not replace workers.*'processes' can"):
        Pool(1, maxtasksperchild=2, backend="threads")
    with pytest.warns(UserWarning, match="'serial' has no workers to replace"):
        Executor(max_tasks_per_child=2, backend="serial")
    with pytest.raises(ConfigError, match="maxtasksperchild must be a whole number, 1 or more, not 0"):
        Pool(1, maxtasksperchild=0)


# --- Executor.map ---------------------------------------------------------------------------------------------------


@pytest.mark.full
def test_map_takes_several_iterables_and_keeps_the_order(backend: Backend) -> None:
    with Executor(2, backend=backend) as executor:
        assert list(executor.map(add, range(100), range(0, 1000, 10))) == [11 * x for x in range(100)]
        assert list(executor.map(abs, [])) == []
        results = executor.map(invert, [1, 0, 2])
        assert next(results) == 1
        with pytest.raises(ZeroDivisionError):
            next(results)
        assert list(results) == []


def test_map_sends_many_calls_together() -> None:
    sizes: list[int] = []
    gate = Gate(workers=2, pilot=lambda gate: (sizes.append(len(gate.held[0])), gate.release()))
    with Executor(backend=gate) as executor:
        assert list(executor.map(abs, range(10), chunksize=4)) == list(range(10))
        assert sizes == [4, 4, 2]
        assert list(executor.map(abs, range(2000))) == list(range(2000))
        assert len(sizes) < 500


def test_map_begins_before_its_results_are_asked_for_and_shutdown_waits_for_it() -> None:
    done: list[int] = []
    with Executor(2, backend="threads") as executor:
        executor.map(done.append, range(20))
    assert sorted(done) == list(range(20))


def test_map_gives_up_waiting_after_its_timeout() -> None:
    go = threading.Event()
    with Executor(1, backend="threads") as executor:
        with pytest.raises(TimeoutError):
            next(executor.map(lambda _: go.wait(LONG), [1], timeout=0.01))
        go.set()


def test_shutdown_can_leave_out_what_a_map_has_not_begun() -> None:
    gate = Gate(workers=1)
    executor = Executor(backend=gate)
    results = executor.map(abs, range(8), chunksize=1)
    gate.expect(2)
    executor.shutdown(wait=False, cancel_futures=True)
    while gate.closed == []:
        if gate.held:
            gate.release()
    got: list[int] = []
    with pytest.raises(CancelledError):
        got.extend(results)
    assert got == list(range(len(got)))
    assert 2 <= len(got) < 8


def test_a_map_that_is_left_ends_and_so_does_one_of_an_executor_that_is_terminated() -> None:
    gate = Gate(workers=1)
    executor = Executor(backend=gate)
    left, ended = executor.map(abs, range(8), chunksize=1), executor.map(abs, range(8))
    gate.expect(2)
    gate.release()
    assert next(left) == 0
    left.close()  # type: ignore[attr-defined]
    executor.terminate()
    with pytest.raises(CancelledError):
        next(ended)
    executor.shutdown()
    assert gate.closed == [True, True]


# --- the way in which calls run -------------------------------------------------------------------------------------


def test_an_executor_tries_failed_calls_again() -> None:
    calls = [0]

    def fail_once(x: int) -> int:
        calls[0] += 1
        return x // (calls[0] - 1)

    with Executor(1, backend="threads", retries=1) as executor:
        assert executor.submit(fail_once, 5).result(LONG) == 5
        calls[0] = 0
        assert list(executor.map(fail_once, [6])) == [6]


@pytest.mark.processes
def test_an_executor_ends_calls_that_take_too_long() -> None:
    with Executor(1, backend="processes", timeout=0.2) as executor:
        late = executor.submit(wait_for_ever)
        assert isinstance(late.exception(LONG), anymap.ItemTimeout)
        assert executor.submit(abs, -1).result(LONG) == 1


def wait_for_ever() -> None:
    threading.Event().wait()


def test_an_executor_shows_all_its_calls_in_one_bar() -> None:
    events: list[Event] = []

    def look(event: Event) -> None:
        events.append(event)

    look.shows_maps = True  # type: ignore[attr-defined]
    with Executor(2, backend="threads", progress=look, desc="calls") as executor:
        executor.submit(abs, -1).result(LONG)
        assert list(executor.map(abs, [-1, -2])) == [1, 2]
    started = [event for event in events if isinstance(event, anymap.progress.Started)]
    finished = [event for event in events if isinstance(event, anymap.progress.Finished)]
    assert [event.desc for event in started] == ["calls"]
    assert [event.done for event in finished] == [3]


# --- what schwimmbad's pools have, and what pathos's take --------------------------------------------------------------


@pytest.mark.full
def test_a_callback_gets_each_result_in_the_callers_thread(backend: Backend) -> None:
    got: list[tuple[int, threading.Thread]] = []
    with Pool(2, backend=backend) as pool:
        assert pool.is_master()
        pool.wait()
        results = pool.map(abs, range(5), callback=lambda x: got.append((x, threading.current_thread())))
    assert results == list(range(5))
    assert got == [(x, threading.current_thread()) for x in range(5)]


def test_a_second_iterable_is_named() -> None:
    with Pool(1, backend="threads") as pool:
        for method in (pool.map, pool.starmap, pool.imap, pool.imap_unordered, pool.map_async, pool.starmap_async):
            with pytest.raises(TypeError, match=r"take one iterable, and \[4, 5\] is given as chunksize.*starmap"):
                method(pow, [2, 3], [4, 5])  # type: ignore[arg-type, operator]
        with pytest.raises(ConfigError, match="chunksize must be a whole number"):
            pool.map(abs, [1], 0)


# --- what they say they are -----------------------------------------------------------------------------------------


def test_each_says_what_it_is() -> None:
    assert repr(Processes()) == "Processes()"
    assert repr(Processes(start_method="fork", max_tasks_per_worker=3)) == (
        "Processes(start_method='fork', max_tasks_per_worker=3)"
    )
    pool, executor = Pool(backend="threads"), Executor(backend=Processes(start_method="fork"))
    assert repr(pool) == "<anymap.Pool on Threads()>"
    assert repr(executor) == "<anymap.Executor on Processes(start_method='fork')>"
    pool.close()
    executor.shutdown()
    assert repr(pool) == "<anymap.Pool on Threads(), closed>"
    assert repr(executor) == "<anymap.Executor on Processes(start_method='fork'), shut down>"
    results = pmap(abs, [1], backend="serial", lazy=True)
    assert repr(results) == "<MapIterator of <built-in function abs> on Serial()>"
    results.close()
    assert repr(results) == "<MapIterator of <built-in function abs> on Serial(), closed>"
    result = Pool(1, backend="serial").apply_async(abs, [-1])
    result.wait(LONG)
    assert repr(result) == "<AsyncResult, ready>"
    assert repr(anymap.using(workers=2, backend="threads")) == "using(workers=2, backend='threads')"
    assert repr(anymap.task_progress(total=3, desc="rows")) == "<Progress desc='rows', total=3>"
    assert repr(anymap.per_worker(dict)) == "<PerWorker <Shared type>>"


@pytest.mark.full
def test_each_backend_says_what_it_is(backend: Backend) -> None:
    expected = f"Dask(scheduler_file={backend._scheduler_file!r})" if isinstance(backend, Dask) else None
    assert repr(backend) == (expected or f"{type(backend).__name__}()")
