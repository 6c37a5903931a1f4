"""dask, on a cluster that is up: a scheduler and two workers, each a process on this machine."""

from __future__ import annotations

from contextlib import contextmanager
from functools import partial
from itertools import chain
from typing import TYPE_CHECKING, Any

from benchmarks import peers, work
from benchmarks.workload import Contender, Job, Params, Workload, rate, same

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence

    from benchmarks.workload import Function, How, Run


def _on_cluster(drive: Callable[[Job, Any], Run]) -> How:
    @contextmanager
    def how(job: Job) -> Iterator[Run]:
        from distributed import Client, LocalCluster

        with (
            LocalCluster(job.workers, threads_per_worker=1, dashboard_address=None, protocol="tcp") as cluster,
            Client(cluster) as client,
        ):
            client.wait_for_workers(job.workers)
            yield drive(job, client)

    return how


def _anymap(_: Job, client: Any) -> Run:
    from anymap import pmap
    from anymap.backends import Dask

    backend = Dask(address=client.scheduler.address)
    return lambda func, items: pmap(func, items, backend=backend, progress=True)


def _client_map(_: Job, client: Any) -> Run:
    return lambda func, items: client.gather(client.map(func, items, pure=False))


def _chunks(job: Job, client: Any) -> Run:
    def run(func: Function, items: Sequence[Any]) -> list[Any]:
        futures = client.map(partial(work.each, func), peers.chunks(items, job.chunksize), pure=False)
        return list(chain.from_iterable(client.gather(futures)))

    return run


def _bag(job: Job, client: Any) -> Run:
    import dask.bag

    return lambda func, items: list(
        dask.bag.from_sequence(items, partition_size=job.chunksize).map(func).compute(scheduler=client)
    )


def _joblib(job: Job, client: Any) -> Run:  # noqa: ARG001 - joblib takes the one that is there
    from joblib import Parallel, delayed, parallel_config

    size = {"batch_size": job.chunksize} if job.chunksize > 1 else {}

    def run(func: Function, items: Sequence[Any]) -> Any:
        with parallel_config("dask"):
            return Parallel(**size)(delayed(func)(item) for item in items)

    return run


def _executor(job: Job, client: Any) -> Run:
    executor = client.get_executor(pure=False)
    return lambda func, items: list(
        chain.from_iterable(executor.map(partial(work.each, func), peers.chunks(items, job.chunksize)))
    )


def _contenders(size: int) -> list[Contender]:
    return [
        Contender("anymap", _on_cluster(_anymap), "anymap"),
        Contender("serial", peers.serial, "reference"),
        Contender(f"client.map, chunks of {size:,} by hand", _on_cluster(_chunks), chunksize=size),
        Contender(f"client.get_executor, chunks of {size:,} by hand", _on_cluster(_executor), chunksize=size),
        Contender(f"dask.bag, partitions of {size:,}", _on_cluster(_bag), chunksize=size),
        Contender(f"joblib on dask, batches of {size:,}", _on_cluster(_joblib), chunksize=size),
        Contender("client.map", _on_cluster(_client_map), "untuned"),
        Contender("joblib on dask", _on_cluster(_joblib), "untuned"),
    ]


def _tiny(params: Params) -> Job:
    return Job(work.square, list(range(params.items)), params.workers)


def _spinning(params: Params) -> Job:
    turns = int(params.ms / 1000 * params.turns_per_second)
    return Job(partial(work.spin, turns), list(range(params.items)), params.workers)


_squares = same(lambda params: [x * x for x in range(params.items)])

DASK = Workload(
    name="dask",
    title="20,000 calls of `x * x` on a dask cluster that is up, 2 workers",
    job=_tiny,
    check=_squares,
    params={"items": 20_000, "workers": 2},
    quick={"items": 500},
    show=rate("calls"),
    target="level with chunks by hand, or 33 k calls/s",
    note="The cluster belongs to one contender and one round, so that no other is there to idle beside it.",
    contenders=_contenders(1_000),
)

ENGINE_DASK = Workload(
    name="engine-dask",
    title="10,000 items of 0.1 ms of a CPU on the backend `dask`, 2 workers, and on its engine by hand",
    job=_spinning,
    check=_squares,
    params={"items": 10_000, "ms": 0.1, "workers": 2},
    quick={"items": 500},
    ideal=lambda params, medians: medians["serial"] / params.workers,
    target="5 % over the best by hand",
    note="Ideal: half of what a loop takes.",
    contenders=_contenders(500),
)

WORKLOADS = (DASK, ENGINE_DASK)
