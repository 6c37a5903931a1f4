"""The joblib backend: the user's configuration decides, and joblib is left as it was."""

from __future__ import annotations

import glob
import multiprocessing
import os
import signal
import subprocess
import sys
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

import cloudpickle
import joblib
import pytest
from joblib.externals import loky
from joblib.parallel import ParallelBackendBase

import anymap
from anymap import BackendConnectionError, ItemTimeout, WorkerLost, pmap
from anymap.backends import Joblib

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

pytestmark = [pytest.mark.joblib, pytest.mark.versions]

LONG = 60.0
"""Seconds after which what is waited for will not come any more, on a machine that is very busy."""
PROMPT = 10.0
"""Seconds that nothing here takes which does not wait for an item."""
FOREVER = 600.0


def where(_: object) -> tuple[int, str]:
    """Say in which process and thread this runs; take so long that no worker does everything."""
    time.sleep(0.01)
    return os.getpid(), threading.current_thread().name


def until(true: Callable[[], object]) -> None:
    give_up = time.monotonic() + LONG
    while not true():
        assert time.monotonic() < give_up
        time.sleep(0.005)


def run_where(**options: Any) -> tuple[set[int], set[str]]:
    places = pmap(where, range(40), backend="joblib", chunksize=1, **options)
    return {pid for pid, _ in places}, {thread for _, thread in places}


# --- the user's configuration -------------------------------------------------------------------------------------


def test_without_a_configuration_it_is_loky() -> None:
    pids, _ = run_where(workers=2)
    assert pids == {worker.pid for worker in loky.get_reusable_executor(reuse=True)._processes.values()}


@pytest.mark.parametrize("n_jobs", [2, 3])
def test_n_jobs_of_the_configuration_is_the_number_of_workers(n_jobs: int) -> None:
    with joblib.parallel_config("threading", n_jobs=n_jobs):
        pids, threads = run_where()
    assert pids == {os.getpid()}
    assert len(threads) == n_jobs


def test_workers_go_before_n_jobs() -> None:
    with joblib.parallel_config("threading", n_jobs=2):
        assert len(run_where(workers=4)[1]) == 4


def test_without_n_jobs_all_cpus_are_used() -> None:
    with joblib.parallel_config("threading"):
        backend = Joblib()
        backend.open(None)
        assert backend.workers == joblib.cpu_count()
        backend.close(abandon=False)


def test_processes_of_multiprocessing() -> None:
    with joblib.parallel_config("multiprocessing", n_jobs=2):
        parents = pmap(lambda _: os.getppid(), range(4), backend="joblib")
    assert set(parents) == {os.getpid()}


@pytest.mark.parametrize("options", [{"backend": "sequential"}, {"backend": "loky", "n_jobs": 1}])
def test_one_job_is_a_loop_in_the_callers_thread_as_with_joblib(options: dict[str, Any]) -> None:
    with joblib.parallel_config(**options):
        assert run_where() == ({os.getpid()}, {threading.current_thread().name})


@pytest.mark.filterwarnings("ignore:Loky-backed parallel loops cannot be called in a multiprocessing")
def test_so_it_is_where_joblib_makes_one_job_of_several(monkeypatch: pytest.MonkeyPatch) -> None:
    # As in a worker of a multiprocessing pool, which may have no children.
    monkeypatch.setitem(multiprocessing.current_process()._config, "daemon", True)  # type: ignore[attr-defined]
    where: list[int] = []
    pmap(lambda _: where.append(threading.get_ident()) or time.sleep(0.001), range(100), backend="joblib", workers=2)
    assert set(where) == {threading.get_ident()}


def test_threads_are_handed_the_objects_themselves() -> None:
    lock = threading.Lock()
    with joblib.parallel_config("threading", n_jobs=2):
        assert pmap(lambda item: item, [lock, lock], backend="joblib") == [lock, lock]


def test_a_lazy_map_runs_where_it_was_called_not_where_it_is_iterated() -> None:
    with joblib.parallel_config("threading", n_jobs=2):
        results = pmap(where, range(4), backend="joblib", lazy=True)
    assert {pid for pid, _ in results} == {os.getpid()}


def test_options_of_the_configuration_reach_the_engine() -> None:
    with joblib.parallel_config("loky", n_jobs=2, inner_max_num_threads=7):
        assert pmap(lambda name: os.environ[name], ["OMP_NUM_THREADS"], backend="joblib") == ["7"]


def test_maps_in_one_block_do_not_meet() -> None:
    for engine in ("loky", "multiprocessing", "threading"):
        with joblib.parallel_config(engine, n_jobs=2):
            outer = pmap(abs, iter(range(1000)), backend="joblib", lazy=True, window=4)
            with outer:
                assert next(outer) == 0
                assert pmap(abs, range(10), backend="joblib") == list(range(10))
                assert [next(outer) for _ in range(50)] == list(range(1, 51))


# --- loky is everybody's ------------------------------------------------------------------------------------------


def loky_pids() -> set[int]:
    return set(loky.get_reusable_executor(reuse=True)._processes)


def test_the_users_warm_executor_is_used_and_stays() -> None:
    def calls() -> list[int]:
        return list(joblib.Parallel(n_jobs=2)(joblib.delayed(abs)(-item) for item in range(4)))

    calls()
    executor, before = loky.get_reusable_executor(reuse=True), loky_pids()
    assert run_where(workers=2)[0] <= before
    calls()
    assert loky.get_reusable_executor(reuse=True) is executor
    assert loky_pids() == before


def test_a_worker_that_died_idle_does_not_hold_up_a_map_that_wants_another_number() -> None:
    # To give the executor another size, loky itself would wait for the dead one, holding a lock of all.
    for _ in range(10):
        pmap(abs, range(10), backend="joblib", workers=2)
        os.kill(min(loky_pids()), signal.SIGKILL)
        time.sleep(0.001)  # the moment in which it is dead, and loky does not know
        assert pmap(abs, range(-10, 0), backend="joblib", workers=3) == list(range(10, 0, -1))


def test_no_thread_is_left_of_an_executor_that_died_with_a_full_queue() -> None:
    def die(_: object) -> None:
        os.kill(os.getpid(), signal.SIGKILL)

    found = pmap(die, [[bytes(60_000)]] * 8, backend="joblib", workers=2, chunksize=1, on_error="return")
    assert [type(error) for error in found] == [WorkerLost] * 8
    anymap.shutdown()
    until(lambda: "QueueFeederThread" not in {thread.name for thread in threading.enumerate()})


def test_leaving_a_map_of_quick_items_keeps_the_workers() -> None:
    with pmap(abs, iter(int, 1), backend="joblib", workers=2, lazy=True) as results:
        next(results)
        before = loky_pids()
    assert loky_pids() == before


def test_leaving_a_map_of_stuck_items_is_prompt_and_joblib_goes_on(tmp_path: Path) -> None:
    options: dict[str, Any] = {"workers": 2, "lazy": True, "ordered": False, "chunksize": 1}
    with pmap(touch_and_sleep, [tmp_path, None], backend="joblib", **options) as some:
        next(some)
        until(lambda: any(tmp_path.iterdir()))
        began = time.monotonic()
    assert time.monotonic() - began < PROMPT
    assert joblib.Parallel(n_jobs=2)(joblib.delayed(abs)(-item) for item in range(4)) == [0, 1, 2, 3]
    assert not loky_pids() & {int(path.name) for path in tmp_path.iterdir()}


def touch_and_sleep(folder: Path | None) -> None:
    if folder is not None:
        (folder / str(os.getpid())).touch()
        time.sleep(FOREVER)


def test_leaving_a_map_does_not_touch_what_others_run_on_the_executor(tmp_path: Path) -> None:
    started, go_on = tmp_path / "started", tmp_path / "go on"

    def stick(item: int) -> int:
        while item and not go_on.exists():
            started.touch()
            time.sleep(0.01)
        return item

    events: list[Any] = []
    with ThreadPoolExecutor(1) as threads:
        options = {"backend": "joblib", "workers": 2, "chunksize": 1}
        with pmap(stick, [1, 0], lazy=True, ordered=False, **options) as stuck:
            next(stuck)
            until(started.exists)
            other = threads.submit(pmap, where, range(200), progress=events.append, **options)
            until(lambda: any(event.done for event in events[1:]))
        assert len(other.result()) == 200
    go_on.touch()
    assert events[-1].lost == 0


def test_a_map_survives_that_somebody_shuts_the_executor_down() -> None:
    with pmap(where, iter(range(60)), backend="joblib", workers=2, lazy=True, chunksize=1) as results:
        next(results)
        loky.get_reusable_executor(reuse=True).shutdown(kill_workers=True)
        assert len(list(results)) == 59


def test_a_busy_executor_is_not_waited_for_but_shared_at_its_size() -> None:
    with pmap(where, iter(int, 1), backend="joblib", workers=2, lazy=True) as endless:
        next(endless)
        assert pmap(abs, range(-20, 0), backend="joblib", workers=3) == list(range(20, 0, -1))
        assert len(loky_pids()) == 2


def test_many_maps_at_once_of_all_sizes() -> None:
    def several(workers: int) -> list[bool]:
        return [pmap(abs, range(20), backend="joblib", workers=workers) == list(range(20)) for _ in range(3)]

    with ThreadPoolExecutor(6) as threads:
        assert all(all(done) for done in threads.map(several, [2, 3, 4, 2, 3, 4]))


# --- deaths, deadlines --------------------------------------------------------------------------------------------


@pytest.mark.parametrize("engine", ["loky", "multiprocessing"])
def test_a_dead_worker_costs_its_item_only(engine: str) -> None:
    def die(item: int) -> int:
        if item == 13:
            os._exit(7)
        return item

    with joblib.parallel_config(engine, n_jobs=2):
        results = pmap(die, range(40), backend="joblib", chunksize=4, on_error="return")
    lost = results.pop(13)
    assert isinstance(lost, WorkerLost)
    assert lost.exitcode == 7
    assert results == [item for item in range(40) if item != 13]


@pytest.mark.parametrize("engine", ["loky", "multiprocessing", "threading"])
def test_a_stuck_item_is_ended_at_its_deadline_and_its_place_filled(engine: str) -> None:
    over = threading.Event()

    def stick(item: int) -> int:
        if item in {3, 5}:  # as many as there are workers
            time.sleep(FOREVER) if engine != "threading" else over.wait()
        return item

    if engine != "threading":
        del over
    with joblib.parallel_config(engine, n_jobs=2):
        results = pmap(stick, range(12), backend="joblib", chunksize=1, timeout=1.0, on_error="return")
    assert [type(result) for result in results if not isinstance(result, int)] == [ItemTimeout] * 2
    assert [result for result in results if isinstance(result, int)] == [0, 1, 2, 4, *range(6, 12)]
    if engine == "threading":
        over.set()


# --- other engines ------------------------------------------------------------------------------------------------


class ByCallback(ParallelBackendBase):  # type: ignore[misc]
    """As third parties write them since joblib 1.3; tasks go through bytes, as to another machine."""

    supports_retrieve_callback = True

    def effective_n_jobs(self, n_jobs: int) -> int:
        return 2 if n_jobs == -1 else n_jobs

    def configure(self, n_jobs: int = 1, parallel: Any = None, **_: Any) -> int:
        self.parallel = parallel
        self.pool = ThreadPoolExecutor(2)
        return 2

    def submit(self, func: Any, callback: Any = None) -> Any:
        data = cloudpickle.dumps(func)
        job = self.pool.submit(cloudpickle.loads(data))
        if callback is not None:
            job.add_done_callback(callback)
        return job

    apply_async = submit

    def retrieve_result_callback(self, out: Any) -> Any:
        return out.result()

    def terminate(self) -> None:
        self.pool.shutdown(wait=False, cancel_futures=True)


class ByJob(ByCallback):
    """As they were written before, and some still are."""

    supports_retrieve_callback = False
    supports_timeout = True
    submit = ParallelBackendBase.submit if hasattr(ParallelBackendBase, "submit") else None

    def apply_async(self, func: Any, callback: Any = None) -> Any:
        job = super().apply_async(func)
        job.get = lambda timeout=None: job.result(timeout)
        return job


class InMemory(ByCallback):
    supports_sharedmem = True

    def submit(self, func: Any, callback: Any = None) -> Any:
        job = self.pool.submit(func)
        job.add_done_callback(callback)
        return job

    apply_async = submit


class Broken(ByCallback):
    def submit(self, func: Any, callback: Any = None) -> Any:
        return super().submit(fault, callback)

    apply_async = submit


def fault() -> None:
    raise OSError("the engine is out of order")


@contextmanager
def third_party(engine: type[ParallelBackendBase]) -> Iterator[None]:
    with joblib.parallel_config(engine(), n_jobs=2):
        yield


@pytest.mark.parametrize("engine", [ByCallback, ByJob])
def test_an_engine_of_a_third_party(engine: type[ParallelBackendBase]) -> None:
    with third_party(engine):
        assert pmap(lambda item: item + 1, range(50), backend="joblib") == list(range(1, 51))
        with pmap(abs, iter(int, 1), backend="joblib", lazy=True) as results:
            next(results)


def test_an_engine_of_a_third_party_that_shares_memory_is_handed_the_objects_themselves() -> None:
    lock = threading.Lock()
    with third_party(InMemory):
        assert pmap(lambda item: item, [lock, lock], backend="joblib") == [lock, lock]


def test_what_goes_wrong_in_an_engine_of_a_third_party_ends_the_map() -> None:
    with third_party(Broken), pytest.raises(OSError, match="out of order"):
        pmap(abs, range(4), backend="joblib", on_error="skip")


# --- dask through joblib ------------------------------------------------------------------------------------------


@pytest.mark.dask
def test_dask_through_joblib(dask_cluster: str) -> None:
    from distributed import Client  # it takes a second

    with Client(scheduler_file=dask_cluster) as client, joblib.parallel_config("dask"):
        addresses = {worker["id"] for worker in client.scheduler_info()["workers"].values()}
        assert len(addresses) == 2
        pids = set(client.run(os.getpid).values())
        assert run_where()[0] == pids
        with pmap(where, iter(int, 1), backend="joblib", lazy=True) as outer:
            next(outer)
            assert pmap(abs, range(-4, 0), backend="joblib", workers=1) == [4, 3, 2, 1]
            next(outer)
        until(lambda: not any(client.processing().values()))


@pytest.mark.dask
def test_a_dask_client_that_is_closed_ends_the_map(dask_cluster: str) -> None:
    from distributed import Client  # it takes a second

    with Client(scheduler_file=dask_cluster) as client, joblib.parallel_config("dask"):
        results = pmap(where, iter(int, 1), backend="joblib", lazy=True)
        next(results)
        client.close()
        with pytest.raises(BackendConnectionError, match="scheduler is gone"):
            for _ in results:
                pass


# --- what is left -------------------------------------------------------------------------------------------------

PROGRAM = """
import glob, joblib, os, time
from anymap import pmap

def stick(item):
    time.sleep(item)

def die(item):
    item or os._exit(1)

def folders():
    return len(glob.glob(f"/dev/shm/joblib*_{os.getpid()}_*"))

for engine in ("multiprocessing", "loky"):
    with joblib.parallel_config(engine, n_jobs=2):
        pmap(abs, range(100), backend="joblib")
        items = [600, 0, 600, 600, 600, 600, 600, 600]
        with pmap(stick, items, backend="joblib", lazy=True, ordered=False, chunksize=1) as results:
            next(results)
        pmap(die, range(-20, 20), backend="joblib", chunksize=1, on_error="skip")
    # With loky, joblib keeps one for each call until the program ends.
    assert engine == "loky" or not folders()
print(os.getpid())
"""


def test_no_folders_of_joblib_and_no_warnings_of_its_resource_tracker_are_left(tmp_path: Path) -> None:
    program = tmp_path / "program.py"
    program.write_text(PROGRAM)
    environment = {**os.environ, "PYTHONPATH": str(Path(anymap.__file__).parents[1])}
    ran = subprocess.run(
        [sys.executable, program], env=environment, capture_output=True, text=True, timeout=LONG, check=True
    )
    assert not ran.stderr
    assert not glob.glob(f"/dev/shm/joblib*_{ran.stdout.strip()}_*")
