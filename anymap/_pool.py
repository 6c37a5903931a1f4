"""``Pool``: the interface of ``multiprocessing.Pool``, on any backend."""

from __future__ import annotations

import weakref
from concurrent.futures import CancelledError
from dataclasses import replace
from functools import partial
from itertools import islice
from typing import TYPE_CHECKING, Any, ParamSpec, Self, TypeVar

from anymap._config import settings
from anymap._config.values import block_progress
from anymap._engine.call_checks import check_call, check_callable
from anymap._engine.raising import in_one_frame
from anymap._engine.results import collect, iterate, run_of
from anymap._executor import Executor
from anymap._hints import keywords_checked
from anymap._host import guarded
from anymap._map import pmap
from anymap._plan.make import make_plan
from anymap._plan.worker_options import WorkerOptions, worker_options
from anymap._pool_results import AsyncResult, Results, joined
from anymap._serialize import calls

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
    from concurrent.futures import Future
    from types import TracebackType

    from anymap._engine.inline import Inline
    from anymap._engine.plan import Plan
    from anymap._engine.run import Run
    from anymap._plan.live import Engine
    from anymap.backends.base import Backend
    from anymap.progress import ProgressOption

A = TypeVar("A")
P = ParamSpec("P")
R = TypeVar("R")

_CHUNKS_A_WORKER = 4
"""As in multiprocessing, where the caller of ``map_async`` does not say how large they are to be."""


class Pool:
    """What code for :class:`multiprocessing.pool.Pool` expects, on any backend: for whatever takes a pool, as emcee.

    >>> import anymap
    >>> with anymap.Pool(2, backend="threads") as pool:
    ...     pool.map(abs, [-1, 2])
    [1, 2]

    The methods mean what they mean there, but for what :func:`anymap.pmap` does better: lambdas and closures will do,
    a worker that dies costs its item and the rest of the map, not for ever, and the first error of ``map`` and
    ``starmap`` ends them. Without a ``chunksize`` items travel together as measured while the map runs. ``imap`` and
    ``imap_unordered`` begin when their first result is asked for, or else in ``join``, and read no more of their input
    ahead than there is room for.

    The end of a ``with`` block ends what still runs, as ``terminate`` does; so does the end of the program. To let all
    of it finish, call ``close`` and ``join`` before. A pool holds no workers between its calls that ``pmap`` would not
    hold. It can be pickled, so objects that have one can go to its workers; the copy is what ``Pool()`` gives there.

    Args:
        workers: As for :func:`anymap.pmap`; so is ``backend``.
        initializer: Called in each worker, with ``initargs``, before its first item. A worker is a thread that runs items:
            of a process that runs one at a time it is that process. Workers that outlive the pool are prepared anew for
            another one. What it raises is the error of the item.
        initargs: The arguments of ``initializer``; sent once.
        maxtasksperchild: After so many items a worker ends and a fresh one takes its place, on ``processes``.
        processes: Another name of ``workers``.
        backend: Where items run.
        progress: What is shown of all calls of ``map``, ``starmap``, ``imap`` and ``imap_unordered`` together, as one bar
            that ends with ``join``, ``terminate`` or the ``with`` block; otherwise as for :func:`anymap.pmap`. ``None``:
            each call shows what it would by itself.
        desc: What that bar is called.
        total: How many items all calls have together, where that is known.

    Raises:
        ConfigError: As for :func:`anymap.pmap`; so do ``UnknownBackend`` and ``BackendUnavailable``.
        UnsupportedOption: The backend cannot do what was asked.
        TypeError: ``initializer`` cannot be called.
    """

    @keywords_checked("Pool()")
    def __init__(
        self,
        workers: int | str | None = None,
        initializer: Callable[..., object] | None = None,
        initargs: Iterable[Any] = (),
        maxtasksperchild: int | None = None,
        *,
        processes: int | None = None,
        backend: str | Backend | type[Backend] | Engine | None = None,
        progress: ProgressOption = None,
        desc: str | None = None,
        total: int | None = None,
    ) -> None:
        self._options = worker_options(
            backend, initializer, initargs, maxtasksperchild, workers=workers, processes=processes
        )
        self._progress = block_progress(progress, desc, total, "Pool()")
        self._executor = _Executor(self._options)
        self._is_running = True
        self._runs: weakref.WeakSet[Run | Inline] = weakref.WeakSet()
        self._unfinished: set[Results[Any]] = set()

    @property
    def workers(self) -> int:
        """How many items run at once. Where only a cluster can tell that, it is asked."""
        return self._executor.workers

    @property
    def size(self) -> int:
        """The same, by the name that schwimmbad has for it."""
        return self.workers

    @property
    def _processes(self) -> int:
        # Libraries ask a pool of multiprocessing for it by this name.
        return self.workers

    @in_one_frame
    def map(
        self,
        func: Callable[[A], R],
        iterable: Iterable[A],
        chunksize: int | None = None,
        *,
        callback: Callable[[R], object] | None = None,
    ) -> list[R]:
        """Return ``[func(item) for item in iterable]``; ``callback`` gets each result as it comes, in order, in this thread."""
        _check_callbacks(callback, None)
        if callback is None:
            return collect(*self._begin(func, iterable, chunksize))
        results: list[R] = []
        with iterate(*self._begin(func, iterable, chunksize, lazy=True)) as arriving:
            for result in arriving:
                callback(result)
                results.append(result)
        return results

    @in_one_frame
    def starmap(
        self, func: Callable[..., R], iterable: Iterable[Iterable[Any]], chunksize: int | None = None
    ) -> list[R]:
        """Return ``[func(*row) for row in iterable]``."""
        return collect(*self._begin(func, iterable, chunksize, star=True))

    def imap(self, func: Callable[[A], R], iterable: Iterable[A], chunksize: int | None = None) -> Iterator[R]:
        """Iterate over the results. An item that failed raises its error in its turn; the others go on."""
        return self._results(func, iterable, chunksize, ordered=True)

    def imap_unordered(
        self, func: Callable[[A], R], iterable: Iterable[A], chunksize: int | None = None
    ) -> Iterator[R]:
        """Iterate over the results as they are finished."""
        return self._results(func, iterable, chunksize, ordered=False)

    @in_one_frame
    def apply(self, func: Callable[..., R], args: Iterable[Any] = (), kwds: Mapping[str, Any] = {}) -> R:
        """Return ``func(*args, **kwds)``, called by a worker."""
        return self.apply_async(func, args, kwds).get()

    def apply_async(
        self,
        func: Callable[..., R],
        args: Iterable[Any] = (),
        kwds: Mapping[str, Any] = {},
        callback: Callable[[R], object] | None = None,
        error_callback: Callable[[BaseException], object] | None = None,
    ) -> AsyncResult[R]:
        """Have ``func(*args, **kwds)`` called; one of the callbacks gets the result or the error, in another thread."""
        self._check_running()
        check_callable(func, "Pool.apply_async's first argument")
        _check_callbacks(callback, error_callback)
        return AsyncResult(self._executor.submit(func, *args, **kwds), callback, error_callback)

    def map_async(
        self,
        func: Callable[[A], R],
        iterable: Iterable[A],
        chunksize: int | None = None,
        callback: Callable[[list[R]], object] | None = None,
        error_callback: Callable[[BaseException], object] | None = None,
    ) -> AsyncResult[list[R]]:
        """Begin a ``map``; one of the callbacks gets the list or the first error, in another thread."""
        check_call(func, (iterable,), "Pool.map_async")
        _check_callbacks(callback, error_callback)
        chunks = self._submit_chunks(partial(calls.each, func), iterable, chunksize)
        return AsyncResult(chunks, callback, error_callback)

    def starmap_async(
        self,
        func: Callable[..., R],
        iterable: Iterable[Iterable[Any]],
        chunksize: int | None = None,
        callback: Callable[[list[R]], object] | None = None,
        error_callback: Callable[[BaseException], object] | None = None,
    ) -> AsyncResult[list[R]]:
        """Begin a ``starmap``; see :meth:`map_async`."""
        check_call(func, (iterable,), "Pool.starmap_async")
        _check_callbacks(callback, error_callback)
        chunks = self._submit_chunks(partial(calls.each_spread, func), iterable, chunksize)
        return AsyncResult(chunks, callback, error_callback)

    def is_master(self) -> bool:
        """Return ``True``: the program that made the pool uses it. Code for schwimmbad's pools asks."""
        return True

    def wait(self) -> None:
        """Do nothing. In schwimmbad's pools, processes that are no master wait here for work."""

    def close(self) -> None:
        """Take no more work; what was taken goes on."""
        self._is_running = False
        self._executor.shutdown(wait=False)

    def join(self) -> None:
        """Wait until all work is done; call :meth:`close` or :meth:`terminate` before."""
        if self._is_running:
            raise ValueError("the pool is still running: close it before you join it")
        for results in list(self._unfinished):
            results.finish()
        self._executor.shutdown()
        self._end_progress()

    def terminate(self) -> None:
        """End all work now. What was not done raises :class:`concurrent.futures.CancelledError`."""
        self._is_running = False
        self._executor.terminate()
        for run in list(self._runs):
            run.fail(CancelledError())
        for results in list(self._unfinished):
            results.close()
        self._end_progress()

    def __enter__(self) -> Self:
        self._check_running()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, exc: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self.terminate()

    def __reduce__(self) -> tuple[Any, ...]:
        # In a worker, where it goes with an object that has it, other rules hold than where it was made.
        return type(self), ()

    def __repr__(self) -> str:
        state = "" if self._is_running else ", closed"
        return f"<anymap.Pool on {self._executor._plan.backend!r}{state}>"

    def _check_running(self) -> None:
        if not self._is_running:
            raise ValueError("the pool is closed")

    def _end_progress(self) -> None:
        if self._progress is not None:
            self._progress.close()

    def _begin(
        self,
        func: Callable[..., Any],
        iterable: Iterable[Any],
        chunksize: int | None,
        *,
        star: bool = False,
        **how: Any,
    ) -> tuple[Run | Inline, Plan]:
        self._check_running()
        _check_chunksize(chunksize)
        defaults: dict[str, Any] = pmap.__kwdefaults__ or {}
        where = {"backend": self._options.backend, "workers": self._options.workers, "progress": self._progress}
        meaning = {"ordered": True, "lazy": False, "on_error": "raise", **how}
        plan = make_plan(func, (iterable,), **{**defaults, **where, **meaning, "chunksize": chunksize})
        self._options.limit_tasks(plan)
        plan = replace(plan, func=self._options.prepared(plan.func), star=star)
        run = run_of(plan, iter(iterable))
        self._runs.add(run)
        return run, plan

    def _results(
        self, func: Callable[..., R], iterable: Iterable[Any], chunksize: int | None, *, ordered: bool
    ) -> Results[R]:
        run, _ = self._begin(func, iterable, chunksize, ordered=ordered, lazy=True, on_error="return")
        return Results(run, self._unfinished)

    def _submit_chunks(
        self, each: Callable[[Sequence[Any]], list[R]], iterable: Iterable[Any], chunksize: int | None
    ) -> Future[list[R]]:
        self._check_running()
        _check_chunksize(chunksize)
        items = list(iterable)
        size = max(-(-len(items) // (_CHUNKS_A_WORKER * self._executor.workers)), 1)
        if chunksize is not None:
            size = chunksize
        rows = iter(items)
        return joined([self._executor.submit(each, chunk) for chunk in iter(lambda: list(islice(rows, size)), [])])


def _check_callbacks(callback: object, error_callback: object) -> None:
    for name, given in (("callback", callback), ("error_callback", error_callback)):
        if given is not None:
            check_callable(given, name)


def _check_chunksize(given: Any) -> None:
    if given is None:
        return
    if hasattr(given, "__iter__"):
        raise TypeError(
            f"the methods of a pool take one iterable, and {guarded.short_repr(given)} is given as chunksize: "
            "for several use starmap(func, zip(a, b)), or pmap(func, a, b)"
        )
    settings.check("chunksize", "chunksize", given)


class _Executor(Executor):
    """A program that ends does not wait for a pool."""

    def __init__(self, options: WorkerOptions) -> None:
        # Its calls are chunks, and no items that could be counted.
        self._prepare(options, None, None, progress=False, finish_at_exit=False)
