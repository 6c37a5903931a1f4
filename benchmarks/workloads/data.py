"""Items, results and functions that are large."""

from __future__ import annotations

from contextlib import contextmanager
from dataclasses import replace
from functools import partial
from typing import TYPE_CHECKING, Any

from benchmarks import peers, work
from benchmarks.workload import Contender, Job, Params, Workload, everybody

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from benchmarks.workload import Function, Run

MB = 1_000_000


def _throughput(params: Params, seconds: float) -> str:
    return f"{params.items * params.nbytes / MB / seconds:,.0f} MB/s"


def _arrays(params: Params) -> list[Any]:
    return [work.filled(params.nbytes // 8, number) for number in range(params.items)]


def _warm_up(params: Params) -> list[tuple[Any, Any]]:
    # Others than those that count: joblib sends an array that it knows only once.
    return [everybody(params.workers), (work.total, [work.filled(params.nbytes // 8, 0) for _ in range(8)])]


def _with_numpy(params: Params) -> list[tuple[Any, Any]]:
    """Have all workers import numpy, too, which takes longer than many a map: forks have it from their parent."""
    import numpy as np

    return [everybody(params.workers), (work.size, [np.zeros(1) for _ in range(8)])]


def _contenders(*, into: bool) -> list[Contender]:
    return [
        Contender("anymap", peers.anymap(backend="processes"), "anymap"),
        Contender("anymap, threads", peers.anymap(backend="threads"), "reference"),
        Contender("serial", peers.serial, "reference"),
        Contender("Pool.imap", peers.pool_imap),
        Contender("ProcessPoolExecutor.map", peers.process_executor),
        Contender("joblib, memory-mapped", peers.joblib()),
        Contender("joblib, all at once", peers.joblib(pre_dispatch="all", batch_size=1)),
        Contender("joblib, not memory-mapped", peers.joblib(max_nbytes=None)),
        Contender("mpire map, chunks of 1", peers.mpire_map),
        Contender("loky map", peers.loky),
        Contender("pebble", peers.pebble),
        Contender("pathos imap", peers.pathos_imap),
        Contender("Pool.imap, SharedMemory", shared_in if into else shared_out, "by hand"),
        Contender("p_tqdm", peers.p_tqdm, "untuned"),
    ]


@contextmanager
def shared_in(job: Job) -> Iterator[Run]:
    """What it takes to send arrays by shared memory, with the standard library and no more."""
    from multiprocessing import Pool
    from multiprocessing.shared_memory import SharedMemory

    def copied(array: Any) -> tuple[str, int]:
        memory = SharedMemory(create=True, size=array.nbytes)
        _view(memory, array.size)[:] = array
        memory.close()
        return memory.name, array.size

    with Pool(job.workers) as pool:
        yield lambda func, items: list(pool.imap(partial(_on_shared, func), map(copied, items)))


@contextmanager
def shared_out(job: Job) -> Iterator[Run]:
    from multiprocessing import Pool

    with Pool(job.workers) as pool:
        yield lambda func, items: [_taken(*shared) for shared in pool.imap(partial(_into_shared, func), items)]


def _view(memory: Any, size: int) -> Any:
    import numpy as np

    return np.frombuffer(memory.buf, count=size)


def _on_shared(func: Function, shared: tuple[str, int]) -> Any:
    from multiprocessing.shared_memory import SharedMemory

    memory = SharedMemory(shared[0])
    view = _view(memory, shared[1])
    answer = func(view)
    del view
    memory.close()
    memory.unlink()
    return answer


def _into_shared(func: Function, item: Any) -> tuple[str, int]:
    from multiprocessing.shared_memory import SharedMemory

    array = func(item)
    memory = SharedMemory(create=True, size=array.nbytes)
    _view(memory, array.size)[:] = array
    memory.close()
    return memory.name, array.size


def _taken(name: str, size: int) -> Any:
    from multiprocessing.shared_memory import SharedMemory

    memory = SharedMemory(name)
    view = _view(memory, size)
    array = view.copy()
    del view
    memory.close()
    memory.unlink()
    return array


ARRAYS = {"items": 64, "nbytes": 8 * MB, "workers": 2}

ARRAYS_IN = Workload(
    name="arrays-in",
    title="64 arrays of 8 MB to the workers, which add them up",
    job=lambda params: Job(work.total, _arrays(params), params.workers, warm_up=_warm_up(params)),
    check=lambda params, sums: sums == [float(number * (params.nbytes // 8)) for number in range(params.items)],
    params=ARRAYS,
    quick={"items": 8},
    ideal=lambda _, medians: medians["serial"],
    show=_throughput,
    target="1,500 MB/s, peak memory below every peer",
    note="Ideal: a loop that adds them up where they are.",
    warm_up=8,
    memory=True,
    contenders=_contenders(into=True),
)

ARRAYS_OUT = Workload(
    name="arrays-out",
    title="64 arrays of 8 MB back from the workers",
    job=lambda params: Job(partial(work.filled, params.nbytes // 8), range(params.items), params.workers),
    check=lambda params, arrays: (
        [array[-1] for array in arrays] == list(range(params.items))
        and {array.nbytes for array in arrays} == {params.nbytes}
    ),
    params=ARRAYS,
    quick={"items": 8},
    ideal=lambda _, medians: medians["serial"],
    show=_throughput,
    target="1,500 MB/s, peak memory below every peer",
    note="Ideal: a loop that makes them where they are wanted.",
    warm_up=8,
    memory=True,
    contenders=_contenders(into=False),
)


def _with_table(params: Params) -> Job:
    import numpy as np

    return _closing_over(np.arange(params.nbytes // 8), params, _with_numpy(params))


def _with_bytes(params: Params) -> Job:
    return _closing_over(bytes(params.nbytes), params, [everybody(params.workers)])


def _closing_over(table: Sequence[int], params: Params, warm_up: list[tuple[Any, Any]]) -> Job:
    turns = int(params.ms / 1000 * params.turns_per_second)
    length = len(table)

    def closure(x: int) -> int:
        return work.look_up(table, turns, x % length)

    plain = partial(_look_up_within, table, turns, length)
    # Workers may be warm, but must not know the function.
    return Job(closure, range(params.items), params.workers, plain, warm_up=warm_up)


def _look_up_within(table: Any, turns: int, length: int, x: int) -> int:
    return work.look_up(table, turns, x % length)


@contextmanager
def inherited(job: Job) -> Iterator[Run]:
    """Not sent at all: a pool that is forked when the object is there, for this map alone."""
    import multiprocessing

    def run(func: Function, items: Sequence[Any]) -> list[Any]:
        with multiprocessing.get_context("fork").Pool(job.workers, _hold, (func,)) as pool:
            return pool.map(_held, items, chunksize=job.chunksize)

    yield run


_function: list[Any] = []


def _hold(func: Function) -> None:
    _function[:] = [func]


def _held(item: Any) -> Any:
    return _function[0](item)


_CLOSURE_CONTENDERS = [
    Contender("anymap", peers.anymap(backend="processes"), "anymap"),
    Contender("serial", peers.serial, "reference"),
    Contender("Pool, inherited", inherited, "by hand", chunksize=100),
    Contender("Pool.map, chunks of 500", peers.pool_map, chunksize=500, plain=True),
    Contender("ProcessPoolExecutor.map, chunks of 500", peers.process_executor, chunksize=500, plain=True),
    Contender("mpire map, new forks, chunks of 50", peers.mpire_forked, chunksize=50),
    Contender("mpire map, chunks of 50", peers.mpire_map, chunksize=50, plain=True),
    Contender("joblib, batches of 500", peers.joblib(), chunksize=500),
    Contender("loky map, chunks of 500", peers.loky, chunksize=500),
    Contender("pebble, chunks of 500", peers.pebble, chunksize=500, plain=True),
    Contender("pathos map, chunks of 500", peers.pathos_map, chunksize=500),
    Contender("parmap, chunks of 500", peers.parmap, chunksize=500, plain=True),
    Contender("Pool.map", peers.pool_map_default, "untuned", plain=True),
    Contender("joblib", peers.joblib(), "untuned"),
    Contender("p_tqdm", peers.p_tqdm, "untuned"),
    Contender("pqdm", peers.pqdm_processes, "untuned", plain=True),
]

CLOSURE = Workload(
    name="closure",
    title="A closure over an array of 64 MB, called 1,000 times for 0.2 ms, 2 workers",
    job=_with_table,
    check=lambda params, answer: answer == [x % (params.nbytes // 8) for x in range(params.items)],
    params={"items": 1_000, "nbytes": 64 * MB, "ms": 0.2, "workers": 2},
    quick={"nbytes": 8 * MB, "items": 100},
    ideal=lambda params, medians: medians["serial"] / params.workers,
    target="2.0 x ideal",
    note="Ideal: half of what a loop takes. The workers are warm, but do not know the function; where it cannot be sent as "
    "a closure it is a partial. Those that inherit it fork anew for the map, as it is the fork that hands it over.",
    memory=True,
    patience=30,
    contenders=_CLOSURE_CONTENDERS,
)

CLOSURE_BYTES = replace(
    CLOSURE,
    name="closure-bytes",
    title="The same over 64 MB of `bytes`",
    job=_with_bytes,
    check=lambda params, answer: answer == [0] * params.items,
    patience=15,
    note="As above, with something that nobody knows how to map into memory but by its bytes.",
)


def _payloads(params: Params) -> Job:
    import numpy as np

    array = np.zeros(params.nbytes, np.uint8)
    # A view is an object of its own: nobody may send the same array once for all.
    arrays = [array[:] for _ in range(_count(params))]
    return Job(work.size, arrays, params.workers, warm_up=_with_numpy(params))


def _count(params: Params) -> int:
    return int(max(1, min(params.items, params.most // params.nbytes)))


PAYLOAD = Workload(
    name="payload",
    title="Items of growing size",
    job=_payloads,
    check=lambda params, answer: answer == [params.nbytes] * _count(params),
    params={"items": 1_000, "nbytes": 1, "most": 1_000 * MB, "workers": 2},
    quick={"items": 100, "most": 100 * MB},
    show=lambda params, seconds: f"{1e6 * seconds / _count(params):.3g} us an item",
    warm_up=1,
    hidden=True,
    contenders=[
        Contender("anymap", peers.anymap(backend="processes"), "anymap"),
        Contender("Pool.imap", peers.pool_imap),
        Contender("joblib", peers.joblib()),
        Contender("mpire map, chunks of 1", peers.mpire_map),
    ],
)

WORKLOADS = (ARRAYS_IN, ARRAYS_OUT, CLOSURE, CLOSURE_BYTES, PAYLOAD)
