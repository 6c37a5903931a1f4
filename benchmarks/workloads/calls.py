"""Many calls of a function that takes no time: what is left is the cost of the map."""

from __future__ import annotations

from contextlib import contextmanager
from typing import TYPE_CHECKING

from benchmarks import peers, work
from benchmarks.workload import Contender, Job, Params, Workload, everybody, milliseconds, rate, same

if TYPE_CHECKING:
    from collections.abc import Iterator

    from benchmarks.workload import How, Run


def _job(params: Params) -> Job:
    return Job(work.square, list(range(params.items)), params.workers, warm_up=[everybody(params.workers)])


def _squares(params: Params) -> list[int]:
    return [x * x for x in range(params.items)]


TINY = Workload(
    name="tiny",
    title="100,000 calls of `x * x` in 2 processes that are warm",
    job=_job,
    check=same(_squares),
    params={"items": 100_000, "workers": 2},
    quick={"items": 5_000},
    ideal=lambda _, medians: medians["two pipes"],
    show=rate("calls"),
    target="level with the best",
    note="Ideal: two forked processes, half of the items to each in one message. anymap has the bar that it has on a "
    "terminal unasked: of a map that lasts half a second. For `progress=True` it is drawn at once.",
    keep=True,
    contenders=[
        Contender("anymap", peers.anymap_on_a_terminal(backend="processes"), "anymap"),
        Contender("anymap, its bar drawn at once", peers.anymap(backend="processes"), "reference"),
        Contender("two pipes", peers.pipes, "reference"),
        Contender("serial", peers.serial, "reference"),
        Contender("Pool.imap_unordered, chunks of 1,000", peers.pool_imap_unordered, chunksize=1000),
        Contender("Pool.imap_unordered, chunks of 12,500", peers.pool_imap_unordered, chunksize=12_500),
        Contender("Pool.map, chunks of 12,500", peers.pool_map, chunksize=12_500),
        Contender("ProcessPoolExecutor.map, chunks of 50,000", peers.process_executor, chunksize=50_000),
        Contender("mpire map_unordered, chunks of 1,000", peers.mpire_unordered, chunksize=1000),
        Contender("mpire map, chunks of 1,000", peers.mpire_map, chunksize=1000),
        Contender("parmap, chunks of 12,500", peers.parmap, chunksize=12_500),
        Contender("joblib, chunks of 50,000", peers.joblib_by_hand(), "by hand", chunksize=50_000),
        Contender("joblib, batches of 12,500", peers.joblib(), chunksize=12_500),
        Contender("loky map, chunks of 12,500", peers.loky, chunksize=12_500),
        Contender("pebble, chunks of 12,500", peers.pebble, chunksize=12_500),
        Contender("pathos map, chunks of 12,500", peers.pathos_map, chunksize=12_500),
        Contender("process_map, chunks of 50,000", peers.process_map, chunksize=50_000),
        Contender("ProcessPoolExecutor.map", peers.process_executor, "untuned"),
        Contender("Pool.imap", peers.pool_imap, "untuned"),
        Contender("mpire map, with its bar", peers.mpire_default, "untuned"),
        Contender("parmap, with its bar", peers.parmap_default, "untuned"),
        Contender("joblib", peers.joblib(), "untuned"),
        Contender("pebble", peers.pebble, "untuned"),
        Contender("p_tqdm", peers.p_tqdm, "untuned"),
        Contender("pqdm", peers.pqdm_processes, "untuned"),
    ],
)

TINY_THREADS = Workload(
    name="tiny-threads",
    title="The same in 2 threads",
    job=_job,
    check=same(_squares),
    params={"items": 100_000, "workers": 2},
    quick={"items": 5_000},
    ideal=lambda _, medians: medians["serial"],
    show=rate("calls"),
    target="level with the best",
    note="Ideal: a loop without threads. The bar is as above.",
    keep=True,
    contenders=[
        Contender("anymap", peers.anymap_on_a_terminal(backend="threads"), "anymap"),
        Contender("anymap, its bar drawn at once", peers.anymap(backend="threads"), "reference"),
        Contender("serial", peers.serial, "reference"),
        Contender("ThreadPool.imap, chunks of 1,000", peers.thread_pool_imap, chunksize=1000),
        Contender("ThreadPool.map, chunks of 12,500", peers.thread_pool_map, chunksize=12_500),
        Contender("ThreadPoolExecutor, chunks of 50,000", peers.thread_executor, "by hand", chunksize=50_000),
        Contender(
            "joblib threading, chunks of 12,500 by hand", peers.joblib_by_hand(prefer="threads"), chunksize=12_500
        ),
        Contender("ThreadPool.imap", peers.thread_pool_imap, "untuned"),
        Contender("joblib threading", peers.joblib(prefer="threads"), "untuned"),
        Contender("thread_map", peers.thread_map, "untuned"),
        Contender("pqdm", peers.pqdm_threads, "untuned"),
    ],
)


def _many_maps(params: Params) -> Job:
    warm_up = [everybody(params.workers)]
    return Job(work.square, range(params.maps * params.items), params.workers, warm_up=warm_up, params=params)


def _one_by_one(how: How) -> How:
    """Have a contender do a map for each so many items."""

    @contextmanager
    def each(job: Job) -> Iterator[Run]:
        size = job.params.items
        with how(job) as run:
            yield lambda func, items: [x for part in peers.chunks(items, size) for x in run(func, list(part))]

    return each


SMALL_MAPS = Workload(
    name="small-maps",
    title="200 maps of 20 items one after another, 2 workers that are warm",
    job=_many_maps,
    check=same(lambda params: [x * x for x in range(params.maps * params.items)]),
    params={"items": 20, "maps": 200, "workers": 2},
    quick={"maps": 20},
    ideal=lambda _, medians: medians["two pipes"],
    show=milliseconds("a map", "maps"),
    target="0.5 ms a map",
    note="The peers hold a pool in their hands over all maps; anymap is only called, with the bar that it has on a "
    "terminal unasked: of a map that lasts half a second.",
    keep=True,
    contenders=[
        Contender("anymap", _one_by_one(peers.anymap_on_a_terminal(backend="processes")), "anymap"),
        Contender("anymap, threads", _one_by_one(peers.anymap_on_a_terminal(backend="threads")), "reference"),
        Contender("two pipes", _one_by_one(peers.pipes), "reference"),
        Contender("ProcessPoolExecutor.map, chunks of 10", _one_by_one(peers.process_executor), chunksize=10),
        Contender("Pool.map, chunks of 10", _one_by_one(peers.pool_map), chunksize=10),
        Contender("mpire map, chunks of 10", _one_by_one(peers.mpire_map), chunksize=10),
        Contender("joblib, batches of 10", _one_by_one(peers.joblib()), chunksize=10),
        Contender("loky map, chunks of 10", _one_by_one(peers.loky), chunksize=10),
        Contender("pebble, chunks of 10", _one_by_one(peers.pebble), chunksize=10),
        Contender("pathos map, chunks of 10", _one_by_one(peers.pathos_map), chunksize=10),
        Contender("p_tqdm", _one_by_one(peers.p_tqdm), "untuned"),
        Contender("process_map", _one_by_one(peers.process_map), "untuned"),
        Contender("joblib", _one_by_one(peers.joblib()), "untuned"),
    ],
)

WORKLOADS = (TINY, TINY_THREADS, SMALL_MAPS)
