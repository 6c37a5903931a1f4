"""What has to be paid before the first answer, for the bar, and for not driving an engine by hand."""

from __future__ import annotations

import json
import os
import statistics
import subprocess
import sys
import tempfile
import time
from contextlib import contextmanager
from functools import partial
from typing import TYPE_CHECKING, Any

from benchmarks import peers, work
from benchmarks.workload import Contender, Job, Measured, Params, Workload, everybody, milliseconds, same

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from benchmarks.workload import Function, How, Run

# --- the first map of a program ---------------------------------------------------------------------------------------

SCRIPT = """
import time
began = time.perf_counter()
{imports}
imported = time.perf_counter()

def square(x):
    return x * x

def say(answers, first, end):
    import json
    print(json.dumps([answers, imported - began, first - imported, end - imported]))

if __name__ == "__main__":
    workers, count = {workers}, {count}
{body}
"""
"""A user's program, with nothing loaded that he did not ask for."""


def _program(imports: str, *body: str) -> How:
    @contextmanager
    def how(job: Job) -> Iterator[Run]:
        with tempfile.TemporaryDirectory() as folder:
            path = os.path.join(folder, "script.py")

            def run(_: Function, items: Sequence[int]) -> Measured:
                lines = "\n".join(f"    {line}" for line in body)
                with open(path, "w") as file:
                    file.write(SCRIPT.format(imports=imports, body=lines, workers=job.workers, count=len(items)))
                ran = subprocess.run([sys.executable, path], stdout=subprocess.PIPE, check=True)
                answers, importing, first, end = json.loads(ran.stdout)
                return Measured(answers, end, {"first answer, ms": 1000 * first, "import, ms": 1000 * importing})

            yield run

    return how


def _iterated(expression: str) -> tuple[str, ...]:
    return (
        f"results = iter({expression})",
        "answers = [next(results)]",
        "first = time.perf_counter()",
        "answers += results",
        "say(answers, first, time.perf_counter())",
    )


def _within(opening: str, expression: str) -> tuple[str, ...]:
    return (opening, *(f"    {line}" for line in _iterated(expression)))


def _pool(method: str) -> How:
    opening = f"with multiprocessing.get_context({method!r}).Pool(workers) as pool:"
    return _program("import multiprocessing", *_within(opening, "pool.imap_unordered(square, range(count))"))


BARE = (
    "import subprocess, sys",
    "code = 'import sys; print([x * x for x in map(int, sys.argv[1:])], flush=True); sys.stdin.read()'",
    "shares = [range(n, count, workers) for n in range(workers)]",
    "line = dict(stdin=-1, stdout=-1, text=True)",
    "started = [subprocess.Popen([sys.executable, '-c', code, *map(str, share)], **line) for share in shares]",
    "answers = eval(started[0].stdout.readline())",
    "first = time.perf_counter()",
    "for other in started[1:]: answers += eval(other.stdout.readline())",
    "say(answers, first, time.perf_counter())",
    "for one in started: one.communicate()",
)

COLD = Workload(
    name="cold",
    title="The first map of a program: 20 items, 2 workers that are not there yet",
    job=lambda params: Job(work.square, range(params.items), params.workers),
    check=same(lambda params: [x * x for x in range(params.items)]),
    params={"items": 20, "workers": 2},
    ideal=lambda _, medians: medians["two bare interpreters"],
    show=milliseconds(),
    target="100 ms with fresh interpreters, the first answer not waiting for the last worker",
    note="A script of its own in each round, timed from its call to its last answer; what its imports take is shown "
    "apart. Forks inherit what has been imported; fresh interpreters (anymap, forkserver, spawn, loky) begin with "
    "nothing. Ideal: two interpreters that are started with a line of code each.",
    warm_up=0,
    contenders=[
        Contender(
            "anymap",
            _program(
                "from anymap import pmap",
                *_iterated("pmap(square, range(count), workers=workers, lazy=True, ordered=False, progress=True)"),
            ),
            "anymap",
        ),
        Contender(
            "anymap, a list",
            _program(
                "from anymap import pmap",
                "answers = pmap(square, range(count), workers=workers, progress=True)",
                "end = time.perf_counter()",
                "say(answers, end, end)",
            ),
            "reference",
        ),
        Contender(
            "anymap, forks",
            _program(
                "from anymap import pmap; from anymap.backends import Processes",
                "backend = Processes(start_method='fork')",
                *_iterated(
                    "pmap(square, range(count), workers=workers, backend=backend, lazy=True, ordered=False, "
                    "progress=True)"
                ),
            ),
            "reference",
        ),
        Contender("two bare interpreters", _program("", *BARE), "reference"),
        Contender("Pool, fork", _pool("fork")),
        Contender("Pool, forkserver", _pool("forkserver")),
        Contender("Pool, spawn", _pool("spawn")),
        Contender(
            "ProcessPoolExecutor, fork",
            _program(
                "from concurrent.futures import ProcessPoolExecutor",
                *_within("with ProcessPoolExecutor(workers) as pool:", "pool.map(square, range(count), chunksize=10)"),
            ),
        ),
        Contender(
            "loky",
            _program(
                "from joblib.externals.loky import get_reusable_executor",
                "pool = get_reusable_executor(workers)",
                *_iterated("pool.map(square, range(count), chunksize=10)"),
            ),
        ),
        Contender(
            "joblib",
            _program(
                "from joblib import Parallel, delayed",
                "calls = (delayed(square)(x) for x in range(count))",
                *_iterated("Parallel(workers, return_as='generator_unordered', batch_size=10)(calls)"),
            ),
        ),
        Contender(
            "mpire, fork",
            _program(
                "from mpire import WorkerPool",
                *_within(
                    "with WorkerPool(workers) as pool:", "pool.imap_unordered(square, range(count), chunk_size=10)"
                ),
            ),
        ),
        Contender(
            "pebble, fork",
            _program(
                "from pebble import ProcessPool",
                *_within(
                    "with ProcessPool(max_workers=workers) as pool:",
                    "pool.map(square, range(count), chunksize=10).result()",
                ),
            ),
        ),
        Contender(
            "pathos, fork",
            _program(
                "from pathos.pools import ProcessPool",
                "pool = ProcessPool(nodes=workers)",
                *_iterated("pool.uimap(square, range(count), chunksize=10)"),
                "pool.terminate()",
            ),
        ),
        Contender(
            "p_tqdm",
            _program("from p_tqdm import p_uimap", *_iterated("p_uimap(square, range(count), num_cpus=workers)")),
            "untuned",
        ),
        Contender(
            "process_map",
            _program(
                "from tqdm.contrib.concurrent import process_map",
                "answers = process_map(square, range(count), max_workers=workers)",
                "end = time.perf_counter()",
                "say(answers, end, end)",
            ),
            "untuned",
        ),
    ],
)


# --- imports ----------------------------------------------------------------------------------------------------------


def _interpreter(code: str) -> How:
    @contextmanager
    def how(job: Job) -> Iterator[Run]:
        def run(func: Function, items: Sequence[Any]) -> Measured:  # noqa: ARG001 - nothing is mapped
            took = []
            for _ in range(job.params.times):
                began = time.perf_counter()
                subprocess.run([sys.executable, "-c", code], check=True)
                took.append(time.perf_counter() - began)
            return Measured(len(items), statistics.median(took))

        yield run

    return how


IMPORTS = Workload(
    name="imports",
    title="An interpreter that imports a library and ends",
    job=lambda params: Job(work.square, range(1), params=params),
    check=lambda _, answer: answer == 1,
    params={"times": 5},
    quick={"times": 1},
    ideal=lambda _, medians: medians["nothing"],
    show=milliseconds(),
    target="20 ms over nothing",
    note="Ideal: an interpreter that imports nothing.",
    warm_up=0,
    keep=True,
    contenders=[
        Contender("anymap", _interpreter("import anymap"), "anymap"),
        Contender("nothing", _interpreter("pass"), "reference"),
        Contender("from anymap import pmap", _interpreter("from anymap import pmap"), "reference"),
        *(
            Contender(name, _interpreter(f"import {name}"))
            for name in (
                "multiprocessing.pool",
                "concurrent.futures.process",
                "tqdm.contrib.concurrent",
                "joblib",
                "mpire",
                "pebble",
                "parmap",
                "pathos.pools",
                "p_tqdm",
                "pqdm.processes",
                "distributed",
            )
        ),
    ],
)


# --- the bar ----------------------------------------------------------------------------------------------------------


def _difference(with_bar: How, without: How) -> How:
    """Time two ways in turns; what counts is by how much the first is slower."""

    @contextmanager
    def how(job: Job) -> Iterator[Run]:
        with with_bar(job) as shown, without(job) as bare:

            def run(func: Function, items: Sequence[Any]) -> Measured:
                differences = []
                for _ in range(job.params.times):
                    answer, seconds = _timed(shown, func, items)
                    differences.append(seconds - _timed(bare, func, items)[1])
                return Measured(answer, statistics.median(differences))

            yield run

    return how


def _timed(run: Run, func: Function, items: Sequence[Any]) -> tuple[Any, float]:
    began = time.perf_counter()
    answer = run(func, items)
    return answer, time.perf_counter() - began


def _pmap(backend: str, *, bar: bool) -> How:
    @contextmanager
    def how(job: Job) -> Iterator[Run]:
        from anymap import pmap, shutdown

        yield lambda func, items: pmap(func, items, workers=job.workers, progress=bar, backend=backend)
        shutdown()

    return how


@contextmanager
def _tqdm(_: Job) -> Iterator[Run]:
    from tqdm import tqdm

    yield lambda func, items: [func(item) for item in tqdm(items)]


def _both(backend: str) -> How:
    return _difference(_pmap(backend, bar=True), _pmap(backend, bar=False))


BAR = Workload(
    name="bar",
    title="What the bar costs, for each of 300,000 items",
    job=lambda params: Job(work.square, range(params.items), params.workers, params=params),
    check=same(lambda params: [x * x for x in range(params.items)]),
    warm_up=20_000,
    params={"items": 300_000, "workers": 2, "times": 3},
    quick={"items": 20_000, "times": 1},
    show=lambda params, seconds: f"{1e6 * seconds / params.items:.3f} us an item",
    target="0.1 us an item",
    note="The same map with and without, in turns: the median difference. It can be below nothing.",
    keep=True,
    contenders=[
        Contender("anymap", _both("processes"), "anymap"),
        Contender("anymap, threads", _both("threads"), "reference"),
        Contender("anymap, serial", _both("serial"), "reference"),
        Contender("tqdm around a loop", _difference(_tqdm, peers.serial)),
    ],
)


# --- an engine by hand ------------------------------------------------------------------------------------------------

SPINNING = {"items": 10_000, "ms": 0.1, "workers": 2}


def _spinning(params: Params) -> Job:
    turns = int(params.ms / 1000 * params.turns_per_second)
    return Job(partial(work.spin, turns), range(params.items), params.workers, warm_up=[everybody(params.workers)])


def _engine(name: str, by_hand: Sequence[Contender]) -> Workload:
    return Workload(
        name=f"engine-{name}",
        title=f"10,000 items of 0.1 ms of a CPU on the backend `{name}`, 2 workers, and on its engine by hand",
        job=_spinning,
        check=same(lambda params: [x * x for x in range(params.items)]),
        params=SPINNING,
        quick={"items": 500},
        ideal=lambda params, medians: medians["serial"] / params.workers,
        target="5 % over the best by hand",
        note="Ideal: half of what a loop takes.",
        keep=True,
        contenders=[
            Contender("anymap", peers.anymap(backend=name), "anymap"),
            Contender("serial", peers.serial, "reference"),
            *by_hand,
        ],
    )


ENGINES = (
    _engine(
        "processes",
        [
            Contender("Pool.imap_unordered, chunks of 100", peers.pool_imap_unordered, chunksize=100),
            Contender("Pool.map, chunks of 250", peers.pool_map, chunksize=250),
            Contender("ProcessPoolExecutor.map, chunks of 100", peers.process_executor, chunksize=100),
        ],
    ),
    _engine(
        "pathos",
        [
            Contender("pathos map, chunks of 250", peers.pathos_map, chunksize=250),
            Contender("pathos uimap, chunks of 100", peers.pathos_uimap, chunksize=100),
        ],
    ),
    _engine(
        "joblib",
        [
            Contender("joblib, chunks of 250 by hand", peers.joblib_by_hand(), chunksize=250),
            Contender("joblib, batches of 250", peers.joblib(), chunksize=250),
            Contender("joblib", peers.joblib(), "untuned"),
        ],
    ),
    Workload(
        name="engine-threads",
        title="4,000 items that wait for 1 ms on the backend `threads`, 8 workers, and on its engine by hand",
        job=lambda params: Job(work.sleep, [params.ms / 1000] * params.items, params.workers),
        check=same(lambda params: [params.ms / 1000] * params.items),
        params={"items": 4_000, "ms": 1, "workers": 8},
        quick={"items": 200},
        ideal=lambda params, _: params.items * params.ms / 1000 / params.workers,
        target="5 % over the best by hand",
        note="Ideal: computed. A sleep lasts some 0.06 ms longer than it is asked to.",
        keep=True,
        contenders=[
            Contender("anymap", peers.anymap(backend="threads"), "anymap"),
            Contender("ThreadPool.imap_unordered, chunks of 10", peers.thread_pool_imap_unordered, chunksize=10),
            Contender("ThreadPool.map, chunks of 20", peers.thread_pool_map, chunksize=20),
            Contender("ThreadPoolExecutor, chunks of 10 by hand", peers.thread_executor, chunksize=10),
            Contender("thread_map", peers.thread_map, "untuned"),
            Contender("pqdm", peers.pqdm_threads, "untuned"),
        ],
    ),
)

WORKLOADS = (COLD, IMPORTS, BAR, *ENGINES)
