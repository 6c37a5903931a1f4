"""Items that take their time: what is left is how evenly the workers are kept busy."""

from __future__ import annotations

import random
from functools import partial
from typing import TYPE_CHECKING

from benchmarks import peers, work
from benchmarks.workload import Contender, Job, Params, Workload, everybody, same

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence


def _evenly(params: Params) -> Sequence[float]:
    return [params.ms / 1000] * params.items


def _sorted(params: Params) -> Sequence[float]:
    """From ``longest`` to ``shortest``, as many between 1 and 2 ms as between 100 and 200."""
    span = params.longest / params.shortest
    steps = range(params.items - 1, -1, -1)
    return [params.shortest / 1000 * span ** (step / (params.items - 1)) for step in steps]


def _mixed(params: Params) -> Sequence[float]:
    durations = list(_sorted(params))
    random.Random(1).shuffle(durations)
    return durations


def _even_share(params: Params, durations: Sequence[float]) -> float:
    return float(max(sum(durations) / params.workers, *durations))


def _contenders(few: int, fewer: int) -> list[Contender]:
    """Those that get ``few`` items at once can help themselves to the next; the others get ``fewer``."""

    def chunked(count: int) -> str:
        return f"chunks of {count}"

    return [
        Contender("anymap", peers.anymap(backend="processes"), "anymap"),
        Contender("anymap, threads", peers.anymap(backend="threads"), "reference"),
        Contender(f"Pool.imap_unordered, {chunked(few)}", peers.pool_imap_unordered, chunksize=few),
        Contender(f"ProcessPoolExecutor.map, {chunked(few)}", peers.process_executor, chunksize=few),
        Contender(f"mpire map, {chunked(few)}", peers.mpire_map, chunksize=few),
        Contender(f"pebble, {chunked(few)}", peers.pebble, chunksize=few),
        Contender(f"parmap, {chunked(few)}", peers.parmap, chunksize=few),
        Contender(f"joblib, batches of {fewer}", peers.joblib(pre_dispatch="all", batch_size=fewer)),
        Contender(f"loky map, {chunked(fewer)}", peers.loky, chunksize=fewer),
        Contender(f"pathos map, {chunked(few)}", peers.pathos_map, chunksize=few),
        Contender(f"process_map, {chunked(few)}", peers.process_map, chunksize=few),
        Contender("Pool.map", peers.pool_map_default, "untuned"),
        Contender("mpire map, with its bar", peers.mpire_default, "untuned"),
        Contender("parmap, with its bar", peers.parmap_default, "untuned"),
        Contender("joblib", peers.joblib(), "untuned"),
        Contender("p_tqdm", peers.p_tqdm, "untuned"),
        Contender("pqdm", peers.pqdm_processes, "untuned"),
    ]


WAITING = Workload(
    name="waiting",
    title="10,000 items that wait for 5 ms, 8 workers",
    job=lambda params: Job(work.sleep, _evenly(params), params.workers, warm_up=[everybody(params.workers)]),
    check=same(_evenly),
    params={"items": 10_000, "ms": 5, "workers": 8},
    quick={"items": 400},
    ideal=lambda params, _: _even_share(params, _evenly(params)),
    target="1.03 x ideal",
    note="Ideal: computed. A sleep lasts some 0.06 ms longer than it is asked to, which nobody can help.",
    keep=True,
    contenders=_contenders(10, 10),
)

SKEWED = {"items": 400, "shortest": 1, "longest": 200, "workers": 8}

SKEWED_SORTED = Workload(
    name="skewed-sorted",
    title="400 items that wait for 200 to 1 ms, the longest first, 8 workers",
    job=lambda params: Job(work.sleep, _sorted(params), params.workers, warm_up=[everybody(params.workers)]),
    check=same(_sorted),
    params=SKEWED,
    quick={"items": 80},
    ideal=lambda params, _: _even_share(params, _sorted(params)),
    target="1.05 x ideal",
    note="Ideal: an even share for each worker, computed.",
    keep=True,
    contenders=_contenders(1, 1),
)

SKEWED_MIXED = Workload(
    name="skewed-mixed",
    title="The same items in no order",
    job=lambda params: Job(work.sleep, _mixed(params), params.workers, warm_up=[everybody(params.workers)]),
    check=same(_mixed),
    params=SKEWED,
    quick={"items": 80},
    ideal=lambda params, _: _even_share(params, _mixed(params)),
    target="1.10 x ideal",
    note="Ideal: as above. Who takes the items in their order and one by one comes to {greedy:.2f} times that.",
    keep=True,
    contenders=_contenders(1, 1),
)


def greedy(params: Params) -> float:
    """Return how many times the ideal it takes to give each worker the next item whenever it is free."""
    durations = _mixed(params)
    free_at = [0.0] * params.workers
    for duration in durations:
        free_at[free_at.index(min(free_at))] += duration
    return float(max(free_at)) / _even_share(params, durations)


def _spinning(params: Params) -> Job:
    turns = int(params.ms / 1000 * params.turns_per_second)
    return Job(partial(work.spin, turns), range(params.items), params.workers, warm_up=[everybody(params.workers)])


def _half_of_serial(params: Params, medians: Mapping[str, float]) -> float:
    return medians["serial"] / params.workers


CPU = Workload(
    name="cpu",
    title="2,000 items that keep a CPU busy for 2 ms, 2 workers",
    job=_spinning,
    check=same(lambda params: [x * x for x in range(params.items)]),
    params={"items": 2_000, "ms": 2, "workers": 2},
    quick={"items": 100},
    ideal=_half_of_serial,
    target="1.08 x ideal, CPU seconds within 3 % of serial",
    note="Ideal: half of what a loop takes.",
    keep=True,
    contenders=[
        Contender("anymap", peers.anymap(backend="processes"), "anymap"),
        Contender("serial", peers.serial, "reference"),
        Contender("Pool.imap_unordered, chunks of 5", peers.pool_imap_unordered, chunksize=5),
        Contender("Pool.map, chunks of 20", peers.pool_map, chunksize=20),
        Contender("ProcessPoolExecutor.map, chunks of 10", peers.process_executor, chunksize=10),
        Contender("mpire map, chunks of 10", peers.mpire_map, chunksize=10),
        Contender("pebble, chunks of 10", peers.pebble, chunksize=10),
        Contender("parmap, chunks of 20", peers.parmap, chunksize=20),
        Contender("joblib, batches of 20", peers.joblib(), chunksize=20),
        Contender("loky map, chunks of 20", peers.loky, chunksize=20),
        Contender("pathos map, chunks of 20", peers.pathos_map, chunksize=20),
        Contender("process_map, chunks of 10", peers.process_map, chunksize=10),
        Contender("mpire map, with its bar", peers.mpire_default, "untuned"),
        Contender("joblib", peers.joblib(), "untuned"),
        Contender("p_tqdm", peers.p_tqdm, "untuned"),
        Contender("pqdm", peers.pqdm_processes, "untuned"),
    ],
)

WORKLOADS = (WAITING, SKEWED_SORTED, SKEWED_MIXED, CPU)
