"""Inputs that are too long to be held: an iterator goes in, an iterator comes out."""

from __future__ import annotations

import itertools
import time
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

from benchmarks import work
from benchmarks.workload import Contender, Job, Measured, Workload, rate

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator, Sequence

    from benchmarks.workload import Function, How, Run

    Start = Callable[[Job], Iterator["Imap"]]
    """Gives, as a context manager's generator, what maps lazily."""
    Imap = Callable[[Function, Iterable[Any]], Iterator[Any]]


# --- ways to map lazily; each is a generator for a context manager, and what follows the yield stops it ---------------


def anymap(job: Job) -> Iterator[Imap]:
    from anymap import pmap

    opened: list[Any] = []
    window = getattr(job.params, "window", None)

    def imap(func: Function, items: Iterable[Any]) -> Iterator[Any]:
        opened.append(pmap(func, items, workers=job.workers, lazy=True, progress=True, window=window))
        return iter(opened[0])

    yield imap
    opened[0].close()


def loop(_: Job) -> Iterator[Imap]:
    yield map


def pool(job: Job) -> Iterator[Imap]:
    import multiprocessing

    with multiprocessing.Pool(job.workers) as made:
        yield lambda func, items: made.imap(func, items, chunksize=job.chunksize)


def thread_pool(job: Job) -> Iterator[Imap]:
    from multiprocessing.pool import ThreadPool

    with ThreadPool(job.workers) as made:
        yield lambda func, items: made.imap(func, items, chunksize=job.chunksize)


def executor(job: Job) -> Iterator[Imap]:
    from concurrent.futures import ProcessPoolExecutor

    with ProcessPoolExecutor(job.workers) as made:
        yield lambda func, items: made.map(func, items, chunksize=job.chunksize)


def mpire(job: Job) -> Iterator[Imap]:
    from mpire import WorkerPool

    opened: list[Any] = []

    def imap(func: Function, items: Iterable[Any]) -> Iterator[Any]:
        opened.append(made.imap(func, items, chunk_size=job.chunksize))
        return iter(opened[0])

    with WorkerPool(job.workers) as made:
        yield imap
        # Its documentation has no other way to stop what is left of an endless input.
        made.terminate()


def joblib(job: Job) -> Iterator[Imap]:
    import warnings

    from joblib import Parallel, delayed

    opened: list[Any] = []

    def imap(func: Function, items: Iterable[Any]) -> Iterator[Any]:
        parallel = Parallel(job.workers, return_as="generator", batch_size=job.chunksize, pre_dispatch=4 * job.workers)
        opened.append(parallel(map(delayed(func), items)))
        return iter(opened[0])

    yield imap
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        opened[0].close()


def pathos(job: Job) -> Iterator[Imap]:
    from pathos.pools import ProcessPool

    made = ProcessPool(nodes=job.workers)
    yield lambda func, items: made.imap(func, items, chunksize=job.chunksize)
    made.terminate()
    made.clear()


def pebble(job: Job) -> Iterator[Imap]:
    from pebble import ProcessPool

    with ProcessPool(max_workers=job.workers) as made:
        yield lambda func, items: made.map(func, items, chunksize=job.chunksize).result()
        made.stop()


def p_tqdm(job: Job) -> Iterator[Imap]:
    from p_tqdm import p_imap
    from pathos.pools import ProcessPool

    yield lambda func, items: p_imap(func, items, num_cpus=job.workers)
    # It leaves its pool running; one of the same size is that pool.
    left = ProcessPool(nodes=job.workers)
    left.terminate()
    left.clear()


# --- a long stream ----------------------------------------------------------------------------------------------------


def _lines(items: Sequence[int]) -> Iterator[str]:
    return (f"{x},{x + 1},{x + 2}" for x in items)


def _streamed(start: Start) -> How:
    """Have everything from ``start`` add up the results of a stream of lines."""

    @contextmanager
    def how(job: Job) -> Iterator[Run]:
        def run(func: Function, items: Sequence[int]) -> int:
            with contextmanager(start)(job) as imap:
                return sum(imap(func, _lines(items)))

        yield run

    return how


def _kept(start: Start) -> How:
    """Do the same with workers that serve all rounds."""

    @contextmanager
    def how(job: Job) -> Iterator[Run]:
        with contextmanager(start)(job) as imap:
            yield lambda func, items: sum(imap(func, _lines(items)))

    return how


STREAM = Workload(
    name="stream",
    title="A stream of 1,000,000 lines, each read into numbers that are added up, 2 workers",
    job=lambda params: Job(work.fields, range(params.items), params.workers, params=params),
    check=lambda params, answer: answer == sum(3 * x + 3 for x in range(params.items)),
    params={"items": 1_000_000, "workers": 2},
    quick={"items": 20_000},
    ideal=lambda params, medians: medians["serial"] / params.workers,
    show=rate("items"),
    warm_up=50_000,
    target="level with the best, memory flat",
    note="The lines come from a generator and the sum is made as results come. Ideal: half of what a loop takes; the "
    "lines must be made and added up in one thread, so nobody gets there.",
    memory=True,
    contenders=[
        Contender("anymap", _streamed(anymap), "anymap"),
        Contender("serial", _kept(loop), "reference"),
        Contender("Pool.imap, chunks of 5,000", _kept(pool), chunksize=5_000),
        Contender("ProcessPoolExecutor.map, chunks of 5,000", _kept(executor), chunksize=5_000),
        Contender("mpire imap, chunks of 1,000", _streamed(mpire), chunksize=1_000),
        Contender("joblib generator, batches of 1,000", _streamed(joblib), chunksize=1_000),
        Contender("pathos imap, chunks of 5,000", _kept(pathos), chunksize=5_000),
        Contender("pebble, chunks of 5,000", _kept(pebble), chunksize=5_000),
        Contender("ThreadPool.imap, chunks of 1,000", _kept(thread_pool), chunksize=1_000),
        Contender("p_tqdm p_imap", _streamed(p_tqdm), "untuned"),
    ],
)


# --- an endless input -------------------------------------------------------------------------------------------------


class Counting:
    """0, 1, 2 and so on, without an end, knowing how far it was read."""

    def __init__(self) -> None:
        self.read = 0

    def __iter__(self) -> Iterator[int]:
        for x in itertools.count():
            self.read += 1
            yield x


def _left(start: Start) -> How:
    """Have everything from ``start`` map an endless input, take so many results, and stop."""

    @contextmanager
    def how(job: Job) -> Iterator[Run]:
        def run(func: Function, items: Sequence[Any]) -> Measured:
            source = Counting()
            with contextmanager(start)(job) as imap:
                began = time.perf_counter()
                taken = list(itertools.islice(imap(func, source), len(items)))
                stopped = time.perf_counter()
            seconds = time.perf_counter() - stopped
            took = 1000 * (stopped - began)
            return Measured(taken, seconds, {"inputs too many": source.read - len(items), "ms until then": took})

        yield run

    return how


ENDLESS = Workload(
    name="endless",
    title="An endless input: take 1,000 results of 1 ms each and stop, 2 workers",
    job=lambda params: Job(_wait_and_square, range(params.items), params.workers, params=params),
    check=lambda params, answer: answer == [x * x for x in range(params.items)],
    params={"items": 1_000, "workers": 2},
    quick={"items": 100},
    show=lambda _, seconds: f"{1000 * seconds:.1f} ms to stop",
    target="no more inputs than the window, 50 ms",
    note="The time is that from the last result that is wanted until workers are free or gone and the input is let "
    "alone. Where nothing else stops a library its pool is terminated.",
    patience=10,
    contenders=[
        Contender("anymap", _left(anymap), "anymap"),
        Contender("Pool.imap, chunks of 10", _left(pool), chunksize=10),
        Contender("mpire imap, chunks of 4", _left(mpire), chunksize=4),
        Contender("joblib generator, batches of 10", _left(joblib), chunksize=10),
        Contender("pathos imap, chunks of 10", _left(pathos), chunksize=10),
        Contender("ProcessPoolExecutor.map, chunks of 10", _left(executor), chunksize=10),
        Contender("pebble, chunks of 10", _left(pebble), chunksize=10),
        Contender("p_tqdm p_imap", _left(p_tqdm), "untuned"),
    ],
)


def _wait_and_square(x: int) -> int:
    work.sleep(0.001)
    return x * x


WORKLOADS = (STREAM, ENDLESS)
