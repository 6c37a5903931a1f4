"""Engines that the user has made already: used as they are, left as they were."""

from __future__ import annotations

import itertools
import multiprocessing
import multiprocessing.pool
import os
import signal
import subprocess
import sys
import threading
import time
from concurrent.futures import Executor, Future, ProcessPoolExecutor, ThreadPoolExecutor
from contextlib import closing, contextmanager
from typing import TYPE_CHECKING, Any

import multiprocess
import pytest
from pathos import parallel, pools

from anymap import BackendConnectionError, ItemTimeout, UnsupportedOption, WorkerLost, failure, pmap
from anymap._plan import live
from anymap.backends import pools as live_pools
from anymap.backends._shared import pool_deaths
from anymap.testing._station import Station
from tests.conftest import children

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

pytestmark = pytest.mark.full

LONG = 60.0
"""Seconds after which what is waited for will not come any more."""
FORK = multiprocessing.get_context("fork")


@contextmanager
def pathos_pool(kind: Callable[..., Any]) -> Iterator[Any]:
    pool = kind(2)
    try:
        yield pool
    finally:
        pool.close()
        pool.join()
        pool.clear()


def closed_and_joined(pool: Any) -> Iterator[Any]:
    """As ``with`` does not: it terminates the pool, which succeeds in states in which this waits for ever."""
    yield pool
    pool.close()
    pool.join()


ENGINES = {
    "ThreadPoolExecutor": lambda: ThreadPoolExecutor(2),
    "ProcessPoolExecutor": lambda: ProcessPoolExecutor(2, FORK),
    "Pool": lambda: contextmanager(closed_and_joined)(FORK.Pool(2)),
    "multiprocess.Pool": lambda: contextmanager(closed_and_joined)(multiprocess.get_context("fork").Pool(2)),
    "ThreadPool": lambda: contextmanager(closed_and_joined)(multiprocessing.pool.ThreadPool(2)),
    "pathos.ProcessPool": lambda: pathos_pool(pools.ProcessPool),
    "pathos.ThreadPool": lambda: pathos_pool(pools.ThreadPool),
}
POOLS = ["Pool", "multiprocess.Pool", "pathos.ProcessPool"]
Make = "Callable[[], AbstractContextManager[Any]]"


def own_use(engine: Any) -> list[int]:
    """Use an engine as its owner would."""
    return list(engine.map(abs, [-1, -2, -3]))


def die_at_seven(item: int) -> int:
    if item == 7:
        os.kill(os.getpid(), signal.SIGKILL)
    return item


def until(true: Callable[[], object]) -> None:
    give_up = time.monotonic() + LONG
    while not true():
        assert time.monotonic() < give_up
        time.sleep(0.002)


@pytest.mark.parametrize("name", ENGINES)
def test_an_engine_is_as_usable_after_its_maps_as_before(name: str) -> None:
    with ENGINES[name]() as engine:
        assert pmap(lambda x: x * x, range(5), backend=engine) == [0, 1, 4, 9, 16]
        with pmap(abs, itertools.count(), backend=engine, lazy=True) as results:
            assert next(results) == 0
            assert own_use(engine) == [1, 2, 3]
        assert own_use(engine) == [1, 2, 3]


@pytest.mark.parametrize("name", POOLS)
def test_a_dead_worker_of_a_pool_costs_its_item_and_the_pool_goes_on(name: str) -> None:
    with ENGINES[name]() as engine:
        results = pmap(die_at_seven, range(20), backend=engine, on_error="return")
        lost = results.pop(7)
        assert isinstance(lost, WorkerLost)
        assert (lost.exitcode, failure(lost).index) == (-signal.SIGKILL, 7)
        assert results == [item for item in range(20) if item != 7]
        assert own_use(engine) == [1, 2, 3]
    # By now it has been closed and joined, though it never had that answer.


def test_a_death_that_breaks_an_executor_is_that_items_error() -> None:
    with ProcessPoolExecutor(2, FORK) as executor:
        with pytest.raises(WorkerLost, match=r"item 7 .*SIGKILL, which broke the ProcessPoolExecutor") as caught:
            pmap(die_at_seven, range(20), backend=executor)
        assert failure(caught.value).index == 7
        with pytest.raises(BackendConnectionError, match="takes no tasks any more, and as it is yours"):
            pmap(abs, [-1], backend=executor)


def test_a_map_that_cannot_go_on_on_a_broken_executor_names_what_broke_it() -> None:
    with ProcessPoolExecutor(2, FORK) as executor, pytest.raises(BackendConnectionError) as caught:
        pmap(die_at_seven, range(20), backend=executor, retries=3)
    assert any("the worker that ran item 7 (7) died" in note for note in caught.value.__notes__)


@pytest.mark.parametrize("name", ["ThreadPoolExecutor", "ThreadPool"])
def test_no_more_workers_are_taken_than_were_asked_for(name: str) -> None:
    released, running = threading.Event(), threading.Semaphore(0)

    def hold(item: int) -> int:
        running.release()
        assert released.wait(LONG)
        return item

    engine = ThreadPoolExecutor(3) if name == "ThreadPoolExecutor" else multiprocessing.pool.ThreadPool(3)
    submit = engine.submit if isinstance(engine, Executor) else engine.apply_async
    mapped: list[Any] = []
    with engine:
        mapper = threading.Thread(
            target=lambda: mapped.extend(pmap(hold, range(12), backend=engine, workers=2, chunksize=1))
        )
        mapper.start()
        for _ in range(2):
            assert running.acquire(timeout=LONG)
        # All that the map sends at once is in the queue by now, or would be: there is a thread left for others.
        done = threading.Event()
        submit(done.set)
        assert done.wait(LONG)
        assert not running.acquire(blocking=False)
        released.set()
        mapper.join(LONG)
    assert mapped == list(range(12))


def test_items_that_are_given_up_take_places_until_they_end() -> None:
    released = threading.Event()

    def stick(item: int) -> int:
        if item < 1:
            released.wait(LONG)
        return item

    with ThreadPoolExecutor(2) as executor:
        results = pmap(stick, range(6), backend=executor, timeout=0.3, on_error="return", chunksize=1)
        assert isinstance(results.pop(0), ItemTimeout)
        assert results == [1, 2, 3, 4, 5]
        released.set()


class CannotCancel(Executor):
    """An executor whose futures cannot be cancelled, as those of some clusters."""

    class Kept(Future[Any]):
        def cancel(self) -> bool:
            raise NotImplementedError("cancel")

    def __init__(self) -> None:
        self._threads = ThreadPoolExecutor(2)

    def submit(self, fn: Any, /, *args: Any, **kwargs: Any) -> Future[Any]:
        future = self.Kept()
        self._threads.submit(lambda: future.set_result(fn(*args, **kwargs)))
        return future

    def shutdown(self, wait: bool = True, *, cancel_futures: bool = False) -> None:
        self._threads.shutdown(wait)


def test_an_executor_that_cannot_cancel_hides_no_error_and_lets_a_lazy_map_go(caplog: pytest.LogCaptureFixture) -> None:
    with CannotCancel() as executor:
        with pytest.raises(ZeroDivisionError) as caught:
            pmap((1).__truediv__, [1, 0, *range(50)], backend=executor, chunksize=1)
        assert not [note for note in caught.value.__notes__ if "close" in note]
        with pmap(abs, itertools.count(-5), backend=executor, lazy=True) as results:
            assert next(results) == 5
    assert not caplog.records


@pytest.mark.parametrize("make", [ThreadPoolExecutor, multiprocessing.pool.ThreadPool])
def test_an_item_that_was_given_up_and_ends_makes_no_room_for_one_more(make: Callable[[int], Any]) -> None:
    over, lock = threading.Event(), threading.Lock()
    running, most = 0, 0

    def work(item: int) -> int:
        nonlocal running, most
        if item == 0:
            over.wait(LONG)
            return item
        with lock:
            running += 1
            most = max(most, running)
        if item == 3:
            over.set()
        time.sleep(0.01)  # so that two would be seen together
        with lock:
            running -= 1
        return item

    with make(4) as engine:
        results = pmap(work, range(60), backend=engine, workers=1, timeout=1, on_error="return", chunksize=1)
    assert isinstance(results.pop(0), ItemTimeout)
    assert results == list(range(1, 60))
    assert most == 1


@pytest.mark.parametrize("make", [ThreadPoolExecutor, multiprocessing.pool.ThreadPool])
def test_a_map_inside_of_a_map_does_not_wait_for_the_threads_that_wait_for_it(make: Callable[[int], Any]) -> None:
    with make(1) as engine:
        with pytest.raises(UnsupportedOption, match="may wait for itself for ever"):
            pmap(lambda _: pmap(abs, [-1], backend=engine), [0], backend=engine)
        assert pmap(lambda _: pmap(abs, [-1]), [0], backend=engine) == [[1]]


def test_a_late_worker_of_a_pool_writes_to_no_later_maps_board() -> None:
    reader, writer = os.pipe()

    def stick(item: int) -> int:
        if item == 0:
            os.read(reader, 1)
        return item

    with closing(FORK.Pool(2)) as pool:
        results = pmap(stick, range(6), backend=pool, timeout=0.3, on_error="return", chunksize=1)
        assert isinstance(results[0], ItemTimeout)
        from anymap._host import workspace

        assert not workspace._kept
        os.write(writer, b"x")
    pool.join()
    os.close(reader)
    os.close(writer)


@pytest.mark.parametrize("when", ["before", "while"])
def test_an_executor_that_was_shut_down_is_refused_in_plain_words(when: str) -> None:
    executor = ThreadPoolExecutor(1)

    def shut_down(item: int) -> int:
        executor.shutdown(wait=False)
        return item

    if when == "before":
        executor.shutdown()
    with pytest.raises(BackendConnectionError, match=r"the ThreadPoolExecutor given as backend= .*after shutdown"):
        pmap(shut_down, range(20), backend=executor, chunksize=1)


def test_tasks_that_an_executor_cancels_end_the_map() -> None:
    executor = ThreadPoolExecutor(1)

    def cancel(item: int) -> int:
        executor.shutdown(wait=False, cancel_futures=True)
        return item

    # With and without a queue of the map's own.
    for workers in (None, 1):
        executor = ThreadPoolExecutor(1 if workers is None else 2)
        with pytest.raises(BackendConnectionError, match="after shutdown"):
            pmap(cancel, range(20), backend=executor, workers=workers, chunksize=1)


def test_a_pool_that_was_closed_is_refused_in_plain_words() -> None:
    with multiprocessing.pool.ThreadPool(1) as pool:
        pool.close()
        with pytest.raises(BackendConnectionError, match=r"the ThreadPool given as backend= .*Pool not running"):
            pmap(abs, [-1], backend=pool)


def test_nothing_is_changed_in_workers_that_are_the_users() -> None:
    def look(_: int) -> tuple[bool, list[str]]:
        untouched = signal.getsignal(signal.SIGINT) is signal.default_int_handler
        return untouched, [thread.name for thread in threading.enumerate() if thread.name.startswith("anymap")]

    for engine in (ProcessPoolExecutor(1, FORK), FORK.Pool(1)):
        with engine:
            assert pmap(look, [0], backend=engine) == [(True, [])]


def test_a_pools_worker_that_dies_before_it_has_begun_is_missed(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(live_pools, "_TO_LOAD", 0.01)

    class Explosive:
        def __call__(self, item: int) -> int:
            return item

        def __reduce__(self) -> tuple[Any, ...]:
            return os._exit, (3,)

    with FORK.Pool(2) as pool:
        with pytest.raises(WorkerLost, match=r"workers end before they begin item [01] .*again and again"):
            pmap(Explosive(), [0, 1], backend=pool)
        assert own_use(pool) == [1, 2, 3]


def test_a_pool_whose_lock_died_with_an_idle_worker_is_given_up(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(live_pools, "_STANDSTILL", 0.3)
    pool = FORK.Pool(2)
    try:
        adopted = live.adopt(pool)
        assert adopted is not None
        with closing(Station(adopted, abs, 2, lambda: LONG)) as station:
            first = list(pool._pool)
            until(lambda: not pool._inqueue._rlock._semlock._get_value())
            for victim in first:
                os.kill(victim.pid, signal.SIGKILL)
            until(lambda: not set(first) & set(pool._pool))
            future = station.submit(-1)
            with pytest.raises(BackendConnectionError, match="begins nothing any more: it is yours"):
                future.result(LONG)
    finally:
        pool_deaths._Pool(pool).end()


def test_a_pool_of_pathos_is_started_again_when_its_map_begins_and_not_before() -> None:
    with pathos_pool(pools.ProcessPool) as own:
        own.clear()
        before = children()
        lazy = pmap(abs, [-1], backend=own, lazy=True)
        assert children() <= before
        assert list(lazy) == [1]
        assert children() > before


def test_pools_of_pathos_that_are_none() -> None:
    assert pmap(lambda _: os.getpid(), [0], backend=pools.SerialPool()) == [os.getpid()]
    # Not made: its constructor starts servers.
    with pytest.raises(UnsupportedOption, match="use a ProcessPool of pathos'"):
        pmap(abs, [-1], backend=parallel.ParallelPool.__new__(parallel.ParallelPool))


@pytest.mark.dask
def test_a_dask_client_and_its_executor_are_left_connected(dask_cluster: str) -> None:
    from distributed import Client

    with Client(scheduler_file=dask_cluster) as client:
        workers = set(client.run(os.getpid).values())
        assert set(pmap(lambda _: os.getpid(), range(10), backend=client, chunksize=1)) <= workers
        executor = client.get_executor()
        assert set(pmap(lambda _: os.getpid(), range(10), backend=executor, chunksize=1)) <= workers
        assert client.submit(abs, -1).result() == 1


def test_to_know_an_engine_imports_nothing() -> None:
    code = """
import sys
from concurrent.futures import ThreadPoolExecutor
from anymap import pmap
with ThreadPoolExecutor(1) as executor:
    assert pmap(abs, [-1], backend=executor) == [1]
print(sorted({"concurrent.futures.process", "distributed", "joblib", "loky", "multiprocess", "pathos"} & set(sys.modules)))
"""
    ran = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert ran.stdout == "[]\n"
