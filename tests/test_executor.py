"""An ``Executor``: what those of the standard library do, with what a map promises."""

from __future__ import annotations

import asyncio
import gc
import os
import re
import signal
import subprocess
import sys
import threading
import weakref
from concurrent.futures import CancelledError, Future, ThreadPoolExecutor, as_completed, wait
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

import anymap
from anymap import Executor, NotPicklable, WorkerLost, failure, pmap
from anymap.backends import Serial, Threads, Traits
from anymap.testing import Gate
from tests.conftest import left

if TYPE_CHECKING:
    from collections.abc import Callable

    from anymap.backends import Backend

ENVIRONMENT = {**os.environ, "PYTHONPATH": str(Path(anymap.__file__).parents[1])}
LONG = 30.0
KILLING = ["processes", "pathos", "joblib"]
"""Backends whose workers are processes of this host, whose deaths are told exactly."""

in_killable_processes = pytest.mark.parametrize(
    "name", [pytest.param(name, marks=[getattr(pytest.mark, name), pytest.mark.full]) for name in KILLING]
)


def invert(x: float) -> float:
    return 1 / x


def wait_for(path: Path) -> str:
    """Return what somebody has written to a file, once it is there."""
    while not path.exists():
        pass
    return path.read_text()


def announce(path: Path) -> None:
    path.with_suffix(".new").write_text("here")
    path.with_suffix(".new").rename(path)


def end_of(thread: str) -> Callable[[], bool]:
    """Wait for the end of the thread of that name that runs now; return whether it came."""
    [found] = [running for running in threading.enumerate() if running.name == thread]

    def ended() -> bool:
        found.join(LONG)
        return not found.is_alive()

    return ended


# --- what it does -------------------------------------------------------------------------------------------------------


@pytest.mark.full
def test_calls_come_back_as_futures_of_the_standard_library(backend: Backend) -> None:
    offset = 10
    with Executor(2, backend=backend) as executor:
        futures = [executor.submit(lambda x, *, y: x * y + offset, x, y=2) for x in range(5)]
        assert all(isinstance(future, Future) for future in futures)
        assert sorted(future.result() for future in as_completed(futures, LONG)) == [10, 12, 14, 16, 18]
        assert [future.result() for future in futures] == [10, 12, 14, 16, 18]
        assert list(executor.map(pow, [2, 3], [4, 5])) == [16, 243]


@pytest.mark.full
def test_a_call_that_fails_gives_its_own_exception_and_costs_no_other(backend: Backend) -> None:
    with Executor(2, backend=backend) as executor:
        futures = [executor.submit(invert, x) for x in (4, 0, 2)]
        wait(futures, LONG)
        error = futures[1].exception()
    assert [futures[0].result(), futures[2].result()] == [0.25, 0.5]
    assert isinstance(error, ZeroDivisionError)
    assert re.search(r"invert\(0\).* failed after 1 attempt in worker", "\n".join(error.__notes__))
    assert "return 1 / x" in failure(error).traceback  # type: ignore[union-attr]


@in_killable_processes
def test_a_worker_that_dies_costs_its_own_call_alone(name: str) -> None:
    with Executor(2, backend=name) as executor:
        futures = [executor.submit(os.kill if x == 5 else pow, *both) for x, both in enumerate(killing_the_sixth())]
        lost = futures[5].exception(LONG)
        assert isinstance(lost, WorkerLost)
        assert lost.exitcode == -signal.SIGKILL
        assert [future.result(LONG) for x, future in enumerate(futures) if x != 5] == [
            x**2 for x in range(12) if x != 5
        ]
        assert executor.submit(pow, 3, 2).result(LONG) == 9


def killing_the_sixth() -> list[tuple[Any, int]]:
    return [(OwnPid(), signal.SIGKILL) if x == 5 else (x, 2) for x in range(12)]


class OwnPid:
    """Is the process id of whoever loads it."""

    def __reduce__(self) -> tuple[Any, ...]:
        return os.getpid, ()


@pytest.mark.processes
def test_what_cannot_be_sent_or_sent_back_costs_that_call_alone() -> None:
    with Executor(2, backend="processes") as executor:
        there = executor.submit(len, [threading.Lock()])
        back = executor.submit(threading.Lock)
        with pytest.raises(
            NotPicklable, match=r"argument .*cannot be sent to a worker: .* because of a lock, at args\[0\]\[0\]"
        ):
            there.result(LONG)
        with pytest.raises(NotPicklable, match="result cannot be sent back"):
            back.result(LONG)
        assert executor.submit(len, "ok").result(LONG) == 2


@pytest.mark.full
def test_each_call_begins_as_soon_as_a_worker_is_free(backend: Backend, tmp_path: Path) -> None:
    # In a chunk with the first, or in the queue of its worker, the second one would wait for ever.
    if isinstance(backend, Serial):
        pytest.skip("there is one worker")
    with Executor(2, backend=backend) as executor:
        busy = [executor.submit(wait_for, tmp_path / "go") for _ in range(2)]
        first = executor.submit(wait_for, tmp_path / "second")
        more = [executor.submit(announce, tmp_path / "second"), *(executor.submit(abs, x) for x in range(50))]
        announce(tmp_path / "go")
        assert first.result(LONG) == "here"
        wait([*busy, *more], LONG)


def test_calls_start_in_the_order_in_which_they_were_submitted() -> None:
    gate = Gate(workers=2)
    with Executor(backend=gate) as executor:
        futures = [executor.submit(abs, -x) for x in range(20)]
        for x in range(20):
            held = gate.expect()
            assert held[0].rows[0].args == (-x,)
            gate.release()
    assert [future.result() for future in futures] == list(range(20))
    assert gate.closed == [False]


def test_a_call_that_is_cancelled_before_it_was_sent_never_runs() -> None:
    gate = Gate(workers=1)
    ran: list[int] = []
    with Executor(backend=gate) as executor:
        futures = [executor.submit(ran.append, x) for x in range(6)]
        gate.expect(2)
        assert [future.cancel() for future in futures] == [False, False, True, True, True, True]
        again = executor.submit(ran.append, 6)
        for _ in range(3):
            gate.expect()
            gate.release()
        wait([*futures, again], LONG)
    assert ran == [0, 1, 6]


def test_callbacks_may_submit_and_are_called_with_their_future() -> None:
    got: list[int] = []
    done = threading.Event()

    def go_on(future: Future[int]) -> None:
        got.append(future.result())
        if len(got) == 5:
            done.set()
        else:
            executor.submit(abs, -len(got)).add_done_callback(go_on)

    with Executor(1, backend="threads") as executor:
        executor.submit(abs, 0).add_done_callback(go_on)
        assert done.wait(LONG)
    assert got == [0, 1, 2, 3, 4]


def test_many_threads_may_submit_at_once() -> None:
    with Executor(3, backend="threads") as executor:

        def submit_some(base: int) -> list[int]:
            return [future.result(LONG) for future in [executor.submit(abs, -base - x) for x in range(100)]]

        with anymap.Executor(8, backend="threads") as callers:
            sums = list(callers.map(submit_some, range(0, 800, 100)))
    assert sums == [list(range(base, base + 100)) for base in range(0, 800, 100)]


@pytest.mark.full
def test_asyncio_runs_what_blocks_in_it(backend: Backend) -> None:
    async def main() -> list[Any]:
        loop = asyncio.get_running_loop()
        with Executor(2, backend=backend) as executor:
            calls = [loop.run_in_executor(executor, invert, x) for x in (1, 2, 0)]
            return await asyncio.gather(*calls, return_exceptions=True)

    *results, error = asyncio.run(main())
    assert results == [1, 0.5]
    assert isinstance(error, ZeroDivisionError)


@pytest.mark.full
def test_inside_of_a_map_it_runs_where_it_is(backend: Backend) -> None:
    def work(x: int) -> tuple[int, bool]:
        with Executor() as executor:
            return executor.submit(pow, x, 2).result(), executor.submit(os.getpid).result() == os.getpid()

    assert pmap(work, [2, 3], backend=backend, workers=2) == [(4, True), (9, True)]


@pytest.mark.dask
@pytest.mark.full
def test_inside_of_a_dask_task_it_leaves_its_place_to_the_calls(dask_cluster: str) -> None:
    # As many tasks as there are places, each of them waiting for one more.
    def work(x: int) -> int:
        with Executor(backend="dask") as executor:
            return executor.submit(pow, x, 2).result(LONG)

    backend = anymap.backends.Dask(scheduler_file=dask_cluster)
    assert pmap(work, [2, 3], backend=backend, chunksize=1) == [4, 9]


def test_it_sits_on_an_executor_of_the_users_as_well() -> None:
    with ThreadPoolExecutor(2) as users:
        with Executor(backend=users) as executor:
            assert list(executor.map(lambda x: (x, threading.current_thread().name[:18]), [1])) == [
                (1, "ThreadPoolExecutor")
            ]
        assert users.submit(abs, -1).result(LONG) == 1


def test_who_runs_the_program_says_where_calls_run(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("ANYMAP_BACKEND", "threads")
    with Executor() as executor:
        assert executor.submit(os.getpid).result(LONG) == os.getpid()
    with anymap.using(retries=3, chunksize=7, window=1), Executor() as executor:
        calls = [0]
        with pytest.raises(ZeroDivisionError):
            executor.submit(lambda: invert(calls.append(1) or 0)).result(LONG)  # type: ignore[func-returns-value]
        assert calls == [0, 1]


def test_a_wrong_backend_is_refused_before_the_first_call() -> None:
    with pytest.raises(anymap.UnknownBackend):
        Executor(backend="thread")
    with pytest.raises(anymap.ConfigError):
        Executor(workers=0)


# --- its end ------------------------------------------------------------------------------------------------------------


def test_after_its_shutdown_nothing_can_be_submitted() -> None:
    executor = Executor(backend="threads")
    executor.shutdown()
    executor.shutdown()
    with pytest.raises(RuntimeError, match="after shutdown"):
        executor.submit(abs, 1)


def test_shutdown_waits_for_all_calls_unless_told_otherwise() -> None:
    gate = Gate(workers=1)
    executor = Executor(backend=gate)
    futures = [executor.submit(abs, x) for x in range(5)]
    executor.shutdown(wait=False)
    assert not any(future.done() for future in futures)
    ended = end_of("anymap-executor")
    for _ in futures:
        gate.expect()
        gate.release()
    assert ended()
    executor.shutdown()
    assert [future.result(0) for future in futures] == [0, 1, 2, 3, 4]
    assert gate.closed == [False]


def test_shutdown_can_cancel_what_has_not_begun() -> None:
    gate = Gate(workers=1)
    executor = Executor(backend=gate)
    futures = [executor.submit(abs, x) for x in range(5)]
    gate.expect(2)
    executor.shutdown(wait=False, cancel_futures=True)
    # Whoever waits for them hears of it at once.
    assert wait(futures[2:], LONG).not_done == set()
    assert [future.cancelled() for future in futures] == [False, False, True, True, True]
    ended = end_of("anymap-executor")
    gate.release()
    gate.release()
    assert ended()
    assert [futures[0].result(0), futures[1].result(0)] == [0, 1]


def test_one_that_is_dropped_finishes_its_calls_and_ends() -> None:
    gate = Gate(workers=1)
    executor = Executor(backend=gate)
    futures = [executor.submit(abs, x) for x in range(3)]
    gate.expect()
    ended, gone = end_of("anymap-executor"), weakref.ref(executor)
    del executor
    gc.collect()
    assert gone() is None
    for _ in futures:
        gate.expect()
        gate.release()
    assert ended()
    assert [future.result(0) for future in futures] == [0, 1, 2]


def test_it_keeps_nothing_of_a_call_that_is_over() -> None:
    class Large:
        pass

    with Executor(1, backend="threads") as executor:
        argument = Large()
        seen, made = weakref.ref(argument), threading.Event()
        future = executor.submit(lambda _: Large(), argument)
        future.add_done_callback(lambda _: made.set())
        del argument
        assert made.wait(LONG)
        result = weakref.ref(future.result())
        del future
        # The thread that has answered may still be on its way back to its place.
        assert not left(lambda: (gc.collect(), seen(), result())[1:] != (None, None))


def test_an_engine_that_breaks_costs_the_calls_under_way_and_is_opened_anew() -> None:
    gate = Gate(workers=1)
    with Executor(backend=gate) as executor:
        futures = [executor.submit(abs, x) for x in range(4)]
        gate.expect(2)
        ended = end_of("anymap-executor")
        gate.fail(0, OSError("no engine"))
        for future in futures:
            with pytest.raises(OSError, match="no engine"):
                future.result(LONG)
        assert ended()
        gate.held.clear()
        last = executor.submit(abs, -5)
        gate.expect()
        gate.release()
        assert last.result(LONG) == 5
    assert gate.closed == [True, False]


def test_a_backend_that_cannot_be_opened_says_so_where_the_call_is_submitted() -> None:
    class Broken(Threads):
        def open(self, workers: int | None) -> None:
            raise anymap.BackendConnectionError("nobody there")

        def close(self, *, abandon: bool) -> None:
            pass

    with Executor(backend=Broken()) as executor:
        for _ in range(2):
            with pytest.raises(anymap.BackendConnectionError, match="nobody there"):
                executor.submit(abs, 1)


def test_a_fork_cannot_use_it_and_ends_all_the_same() -> None:
    with Executor(1, backend="threads") as executor:
        executor.submit(abs, 1).result(LONG)
        if not (pid := os.fork()):
            try:
                executor.submit(abs, 1)
            except RuntimeError as exc:
                executor.shutdown()
                os._exit(7 if "make another one" in str(exc) else 1)
            finally:
                os._exit(1)
        assert os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]) == 7
        assert executor.submit(abs, -2).result(LONG) == 2


PROGRAM = """
import sys, time, anymap

def work(x):
    time.sleep(0.05)
    return x

def say(future):
    print(future.result(), flush=True)

executor = anymap.Executor(2, backend=sys.argv[1])
for x in range(6):
    executor.submit(work, x).add_done_callback(say)
{then}
"""


@pytest.mark.parametrize(
    "name",
    [
        pytest.param(name, marks=[getattr(pytest.mark, name), pytest.mark.full])
        for name in ("serial", "threads", "processes", "pathos", "joblib")
    ],
)
def test_a_program_ends_when_its_calls_have(name: str, tmp_path: Path) -> None:
    then = "del executor" if name == "processes" else ""
    ran = subprocess.run(
        [sys.executable, "-c", PROGRAM.format(then=then), name],
        cwd=tmp_path,
        env=ENVIRONMENT,
        capture_output=True,
        text=True,
        timeout=LONG,
        check=False,
    )
    assert (sorted(ran.stdout.split()), ran.stderr, ran.returncode) == (list("012345"), "", 0)


# --- while nothing happens ----------------------------------------------------------------------------------------------


def test_while_nothing_is_under_way_nobody_looks_after_it() -> None:
    class Watched(Threads):
        looked = threading.Semaphore(0)

        def poll(self) -> None:
            self.looked.release()

    with Executor(1, backend=Watched()) as executor:
        executor.submit(abs, 1).result(LONG)
        supervisor = executor._service._run._supervisor  # type: ignore[union-attr]
        for _ in range(2):
            while not supervisor.rests:  # it is about to: the call is over
                Watched.looked.acquire(timeout=LONG)
            go_on = threading.Event()
            future = executor.submit(go_on.wait, LONG)
            # Two looks: one that it was woken for, and one that it takes by itself.
            while Watched.looked.acquire(blocking=False):
                pass
            assert Watched.looked.acquire(timeout=LONG)
            assert Watched.looked.acquire(timeout=LONG)
            go_on.set()
            assert future.result(LONG)


@pytest.mark.parametrize("of", [Traits(shares_memory=True), Traits()])
def test_a_lone_call_is_sent_at_once(of: Traits) -> None:
    gate = Gate(workers=4, traits=of)
    with Executor(backend=gate) as executor:
        future = executor.submit(partial(pow, 2), 3)
        gate.expect(1)
        gate.release()
        assert future.result(LONG) == 8


def test_one_that_is_ended_gives_nobody_to_wait_for() -> None:
    gate = Gate(workers=1)
    executor = Executor(backend=gate)
    futures = [executor.submit(abs, x) for x in range(4)]
    gate.expect(2)
    executor.terminate()
    for future in futures:
        with pytest.raises(CancelledError):
            future.result(LONG)
    executor.shutdown()
    assert gate.closed == [True]
