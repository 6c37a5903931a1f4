from __future__ import annotations

import gc
import os
import pickle
import subprocess
import sys
import threading
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest

import anymap
from anymap import AnymapError, NotPicklable, Shared, pmap, share
from anymap.backends import Processes, Threads, Traits
from tests.conftest import own_files

if TYPE_CHECKING:
    from collections.abc import Iterator

    from anymap.backends.base import Backend

ITEMS = 50_000
"""Of an array that is too large to go with a token."""


class Counted:
    """Writes into a file who packs it, and who loads it."""

    def __init__(self, log: Path) -> None:
        self.log = log

    def __reduce__(self) -> tuple[Any, ...]:
        note(self.log, f"packed {os.getpid()}")
        return loaded, (self.log, bytes(100_000))


def loaded(log: Path, _: bytes) -> Counted:
    note(log, f"loaded {os.getpid()}")
    return Counted(log)


def note(log: Path, line: str) -> None:
    with log.open("a") as file:
        file.write(f"{line}\n")


class Box:
    """Workers cannot import it."""


class Far(Processes):
    """Workers that could be anywhere, on an engine that carries nothing but tasks."""

    traits = Traits(remote=True)


@contextmanager
def keeping_its_client(backend: Backend) -> Iterator[Backend]:
    """Have the maps of a dask backend share a client: what a client holds goes with it."""
    if backend.name != "dask":
        yield backend
        return
    from distributed import Client

    with Client(scheduler_file=backend._scheduler_file) as client:  # type: ignore[attr-defined]
        yield anymap.backends.Dask(client=client)


def a_file_of(handle: Shared[Any]) -> str:
    assert handle._written is not None
    return str(handle._written.payload.path)


def test_a_handle_serves_many_maps_in_the_function_and_as_an_item(backend: Backend) -> None:
    with share(np.arange(ITEMS)) as table:
        for _ in range(2):
            assert pmap(lambda i: int(table.get()[i]), [3, 5], backend=backend, workers=2) == [3, 5]
        picked = pmap(lambda handle, i: int(handle.get()[i]), [table] * 3, [1, 2, 3], backend=backend, workers=2)
    assert picked == [1, 2, 3]


def test_an_object_is_packed_once_and_loaded_once_by_each_worker(backend: Backend, tmp_path: Path) -> None:
    log = tmp_path / "log"
    log.touch()
    with share(Counted(log)) as handle, keeping_its_client(backend) as kept:
        for _ in range(3):
            pids = set(pmap(lambda _: handle.get() and os.getpid(), range(12), backend=kept, workers=2, chunksize=1))
            assert pmap(lambda one: type(one.get()).__name__, [handle] * 4, backend=kept, workers=2) == ["Counted"] * 4
    lines = log.read_text().splitlines()
    assert len(set(lines)) == len(lines)
    packed = [line for line in lines if line == f"packed {os.getpid()}"]
    # Threads have the object itself, and so have forks.
    copied = os.getpid() not in pids and not backend.traits.forks
    assert len(packed) == copied
    assert len(lines) - len(packed) >= copied


def test_a_class_is_the_same_in_the_function_and_in_what_is_shared(backend: Backend) -> None:
    with share({"box": Box(), "kind": Box}) as handle:
        for _ in range(2):
            back = pmap(lambda _: (handle.get()["box"], isinstance(handle.get()["box"], Box)), [0, 1], backend=backend)
            alone = pmap(lambda one: one.get()["box"], [handle], backend=backend)
            assert {type(box) for box in [*alone, *(box for box, _ in back)]} == {Box}
            assert all(known for _, known in back)


def test_what_is_shared_may_hold_a_handle(backend: Backend) -> None:
    with share(np.ones(ITEMS)) as weights, share({"weights": weights, "name": "n" * 5_000}) as model:
        assert pmap(lambda _: float(model.get()["weights"].get().sum()), [0], backend=backend, workers=1) == [ITEMS]


def test_a_handle_comes_back_as_itself(backend: Backend) -> None:
    with share([1, 2]) as handle:
        assert pmap(lambda one: one, [handle, handle], backend=backend, workers=1) == [handle, handle]


def test_a_closed_handle_says_so(backend: Backend) -> None:
    handle = share([1, 2])
    assert pmap(lambda i: handle.get()[i], [0], backend=backend, workers=1) == [1]
    handle.close()
    handle.close()
    with pytest.raises(AnymapError, match="closed, or collected"):
        pmap(lambda i: handle.get()[i], [0], backend=backend, workers=1)
    with pytest.raises(AnymapError, match="closed, or collected"):
        handle.get()
    assert repr(handle) == "<Shared, closed>"


@pytest.mark.skipif(sys.platform != "linux", reason="asks Linux what is mapped")
@pytest.mark.processes
def test_workers_map_one_file_and_write_to_pages_of_their_own() -> None:
    with share(np.zeros(ITEMS)) as handle:

        def look(i: int) -> tuple[str, float, int]:
            array = handle.get()
            seen = float(array[i])
            array[:] = i + 1
            return what_is_mapped_at(array.ctypes.data), seen, os.getpid()

        looked = pmap(look, range(8), backend="processes", workers=2, chunksize=1)
        path = a_file_of(handle)
        assert {mapped for mapped, _, _ in looked} == {path}
        # The first look of each worker.
        assert {pid: seen for _, seen, pid in reversed(looked)}.keys() == {pid for _, _, pid in looked}
        assert next(seen for _, seen, pid in looked if pid == looked[0][2]) == 0.0
        assert handle.get().sum() == 0.0
        assert np.frombuffer(Path(path).read_bytes()[-ITEMS * 8 :]).sum() == 0.0


def what_is_mapped_at(address: int) -> str:
    for line in Path("/proc/self/maps").read_text().splitlines():
        begin, end = (int(part, 16) for part in line.split()[0].split("-"))
        if begin <= address < end:
            return line.split(maxsplit=5)[5].removesuffix(" (deleted)")
    return ""


@pytest.mark.processes
def test_the_file_goes_with_the_handle_and_is_made_again_after_a_shutdown() -> None:
    handle = share(np.ones(ITEMS))

    def total(one: Any) -> float:
        return float(one.get().sum())

    assert not own_files("*/*")
    assert pmap(total, [handle] * 3, backend="processes", workers=1) == [ITEMS] * 3
    (folder,) = own_files("*/*")
    assert pmap(total, [handle], backend="processes", workers=1) == [ITEMS]
    assert own_files("*/*") == {folder}
    anymap.shutdown()
    assert not own_files("*")
    assert pmap(total, [handle], backend="processes", workers=1) == [ITEMS]
    assert len(own_files("*/*")) == 1
    handle.close()
    assert not own_files("*/*")
    handle = share(np.ones(ITEMS))
    assert pmap(total, [handle], backend="processes", workers=1) == [ITEMS]
    del handle
    gc.collect()
    assert not own_files("*/*")


@pytest.mark.processes
def test_a_worker_lets_go_of_what_was_closed_when_it_begins_another_map() -> None:
    def loaded_now(_: object) -> int:
        return len(sys.modules["anymap._serialize.share"]._loaded)

    with share(np.ones(ITEMS)) as first:
        pmap(lambda _: first.get()[0], [0], backend="processes", workers=1)
        assert pmap(loaded_now, [0], backend="processes", workers=1) == [1]
    assert pmap(loaded_now, [0], backend="processes", workers=1) == [0]


@pytest.mark.processes
def test_only_the_last_few_objects_are_kept_loaded() -> None:
    handles = [share(np.full(ITEMS, i)) for i in range(12)]
    both = [*handles, *handles]
    assert pmap(lambda one: int(one.get()[0]), both, backend="processes", workers=1) == [*range(12), *range(12)]
    (kept,) = pmap(lambda _: len(sys.modules["anymap._serialize.share"]._loaded), [0], backend="processes", workers=1)
    assert kept == 8


@pytest.mark.parametrize("inner", ["serial", "threads", "processes", "pathos"])
@pytest.mark.parametrize("outer", [Processes(), Threads(), Far()], ids=["processes", "threads", "elsewhere"])
def test_a_map_inside_a_worker_can_use_what_is_shared(outer: Backend, inner: str) -> None:
    with share({"array": np.arange(ITEMS)}) as handle:

        def inside(i: int) -> list[int]:
            return pmap(lambda j: int(handle.get()["array"][i + j]), [10, 20], backend=inner, workers=1)

        assert pmap(inside, [1, 2], backend=outer, workers=1) == [[11, 21], [12, 22]]


@pytest.mark.processes
def test_a_map_inside_a_worker_uses_the_file_that_is_there() -> None:
    with share(np.arange(ITEMS)) as handle:

        def inside(_: int) -> list[str]:
            return pmap(lambda _: what_is_mapped_at(handle.get().ctypes.data), [0], backend="processes", workers=1)

        assert pmap(inside, [0], backend="processes", workers=1) == [[a_file_of(handle)]]


@pytest.mark.processes
def test_what_cannot_be_pickled_can_be_shared_where_nothing_is() -> None:
    with share({"lock": [threading.Lock()]}) as handle:
        assert pmap(lambda _: len(handle.get()), [0], backend="threads", workers=1) == [1]
        with pytest.raises(NotPicklable, match=r"shared dict cannot be sent.*because of a lock, at \['lock'\]\[0\]"):
            pmap(lambda _: len(handle.get()), [0], backend="processes", workers=1)
        (error,) = pmap(lambda one: one, [handle], backend="processes", workers=1, on_error="return")
        assert isinstance(error, NotPicklable)


@pytest.mark.processes
def test_an_engine_that_carries_nothing_has_it_by_value() -> None:
    with share(np.arange(ITEMS)) as handle:
        assert pmap(lambda i: int(handle.get()[i]), [3, 5], backend=Far(), workers=1) == [3, 5]
        assert pmap(lambda one: int(one.get()[7]), [handle], backend=Far(), workers=1) == [7]
    assert not own_files("*/*")


def test_a_handle_that_is_pickled_outside_of_a_map_goes_by_value() -> None:
    with share({"a": np.arange(ITEMS)}) as handle:
        data = pickle.dumps(handle)
        assert pickle.loads(data) is handle
    program = "import pickle, sys; print(pickle.load(sys.stdin.buffer).get()['a'].sum())"
    ran = subprocess.run([sys.executable, "-c", program], input=data, stdout=subprocess.PIPE, check=True)
    assert int(ran.stdout) == np.arange(ITEMS).sum()


@pytest.mark.processes
def test_what_a_worker_shares_itself_outlives_it() -> None:
    (handle,) = pmap(lambda _: share(np.arange(ITEMS)), [0], backend="processes", workers=1)
    anymap.shutdown()
    assert handle.get()[-1] == ITEMS - 1


@pytest.mark.dask
@pytest.mark.full
def test_a_cluster_that_has_lost_it_is_sent_it_again(dask_cluster: str) -> None:
    from distributed import Client

    with Client(scheduler_file=dask_cluster) as client, share(np.arange(ITEMS)) as handle:
        backend = anymap.backends.Dask(client=client)
        pick = partial(pmap, lambda i: int(handle.get()[i]), [3, 5], backend=backend)
        assert pick() == [3, 5]
        (first,) = handle.copies.values()
        assert pick() == [3, 5]
        assert list(handle.copies.values()) == [first]
        client.restart()
        assert pick() == [3, 5]
        assert list(handle.copies.values()) != [first]
        handle.close()
        assert not handle.copies
