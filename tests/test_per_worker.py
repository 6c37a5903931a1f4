from __future__ import annotations

import os
import threading
import time
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

import joblib
import numpy as np
import pytest

import anymap
from anymap import PerWorker, UnsupportedOption, per_worker, pmap, share, worker_index
from anymap._in_worker.worker_index import Owner, choose
from anymap.backends import Dask, Joblib, Processes, Serial, Threads, Traits
from anymap.backends._dask.worker_slots import assign

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path

    from anymap.backends.base import Backend

LONG = 30.0


class Connection:
    """Writes into a file where it is opened, and where it is closed."""

    def __init__(self, log: Path, name: str = "it") -> None:
        self.log = log
        self.name = name
        self.place = f"{name} {os.getpid()} {threading.get_ident()}"
        self.note("opened")

    def note(self, what: str) -> None:
        with self.log.open("a") as file:
            file.write(f"{what} {self.name} {os.getpid()} {threading.get_ident()}\n")

    def close(self) -> None:
        self.note("closed")


class Session(Connection):
    def __enter__(self) -> str:
        self.note("entered")
        return self.place

    def __exit__(self, *_: object) -> None:
        self.note("left")


class Prediction:
    """Workers cannot import it."""


class Model:
    def predict(self) -> Prediction:
        return Prediction()


class Far(Processes):
    """Workers that could be anywhere, of which nobody knows more."""

    traits = Traits(remote=True)


@pytest.fixture
def log(tmp_path: Path) -> Path:
    file = tmp_path / "log"
    file.touch()
    return file


def lines(log: Path) -> list[str]:
    return log.read_text().splitlines()


def until(condition: Callable[[], Any]) -> Any:
    give_up = time.monotonic() + LONG
    while not (found := condition()):
        assert time.monotonic() < give_up, "it did not happen"
        time.sleep(0.005)
    return found


def meet(folder: Path, name: object, count: int) -> None:
    """Wait until so many are here at once."""
    (folder / f"here-{name}").touch()
    until(lambda: len(list(folder.glob("here-*"))) >= count)


def test_each_worker_makes_one_and_keeps_it(backend: Backend, log: Path) -> None:
    connection = per_worker(lambda: Connection(log))

    def use(_: int) -> tuple[str, str]:
        return connection.get().place, f"it {os.getpid()} {threading.get_ident()}"

    used = pmap(use, range(12), backend=backend, workers=2, chunksize=1)
    assert all(made == here for made, here in used)
    opened = [line.removeprefix("opened ") for line in lines(log) if line.startswith("opened")]
    assert sorted(opened) == sorted({made for made, _ in used})


def test_what_it_gives_is_of_the_callers_own_classes(backend: Backend) -> None:
    model = per_worker(Model)
    for _ in range(2):
        predicted = pmap(lambda _: model.get().predict(), [0, 1], backend=backend, workers=1)
        assert [type(each) for each in predicted] == [Prediction, Prediction]


def test_a_factory_can_use_what_is_shared(backend: Backend) -> None:
    with share(np.arange(50_000)) as weights:
        model = per_worker(lambda: {"sum": int(weights.get().sum())})
        (total,) = pmap(lambda one: one.get()["sum"], [model], backend=backend, workers=1)
        assert total == weights.get().sum()


def test_a_factory_that_raises_fails_the_item_and_is_tried_again(backend: Backend, log: Path) -> None:
    def connect() -> str:
        if not lines(log):
            log.write_text("tried\n")
            raise ConnectionError("not yet")
        return "connected"

    connection = per_worker(connect)
    got = pmap(lambda _: connection.get(), range(3), backend=backend, workers=1, on_error="return", chunksize=3)
    assert isinstance(got[0], ConnectionError)
    assert got[1:] == ["connected", "connected"]


@contextmanager
def as_it_was(backend: Backend) -> Iterator[Backend]:
    yield backend


@contextmanager
def joblib_on(name: str) -> Iterator[Backend]:
    with joblib.parallel_config(name, n_jobs=2):
        yield Joblib()


@pytest.mark.parametrize(
    "chosen",
    [
        pytest.param(lambda: as_it_was(Serial()), id="serial", marks=pytest.mark.serial),
        pytest.param(lambda: as_it_was(Threads()), id="threads", marks=pytest.mark.threads),
        pytest.param(lambda: as_it_was(Processes()), id="processes", marks=pytest.mark.processes),
        pytest.param(lambda: as_it_was(Processes(start_method="fork")), id="forks", marks=pytest.mark.processes),
        pytest.param(lambda: as_it_was(anymap.backends.Pathos()), id="pathos", marks=pytest.mark.pathos),
        pytest.param(lambda: joblib_on("multiprocessing"), id="joblib-multiprocessing", marks=pytest.mark.joblib),
        pytest.param(lambda: joblib_on("threading"), id="joblib-threading", marks=pytest.mark.joblib),
        pytest.param(lambda: as_it_was(Dask()), id="dask", marks=pytest.mark.dask),
    ],
)
def test_a_worker_that_ends_closes_what_it_has_made_the_last_first(chosen: Any, log: Path) -> None:
    connection = per_worker(lambda: Connection(log, "one"))
    session = per_worker(lambda: Session(log, f"two, after {connection.get().name}"))
    with chosen() as backend:
        places = set(pmap(lambda _: session.get(), range(6), backend=backend, workers=2, chunksize=1))
    anymap.shutdown()
    until(lambda: len(lines(log)) >= 6 * len(places))
    two = "two, after one"
    expected = [f"opened {two}", "opened one", f"entered {two}", f"left {two}", f"closed {two}", "closed one"]
    for place in places:
        where = place.removeprefix(two)
        seen = [line.removesuffix(where) for line in lines(log) if line.endswith(where)]
        assert sorted(seen) == sorted(expected)
        assert seen[2:] == expected[2:]


@pytest.mark.processes
def test_a_worker_that_is_replaced_closes_what_it_has_made(log: Path) -> None:
    connection = per_worker(lambda: Connection(log))
    backend = Processes(max_tasks_per_worker=1)
    assert len(set(pmap(lambda _: connection.get().place, range(3), backend=backend, workers=1, chunksize=1))) == 3
    until(lambda: sum(line.startswith("closed") for line in lines(log)) >= 2)


@pytest.mark.threads
def test_threads_have_closed_theirs_when_the_map_is_over(log: Path) -> None:
    connection = per_worker(lambda: Connection(log))
    for _ in range(5):
        pmap(lambda _: connection.get().place, range(6), backend="threads", workers=3, chunksize=1)
        opened = [line.removeprefix("opened") for line in lines(log) if line.startswith("opened")]
        closed = [line.removeprefix("closed") for line in lines(log) if line.startswith("closed")]
        assert sorted(opened) == sorted(closed)


@pytest.mark.threads
def test_a_thread_that_is_stuck_does_not_keep_the_map_from_ending(log: Path) -> None:
    connection, free = per_worker(lambda: Connection(log)), threading.Event()

    def work(stuck: bool) -> str:
        place = connection.get().place
        if stuck:
            free.wait(LONG)
        return place

    late, _ = pmap(work, [True, False], backend="threads", workers=2, timeout=0.2, on_error="return", chunksize=1)
    assert isinstance(late, anymap.ItemTimeout)
    assert sum(line.startswith("closed") for line in lines(log)) == 1
    free.set()
    until(lambda: sum(line.startswith("closed") for line in lines(log)) == 2)


def test_two_handles_are_two_objects() -> None:
    one, other = per_worker(list), per_worker(list)
    one.get().append(1)
    assert (one.get(), other.get()) == ([1], [])
    anymap.shutdown()
    assert one.get() == []
    assert isinstance(one, PerWorker)


def test_an_error_in_closing_is_logged_and_the_others_are_closed(log: Path, caplog: pytest.LogCaptureFixture) -> None:
    class Broken:
        def close(self) -> None:
            raise OSError("it is broken")

    per_worker(lambda: Connection(log)).get()
    per_worker(Broken).get()
    anymap.shutdown()
    assert "it is broken" in caplog.text
    assert lines(log)[-1].startswith("closed")


@pytest.mark.pathos
def test_a_fork_makes_its_own_and_leaves_its_parents_alone(log: Path) -> None:
    connection = per_worker(lambda: Connection(log))
    mine = connection.get().place
    (theirs,) = pmap(lambda _: connection.get().place, [0], backend="pathos", workers=1)
    assert theirs != mine
    assert not [line for line in lines(log) if line == f"closed {mine}"]
    assert connection.get().place == mine
    anymap.shutdown()
    assert lines(log)[-1] == f"closed {mine}"


# --- worker_index ---------------------------------------------------------------------------------------------------


def test_workers_that_run_at_once_have_different_indices_and_keep_them(backend: Backend, tmp_path: Path) -> None:
    count = 1 if backend.traits.inline else 2

    # A process may have several threads which take turns: dask begins another where one was stuck.
    who = threading.get_ident if backend.traits.shares_memory else os.getpid

    def work(item: int) -> tuple[int, int]:
        index = worker_index()
        if item < count:
            meet(tmp_path, item, count)
        return index, who()

    worked = pmap(work, range(10), backend=backend, workers=count, chunksize=1)
    assert sorted(index for index, _ in worked[:count]) == list(range(count))
    assert len(set(worked)) == count


def test_the_index_is_that_of_the_innermost_map() -> None:
    def inside(_: int) -> tuple[int, list[int]]:
        return worker_index(), pmap(lambda _: worker_index(), [0], backend="threads", workers=1)

    assert {index for _, (index,) in pmap(inside, range(4), backend="threads", workers=2)} == {0}
    assert {index for index, _ in pmap(inside, range(4), backend="serial")} == {0}
    assert worker_index() == 0


@pytest.mark.processes
def test_one_that_takes_a_dead_ones_place_takes_its_index(tmp_path: Path) -> None:
    def work(item: int) -> int:
        index = worker_index()
        if not (tmp_path / f"died-{item}").exists():
            (tmp_path / f"died-{item}").touch()
            os._exit(1)
        return index

    indices = pmap(work, range(4), backend="processes", workers=2, chunksize=1, retries=1)
    assert set(indices) <= {0, 1}


@pytest.mark.processes
def test_a_small_map_on_a_large_pool_has_small_indices(tmp_path: Path) -> None:
    def all_at_once(item: int) -> int:
        meet(tmp_path, item, 4)
        return worker_index()

    assert sorted(pmap(all_at_once, range(4), backend="processes", workers=4, chunksize=1)) == [0, 1, 2, 3]
    assert set(pmap(lambda _: worker_index(), range(30), backend="processes", workers=2, chunksize=1)) <= {0, 1}


@pytest.mark.threads
def test_one_that_takes_the_place_of_one_that_is_stuck_takes_its_index() -> None:
    free = threading.Event()

    def work(item: int) -> int:
        index = worker_index()
        if not item:
            free.wait(LONG)
        return index

    late, *indices = pmap(work, range(5), backend="threads", workers=1, timeout=0.2, on_error="return", chunksize=1)
    free.set()
    assert isinstance(late, anymap.ItemTimeout)
    assert indices == [0] * 4


@pytest.mark.processes
def test_where_nobody_can_tell_the_workers_apart_it_says_so() -> None:
    with pytest.raises(UnsupportedOption, match="worker_index"):
        pmap(lambda _: worker_index(), [0], backend=Far(), workers=1)


def test_a_number_is_ones_own_or_free_or_of_one_who_rests() -> None:
    a, b, c = Owner(1, 1, 5.0), Owner(2, 1, 0.0), Owner(3, 1, 4.0)

    def alive(_: Owner) -> bool:
        return True

    assert choose([a, b, None], 2, 1, alive) == 1
    assert choose([a, None, b], 4, 1, alive) == 1
    assert choose([a, c, None], 4, 1, lambda owner: owner.pid != 3) == 1
    assert choose([a, c, b], 4, 1, alive) == 2
    # All run, so one of them was given up: the one that has run the longest.
    assert choose([a, c], 4, 1, alive) == 1


def test_workers_of_a_cluster_keep_their_numbers_while_others_come_and_go() -> None:
    table = assign({}, {"a": 2, "b": 1, "c": 2})
    assert table == {"a": (0, 2), "b": (2, 1), "c": (3, 2)}
    table = assign(table, {"a": 2, "c": 2, "d": 2, "e": 1})
    assert table == {"a": (0, 2), "c": (3, 2), "d": (5, 2), "e": (2, 1)}
