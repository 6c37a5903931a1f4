"""How each library does a map, in the way that its documentation calls the best for it.

Each is a context manager that is given a job and gives the function that does it. Workers that a library can keep are
started before, and a library is imported only by who uses it.
"""

from __future__ import annotations

from contextlib import contextmanager
from functools import partial
from itertools import chain
from typing import TYPE_CHECKING, Any

from benchmarks import work

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from benchmarks.workload import Function, How, Job, Run


def anymap(**options: Any) -> How:
    """As a user calls it: nothing tuned, the bar on."""

    @contextmanager
    def how(job: Job) -> Iterator[Run]:
        from anymap import pmap, shutdown

        yield lambda func, items: pmap(func, items, workers=job.workers, **{"progress": True, **options})
        shutdown()

    return how


def anymap_on_a_terminal(**options: Any) -> How:
    """As it is left alone on a terminal: a bar once the map has lasted half a second."""

    @contextmanager
    def how(job: Job) -> Iterator[Run]:
        from anymap.progress import BarSink

        with anymap(progress=BarSink(delay=0.5), **options)(job) as run:
            yield run

    return how


@contextmanager
def serial(_: Job) -> Iterator[Run]:
    yield lambda func, items: [func(item) for item in items]


@contextmanager
def pipes(job: Job) -> Iterator[Run]:
    """The raw primitive: a forked process at the other end of a pipe, for each worker, and an even share for each."""
    import multiprocessing

    context = multiprocessing.get_context("fork")
    ours: list[Any] = []
    for _ in range(job.workers):
        end, theirs = context.Pipe()
        context.Process(target=_serve, args=(theirs, [*ours, end]), daemon=True).start()
        ours.append(end)

    def run(func: Function, items: Sequence[Any]) -> list[Any]:
        share = -(-len(items) // len(ours))
        for number, end in enumerate(ours):
            end.send((func, items[number * share : (number + 1) * share]))
        return list(chain.from_iterable(end.recv() for end in ours))

    yield run
    for end in ours:
        end.close()


def _serve(end: Any, inherited: list[Any]) -> None:
    for other in inherited:
        other.close()
    while True:
        try:
            func, items = end.recv()
        except EOFError:
            return
        end.send([func(item) for item in items])


def _pool(kind: str, method: str, *, sized: bool = True) -> How:
    @contextmanager
    def how(job: Job) -> Iterator[Run]:
        import multiprocessing.pool

        size = {"chunksize": job.chunksize} if sized else {}
        make = multiprocessing.Pool if kind == "processes" else multiprocessing.pool.ThreadPool
        with make(job.workers) as pool:
            yield lambda func, items: list(getattr(pool, method)(func, items, **size))

    return how


pool_map = _pool("processes", "map")
pool_map_default = _pool("processes", "map", sized=False)
pool_imap = _pool("processes", "imap")
pool_imap_unordered = _pool("processes", "imap_unordered")
thread_pool_map = _pool("threads", "map")
thread_pool_map_default = _pool("threads", "map", sized=False)
thread_pool_imap = _pool("threads", "imap")
thread_pool_imap_unordered = _pool("threads", "imap_unordered")


@contextmanager
def process_executor(job: Job) -> Iterator[Run]:
    from concurrent.futures import ProcessPoolExecutor

    with ProcessPoolExecutor(job.workers) as executor:
        yield lambda func, items: list(executor.map(func, items, chunksize=job.chunksize))


@contextmanager
def thread_executor(job: Job) -> Iterator[Run]:
    """Whose ``chunksize`` does nothing, so the chunks are made by hand."""
    from concurrent.futures import ThreadPoolExecutor

    with ThreadPoolExecutor(job.workers) as executor:

        def run(func: Function, items: Sequence[Any]) -> list[Any]:
            return list(chain.from_iterable(executor.map(partial(work.each, func), chunks(items, job.chunksize))))

        yield run


@contextmanager
def loky(job: Job) -> Iterator[Run]:
    from joblib.externals.loky import get_reusable_executor

    executor = get_reusable_executor(max_workers=job.workers, timeout=600)
    yield lambda func, items: list(executor.map(func, items, chunksize=job.chunksize))
    executor.shutdown()


@contextmanager
def process_map(job: Job) -> Iterator[Run]:
    from tqdm.contrib.concurrent import process_map

    yield lambda func, items: process_map(func, items, max_workers=job.workers, chunksize=job.chunksize)


@contextmanager
def thread_map(job: Job) -> Iterator[Run]:
    from tqdm.contrib.concurrent import thread_map

    yield lambda func, items: thread_map(func, items, max_workers=job.workers)


@contextmanager
def p_tqdm(job: Job) -> Iterator[Run]:
    from p_tqdm import p_map

    yield lambda func, items: p_map(func, items, num_cpus=job.workers)


def _pqdm(kind: str) -> How:
    @contextmanager
    def how(job: Job) -> Iterator[Run]:
        import importlib

        pqdm = importlib.import_module(f"pqdm.{kind}").pqdm
        yield lambda func, items: pqdm(items, func, n_jobs=job.workers)

    return how


pqdm_processes = _pqdm("processes")
pqdm_threads = _pqdm("threads")


def _mpire(method: str, *, sized: bool = True, bar: bool = False, keep: bool = True) -> How:
    @contextmanager
    def how(job: Job) -> Iterator[Run]:
        from mpire import WorkerPool

        size = {"chunk_size": job.chunksize} if sized else {}
        with WorkerPool(job.workers, keep_alive=keep) as pool:
            options = {"progress_bar": bar, **size, **({"concatenate_numpy_output": False} if method == "map" else {})}
            yield lambda func, items: list(getattr(pool, method)(func, items, **options))

    return how


mpire_map = _mpire("map")
mpire_unordered = _mpire("map_unordered")
mpire_forked = _mpire("map", keep=False)
mpire_default = _mpire("map", sized=False, bar=True)


@contextmanager
def parmap(job: Job) -> Iterator[Run]:
    import multiprocessing

    import parmap

    with multiprocessing.Pool(job.workers) as pool:
        yield lambda func, items: parmap.map(func, items, pm_pool=pool, pm_chunksize=job.chunksize, pm_pbar=False)


@contextmanager
def parmap_default(job: Job) -> Iterator[Run]:
    import parmap

    yield lambda func, items: parmap.map(func, items, pm_processes=job.workers, pm_pbar=True)


def joblib(**options: Any) -> How:
    """Give joblib one delayed call for each item; with ``batch_size`` as the chunk size unless it is 1."""

    @contextmanager
    def how(job: Job) -> Iterator[Run]:
        from joblib import Parallel, delayed

        size = {"batch_size": job.chunksize, "pre_dispatch": "all"} if job.chunksize > 1 else {}
        with Parallel(job.workers, **{**size, **options}) as parallel:
            yield lambda func, items: parallel(delayed(func)(item) for item in items)

    return how


def joblib_by_hand(**options: Any) -> How:
    """Give joblib one delayed call for each chunk."""

    @contextmanager
    def how(job: Job) -> Iterator[Run]:
        from joblib import Parallel, delayed

        with Parallel(job.workers, batch_size=1, pre_dispatch="all", **options) as parallel:

            def run(func: Function, items: Sequence[Any]) -> list[Any]:
                calls = (delayed(work.each)(func, chunk) for chunk in chunks(items, job.chunksize))
                return list(chain.from_iterable(parallel(calls)))

            yield run

    return how


@contextmanager
def pebble(job: Job) -> Iterator[Run]:
    from pebble import ProcessPool

    with ProcessPool(max_workers=job.workers) as pool:
        yield lambda func, items: list(pool.map(func, items, chunksize=job.chunksize).result())


def _pathos(method: str) -> How:
    @contextmanager
    def how(job: Job) -> Iterator[Run]:
        from pathos.pools import ProcessPool

        pool = ProcessPool(nodes=job.workers)
        yield lambda func, items: list(getattr(pool, method)(func, items, chunksize=job.chunksize))
        pool.terminate()
        pool.clear()

    return how


pathos_map = _pathos("map")
pathos_imap = _pathos("imap")
pathos_uimap = _pathos("uimap")


def chunks(items: Sequence[Any], size: int) -> list[Sequence[Any]]:
    return [items[begin : begin + size] for begin in range(0, len(items), size)]
