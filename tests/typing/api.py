"""What the public calls return, as type checkers see it. Checked by tests/test_typing.py, never run."""

# mypy: disable-error-code=empty-body
# pyright: strict
from __future__ import annotations

import concurrent.futures
import functools
from collections.abc import Callable, Iterator
from concurrent.futures import Executor, ProcessPoolExecutor, ThreadPoolExecutor
from multiprocessing.pool import Pool, ThreadPool
from typing import Literal, assert_type

import anymap
from anymap import BackendInfo, Failure, MapError, MapIterator, Retry, available_backends, failure, pmap, register
from anymap.backends import Backend, Processes, Serial, Threads, Traits
from anymap.progress import Advanced, Event, Finished, ItemFailed, LogSink, Started

OnError = Literal["raise", "return", "skip", "group"]
ResultsOnly = Literal["raise", "skip", "group"]


def one(a: int) -> str: ...
def two(a: int, b: str) -> bytes: ...
def three(a: int, b: str, c: bytes) -> float: ...
def four(a: int, b: str, c: bytes, d: float) -> complex: ...
def five(a: int, b: str, c: bytes, d: float, e: complex) -> bool: ...


class Adder:
    def __init__(self, start: int) -> None: ...
    def add(self, other: int) -> float: ...
    def __call__(self, other: int) -> complex: ...


def numbers() -> Iterator[int]: ...


ints = [1, 2]
strings = ["a", "b"]
blobs = [b"a", b"b"]
floats = [0.5, 1.5]
complexes = [1j, 2j]

# By the number of iterables.
assert_type(pmap(one, ints), list[str])
assert_type(pmap(two, ints, strings), list[bytes])
assert_type(pmap(three, ints, strings, blobs), list[float])
assert_type(pmap(four, ints, strings, blobs, floats), list[complex])
assert_type(pmap(five, ints, strings, blobs, floats, complexes), list[bool])

# By ``lazy``.
assert_type(pmap(one, ints, lazy=False), list[str])
assert_type(pmap(one, ints, lazy=True), MapIterator[str])
assert_type(pmap(two, ints, strings, lazy=True), MapIterator[bytes])
assert_type(pmap(three, ints, strings, blobs, lazy=True), MapIterator[float])
assert_type(pmap(four, ints, strings, blobs, floats, lazy=True), MapIterator[complex])
assert_type(pmap(five, ints, strings, blobs, floats, complexes, lazy=True), MapIterator[bool])

# By ``on_error``.
assert_type(pmap(one, ints, on_error="raise"), list[str])
assert_type(pmap(one, ints, on_error="skip"), list[str])
assert_type(pmap(one, ints, on_error="group"), list[str])
assert_type(pmap(one, ints, on_error="return"), list[str | Exception])
assert_type(pmap(two, ints, strings, on_error="return"), list[bytes | Exception])
assert_type(pmap(three, ints, strings, blobs, on_error="return"), list[float | Exception])
assert_type(pmap(four, ints, strings, blobs, floats, on_error="return"), list[complex | Exception])
assert_type(pmap(five, ints, strings, blobs, floats, complexes, on_error="return"), list[bool | Exception])

# By both.
assert_type(pmap(one, ints, lazy=True, on_error="skip"), MapIterator[str])
assert_type(pmap(one, ints, lazy=True, on_error="return"), MapIterator[str | Exception])
assert_type(pmap(two, ints, strings, lazy=True, on_error="return"), MapIterator[bytes | Exception])
assert_type(pmap(three, ints, strings, blobs, lazy=True, on_error="return"), MapIterator[float | Exception])
assert_type(pmap(four, ints, strings, blobs, floats, lazy=True, on_error="return"), MapIterator[complex | Exception])


def known_when_it_runs(lazy: bool, on_error: OnError, kind: ResultsOnly) -> None:
    assert_type(pmap(one, ints, on_error=kind), list[str])
    assert_type(pmap(one, ints, on_error=on_error), list[str | Exception])
    assert_type(pmap(one, ints, on_error=on_error, lazy=True), MapIterator[str | Exception])
    assert_type(pmap(one, ints, lazy=lazy), list[str] | MapIterator[str])
    assert_type(pmap(two, ints, strings, lazy=lazy), list[bytes] | MapIterator[bytes])
    assert_type(pmap(three, ints, strings, blobs, lazy=lazy), list[float] | MapIterator[float])
    assert_type(pmap(four, ints, strings, blobs, floats, lazy=lazy), list[complex] | MapIterator[complex])
    either = pmap(one, ints, lazy=lazy, on_error=on_error)
    assert_type(either, list[str | Exception] | MapIterator[str | Exception])
    for result in either:
        assert_type(result, str | Exception)


# Anything that can be called, over anything that can be iterated over.
assert_type(pmap(lambda a: a * 0.5, ints), list[float])
assert_type(pmap(lambda a, b: (b, a), ints, strings), list[tuple[str, int]])
assert_type(pmap(abs, ints), list[int])
assert_type(pmap(int, strings), list[int])
assert_type(pmap(str.upper, strings), list[str])
assert_type(pmap(Adder, ints), list[Adder])
assert_type(pmap(Adder(1), ints), list[complex])
assert_type(pmap(Adder(1).add, ints), list[float])
assert_type(pmap(functools.partial(two, b="b"), ints), list[bytes])
assert_type(pmap(max, ints, ints), list[int])
assert_type(pmap(one, numbers()), list[str])
assert_type(pmap(one, range(3)), list[str])
assert_type(pmap(one, {1: "a"}), list[str])
assert_type(pmap(one, {1: "a"}.keys()), list[str])
assert_type(pmap(one, (a for a in ints)), list[str])
assert_type(pmap(len, "word"), list[int])
assert_type(pmap(one, *[ints]), list[str])

# The lazy map.
with pmap(one, ints, lazy=True, ordered=False) as results:
    assert_type(results, MapIterator[str])
    assert_type(next(results), str)
    assert_type(results.indexed(), Iterator[tuple[int, str]])
    assert_type(dict(results.indexed()), dict[int, str])
    assert_type(results.window, int)
    assert_type(list(results), list[str])
    assert_type(results.close(), None)
wider: MapIterator[object] = pmap(one, ints, lazy=True)
plain: Iterator[str] = pmap(one, ints, lazy=True)

# What the keywords take.
pmap(one, ints, backend="threads", workers=2, ordered=False, prefer="threads", require="shared_memory")
pmap(one, ints, backend=Processes(start_method="fork"), workers="50%", ordered=True, prefer=None, require=None)
pmap(one, ints, backend=Threads, workers=None, prefer="processes")
pmap(one, ints, backend=ThreadPoolExecutor(2), workers=1)
pmap(one, ints, backend=ProcessPoolExecutor())
pmap(one, ints, backend=Pool(2))
pmap(one, ints, backend=ThreadPool(2))
pmap(one, ints, desc="ones", total=2, max_failures="5%", retries=3, timeout=1.5, chunksize=10, window=100)
pmap(one, ints, desc=None, total=None, max_failures=3, retries=Retry(3, backoff=0.5), timeout=1)
pmap(one, ints, max_failures=None, timeout=None, chunksize=None, window=None)


class Cluster:
    """As a type checker sees a ``distributed.Client``."""

    def submit(self, func: Callable[..., object], *args: object, key: str | None = None) -> object: ...
    def scheduler_info(self, n_workers: int = 5, **kwargs: object) -> dict[str, object]: ...


class Farm:
    """As it sees a pool of pathos."""

    def imap(self, f: Callable[..., object], *args: object, **kwds: object) -> Iterator[object]: ...


def on_an_engine(executor: Executor, cluster: Cluster, farm: Farm) -> None:
    assert_type(pmap(one, ints, backend=executor), list[str])
    assert_type(pmap(one, ints, backend=cluster, lazy=True), MapIterator[str])
    assert_type(pmap(one, ints, backend=farm), list[str])


def show(event: Event) -> None:
    match event:
        case Started(desc=desc, total=total, backend=backend, workers=workers):
            assert_type((desc, total, backend, workers), tuple[str | None, int | None, str, int])
        case Advanced(done=done, failed=failed, elapsed=elapsed):
            assert_type((done, failed, elapsed), tuple[int, int, float])
        case Finished(complete=complete):
            assert_type(complete, bool)
        case ItemFailed(index=index, error=error):
            assert_type((index, error), tuple[int, Exception])
        case _:
            pass


pmap(one, ints, progress=None)
pmap(one, ints, progress=True)
pmap(one, ints, progress="log")
pmap(one, ints, progress={"leave": False})
pmap(one, ints, progress=show)
pmap(one, ints, progress=LogSink(every=60.0))
pmap(one, ints, progress=["bar", show])

# How far an item is.
assert_type(list(anymap.track(["a"], desc="rows", total=1)), list[str])
with anymap.task_progress(total=3, desc="job") as bar:
    assert_type(bar.update(), None)
    assert_type(bar.update(2), None)

# What outlives a map.
assert_type(anymap.share([1]), anymap.Shared[list[int]])
assert_type(anymap.share([1]).get(), list[int])
assert_type(anymap.per_worker(dict[str, int]).get(), dict[str, int])
assert_type(anymap.worker_index(), int)

# The shapes that other libraries take.
with anymap.Executor(2, backend="threads") as executor:
    assert_type(executor, anymap.Executor)
    assert_type(executor.submit(two, 1, b="a"), concurrent.futures.Future[bytes])
    assert_type(list(executor.map(two, ints, strings)), list[bytes])
    assert_type(list(executor.map(one, ints, timeout=1.5, chunksize=10)), list[str])
    assert_type(executor.workers, int)
    executor.terminate()
standard: concurrent.futures.Executor = anymap.Executor("50%", backend=Processes(start_method="fork"))
anymap.Executor(backend=concurrent.futures.ThreadPoolExecutor())
anymap.Executor(4, print, ("ready",), retries=Retry(2), timeout=1.5, progress="log", desc="calls")
anymap.Executor(max_workers=4, max_tasks_per_child=10, initializer=print, initargs=["ready"])
anymap.Pool(4, print, ("ready",), 10)
anymap.Pool(processes=4, initializer=print, initargs=["ready"], maxtasksperchild=10, backend="processes")
anymap.Pool(backend=concurrent.futures.ThreadPoolExecutor())

with anymap.Pool(2, backend="threads") as pool:
    assert_type(pool, anymap.Pool)
    assert_type(pool.map(one, ints), list[str])
    assert_type(pool.map(one, ints, callback=print), list[str])
    assert_type((pool.workers, pool.size, pool.is_master()), tuple[int, int, bool])
    pool.wait()
    assert_type(pool.starmap(two, zip(ints, strings, strict=True), 10), list[bytes])
    assert_type(pool.imap(one, numbers()), Iterator[str])
    assert_type(pool.imap_unordered(one, ints, chunksize=1), Iterator[str])
    assert_type(pool.apply(two, (1, "a")), bytes)
    assert_type(pool.apply_async(two, (1,), {"b": "a"}, callback=print), anymap.AsyncResult[bytes])
    assert_type(pool.map_async(one, ints), anymap.AsyncResult[list[str]])
    assert_type(pool.starmap_async(two, zip(ints, strings, strict=True)), anymap.AsyncResult[list[bytes]])
    result = pool.apply_async(one, [1])
    assert_type((result.get(1.5), result.ready(), result.successful()), tuple[str, bool, bool])
    pool.close()
    pool.join()

# What is around it.
chosen = anymap.selection(backend="threads", workers="50%", prefer="threads", require="shared_memory")
assert_type(chosen, anymap.Selection)
assert_type((chosen.backend, chosen.workers, chosen.reason), tuple[str, int | None, str])
assert_type(chosen.traits, dict[str, bool])
retry = Retry(2, on=(OSError, TimeoutError), backoff=1, jitter=0.5)
assert_type(retry.times, int)
assert_type(retry.on, type[Exception] | tuple[type[Exception], ...])
assert_type(retry.delay(OSError(), 1), float | None)

found = failure(ValueError())
assert_type(found, Failure | None)
if found is not None:
    assert_type(found.index, int)
    assert_type(found.exception, Exception)
    assert_type((found.traceback, found.worker), tuple[str, str])
    assert_type((found.attempts, found.seconds), tuple[int, float])

assert_type(available_backends(), list[BackendInfo])
for info in available_backends():
    assert_type((info.name, info.available, info.reason, info.install), tuple[str, bool, str, str])
    assert_type(info.traits, dict[str, bool])


class Mine(Serial):
    name = "mine"
    traits = Traits(shares_memory=True, inline=True)


assert_type(register("mine", Mine), None)
assert_type(register("mine", "package.module:Mine", requires=("package",), install="pip install package"), None)
assert_type(Mine().fresh(), Mine)
pmap(one, ints, backend=Mine())

try:
    pmap(one, ints)
except MapError as error:
    assert_type(len(error.failures), int)
except anymap.WorkerLost as lost:
    assert_type(lost.exitcode, int | None)
except anymap.UnknownBackend as unknown:
    assert_type(unknown.known, tuple[str, ...])

anymap.shutdown()
classes: list[type[Backend]] = [anymap.backends.Serial, anymap.backends.Threads, anymap.backends.Processes]
errors: list[type[anymap.AnymapError]] = [anymap.ConfigError, anymap.ItemTimeout, anymap.NotPicklable, MapError]
