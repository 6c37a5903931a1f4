"""What a map costs, in counts that no busy machine can change: messages, bytes, pickles, modules, threads."""

from __future__ import annotations

import os
import subprocess
import sys
import tempfile
import threading
from collections import Counter
from typing import TYPE_CHECKING, Any

import pytest

from anymap import pmap
from anymap._engine import run, sizing
from anymap._host import framing

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from anymap.backends.base import Backend

pytestmark = pytest.mark.full


class Shipped:
    """A function that counts how often it is pickled here, and leaves a file wherever it is loaded."""

    def __init__(self, folder: Path) -> None:
        self.folder = str(folder)
        self.pickled = 0

    def __call__(self, x: int) -> int:
        return x

    def __reduce__(self) -> tuple[Any, ...]:
        self.pickled += 1
        return loaded, (self.folder,)


def loaded(folder: str) -> Callable[[int], int]:
    os.close(tempfile.mkstemp(prefix=f"{os.getpid()}-", dir=folder)[0])
    return abs


class Wire:
    """Counts what goes through the pipes to the workers."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.sent: list[int] = []
        self.received: list[int] = []
        self.writes = 0
        send, receive, write = framing.send, framing.receive, os.write

        def counted_send(fd: int, data: bytes) -> None:
            self.sent.append(len(data))
            send(fd, data)

        def counted_receive(fd: int) -> bytearray | None:
            data = receive(fd)
            self.received.append(len(data or b""))
            return data

        def counted_write(fd: int, data: bytes) -> int:
            self.writes += 1
            return write(fd, data)

        monkeypatch.setattr(framing, "send", counted_send)
        monkeypatch.setattr(framing, "receive", counted_receive)
        monkeypatch.setattr(framing.os, "write", counted_write)


@pytest.fixture
def wires(monkeypatch: pytest.MonkeyPatch) -> Wire:
    """Give the counts of the default backend, whose two workers are there already."""
    both_at_work(2)
    return Wire(monkeypatch)


def both_at_work(workers: int) -> None:
    with tempfile.TemporaryDirectory() as folder:

        def meet(x: int) -> None:
            open(f"{folder}/{x}", "w").close()
            while len(os.listdir(folder)) < workers:
                pass

        pmap(meet, range(workers), workers=workers, chunksize=1)


def in_a_fresh_interpreter(program: str) -> list[str]:
    ran = subprocess.run([sys.executable, "-c", program], stdout=subprocess.PIPE, text=True, check=True)
    return ran.stdout.split()


# --- pickles and bytes ------------------------------------------------------------------------------------------------


def test_a_function_is_pickled_once_a_map_and_loaded_once_a_worker(backend: Backend, tmp_path: Path) -> None:
    func = Shipped(tmp_path)
    assert pmap(func, range(40), backend=backend, workers=2, chunksize=2) == list(range(40))
    copies = 0 if backend.traits.shares_memory else 1
    assert func.pickled == copies
    loads = Counter(name.partition("-")[0] for name in os.listdir(tmp_path))
    assert set(loads.values()) <= {copies}
    assert bool(loads) == bool(copies)


def test_a_plain_number_takes_the_bytes_of_its_pickle_and_a_chunk_little_more(wires: Wire) -> None:
    numbers = list(range(1000, 21_000))  # three bytes each in a pickle
    assert pmap(abs, numbers, workers=2, chunksize=1000) == numbers
    chunks_sent = 20
    assert sum(wires.sent) < 3.1 * len(numbers) + 1500 * chunks_sent
    assert sum(wires.received) < 3.1 * len(numbers) + 500 * chunks_sent


def test_a_range_is_sent_as_ranges(wires: Wire) -> None:
    numbers = range(1000, 21_000)
    assert pmap(abs, numbers, workers=2, chunksize=1000) == list(numbers)
    assert sum(wires.sent) < 1500 * 20


def test_a_large_array_does_not_pass_through_the_pipe(wires: Wire) -> None:
    numpy = pytest.importorskip("numpy")
    assert pmap(numpy.sum, [numpy.ones(1_000_000)] * 2, workers=2, chunksize=1) == [1e6, 1e6]
    assert max(wires.sent) < 2000


# --- messages ---------------------------------------------------------------------------------------------------------


def test_a_chunk_is_one_message_and_one_write_each_way(wires: Wire) -> None:
    pmap(abs, range(100), workers=2, chunksize=10)
    assert len(wires.sent) == len(wires.received) == 10
    assert wires.writes == 10


def test_a_small_map_on_warm_workers_starts_no_thread_and_no_process(
    wires: Wire, monkeypatch: pytest.MonkeyPatch
) -> None:
    # However long it takes on a busy machine, it is a small one.
    monkeypatch.setattr(run, "_SMALL_MAP", 60.0)
    started: list[object] = []

    def note(*what: object, **_: object) -> None:
        started.append(what)

    monkeypatch.setattr(threading.Thread, "start", note)
    monkeypatch.setattr(subprocess, "Popen", note)
    assert pmap(abs, range(20), workers=2) == list(range(20))
    assert wires.sent
    assert not started


# --- chunks -----------------------------------------------------------------------------------------------------------


def chunks_for(items: int, seconds: float, overhead: float) -> int:
    """Count the chunks of a map whose items take so long, and each chunk so much more, on two workers."""
    rate, left, count = sizing.RateEstimate(), items, 0
    while left:
        size = min(sizing.chunksize(rate, sizing.ALL_SOON, 2, left), left)
        rate.note(size, size * seconds, seconds, size * seconds + overhead)
        left -= size
        count += 1
    return count


@pytest.mark.parametrize(
    ("seconds", "overhead", "at_most"),
    [(1e-7, 1e-4, 25), (1e-7, 5e-3, 25), (1e-4, 1e-4, 600), (1e-2, 1e-4, 100_000)],
    ids=["a pipe", "a cluster", "items as long as a message", "items far longer than a message"],
)
def test_many_items_are_few_chunks(seconds: float, overhead: float, at_most: int) -> None:
    assert at_most / 5 < chunks_for(100_000, seconds, overhead) <= at_most


def test_100_000_calls_that_take_no_time_are_few_messages(wires: Wire) -> None:
    pmap(abs, range(100_000), workers=2)
    # Some 30 as a rule; were a worker held up at each of them, still far from one an item.
    assert len(wires.sent) < 1000


# --- modules ----------------------------------------------------------------------------------------------------------

NAMES = "import sys; print(*sys.modules)"
IN_A_WORKER = "from anymap import pmap; import sys; print(*pmap(lambda _: ' '.join(sys.modules), [0])[0].split())"


def test_importing_loads_next_to_nothing() -> None:
    bare = set(in_a_fresh_interpreter(NAMES))
    loaded_too = set(in_a_fresh_interpreter(f"import anymap; {NAMES}")) - bare
    assert len(loaded_too) <= 30
    assert not loaded_too & {"dataclasses", "inspect", "logging", "pickle", "threading"}


def test_a_worker_loads_little_before_its_first_item_and_no_third_party_but_cloudpickle() -> None:
    bare = set(in_a_fresh_interpreter(NAMES))
    loaded_too = set(in_a_fresh_interpreter(IN_A_WORKER)) - bare
    others = {name.partition(".")[0] for name in loaded_too} - sys.stdlib_module_names - {"anymap"}
    assert others == {"cloudpickle"}
    assert len(loaded_too) <= 118
    assert not loaded_too & {"asyncio", "multiprocessing", "pathlib", "shutil", "socket", "subprocess", "tempfile"}
