"""``Executor``: calls one by one, with the interface of the standard library, on any backend."""

from __future__ import annotations

import concurrent.futures
import operator
import os
import threading
import time
import weakref
from dataclasses import replace
from typing import TYPE_CHECKING, Any, Literal, ParamSpec, TypeVar

from anymap._config import layers, settings
from anymap._config.values import block_progress
from anymap._engine.call_checks import check_call, check_callable
from anymap._engine.plan import Plan, Retry
from anymap._hints import keywords_checked
from anymap._host.futures import InterruptibleFuture
from anymap._host.handlers import held_back, let_in
from anymap._map import pmap
from anymap._plan.make import make_plan, sinks_for
from anymap._plan.worker_options import WorkerOptions, worker_options
from anymap._serialize.calls import Call
from anymap._services import CallService, MapService, Services

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator
    from concurrent.futures import Future

    from anymap._plan.live import Engine
    from anymap.backends.base import Backend
    from anymap.progress import ProgressOption
    from anymap.progress._block import BlockProgress

P = ParamSpec("P")
R = TypeVar("R")


class Executor(concurrent.futures.Executor):
    """A :class:`concurrent.futures.Executor` on any backend: for whatever takes one, such as asyncio.

    >>> import anymap
    >>> with anymap.Executor(2, backend="threads") as executor:
    ...     future = executor.submit(pow, 2, 5)
    ...     future.result()
    32

    Backend and workers are chosen as by :func:`anymap.pmap`, and so are the ways in which calls fail: with the
    exception that they raised and a note that names the call, with :class:`WorkerLost` if they killed their worker, with
    :class:`NotPicklable` if they cannot be sent. Each costs that call alone.

    Calls start in the order in which they were submitted, each as soon as a worker is free; none waits behind another
    that was sent to the same worker. For many short calls of one function :meth:`map` is faster, as it sends them in
    chunks. Twice as many calls as there are workers are marked as running and cannot be cancelled any more.

    The first call to be submitted opens the backend, and raises what :func:`anymap.pmap` would if that is not possible.
    If the engine as a whole breaks, all calls that are under way fail with its error, and the next call that is
    submitted opens the backend anew. The workers are given back by :meth:`shutdown`, at the end of a ``with`` block, or
    when the executor is dropped, each time when all calls have ended. A program does not end before.

    Args:
        workers: As for :func:`anymap.pmap`; so is ``backend``.
        initializer: Called in each worker, with ``initargs``, before its first call. A worker is a thread that runs calls:
            of a process that runs one at a time it is that process. Workers that outlive the executor are prepared anew
            for another one. What it raises is the error of the call.
        initargs: The arguments of ``initializer``; sent once.
        max_workers: Another name of ``workers``.
        max_tasks_per_child: After so many calls a worker ends and a fresh one takes its place, on ``processes``.
        backend: Where calls run.
        retries: How often to try a failed call again: a number, or a :class:`Retry`. ``None``: not at all.
        timeout: Seconds that one attempt of one call may take. ``None``: what the user has set, else any time.
        progress: What is shown of all calls together, as one bar that ends with the executor; otherwise as for
            :func:`anymap.pmap`. ``None``: what the user has set, else nothing.
        desc: What that bar is called.

    Raises:
        ConfigError: As for :func:`anymap.pmap`; so do ``UnknownBackend`` and ``BackendUnavailable``.
        UnsupportedOption: The backend cannot do what was asked.
        TypeError: ``initializer`` cannot be called.
    """

    @keywords_checked("Executor()")
    def __init__(
        self,
        workers: int | str | None = None,
        initializer: Callable[..., object] | None = None,
        initargs: Iterable[Any] = (),
        *,
        max_workers: int | None = None,
        max_tasks_per_child: int | None = None,
        backend: str | Backend | type[Backend] | Engine | None = None,
        retries: int | Retry | None = None,
        timeout: float | None = None,
        progress: ProgressOption = None,
        desc: str | None = None,
    ) -> None:
        options = worker_options(
            backend, initializer, initargs, max_tasks_per_child, workers=workers, max_workers=max_workers
        )
        shown = block_progress(progress, desc, None, "Executor()")
        if shown is None and layers.current().said("progress") is None:
            # Unasked an executor shows nothing.
            self._prepare(options, retries, timeout, progress=False, finish_at_exit=True)
        else:
            self._prepare(options, retries, timeout, shown, finish_at_exit=True)

    def _prepare(
        self,
        options: WorkerOptions,
        retries: int | Retry | None,
        timeout: float | None,
        progress: BlockProgress | Literal[False] | None,
        *,
        finish_at_exit: bool,
    ) -> None:
        self._options = options
        self._progress = progress
        self._plan = _make_plan(options, retries, timeout, self._progress)
        self._lock = threading.RLock()
        self._services = Services(progress or None, finish_at_exit=finish_at_exit)
        self._service: CallService | None = None
        self._is_shut_down = False
        self._process = os.getpid()
        self._close_services = weakref.finalize(self, self._services.close)
        self._close_services.atexit = False

    @property
    def workers(self) -> int:
        """How many calls run at once. Where only a cluster can tell that, it is asked."""
        if self._service is None and (expected := self._plan.backend.expected_workers(self._plan.workers)) is not None:
            return expected
        with held_back(), self._lock:
            if self._service is None:
                self._check_that_it_is_open()
                self._service = self._open()
            return self._service.workers

    @property
    def _max_workers(self) -> int:
        # Libraries ask the executors of the standard library for it by this name.
        return self.workers

    def submit(self, fn: Callable[P, R], /, *args: P.args, **kwargs: P.kwargs) -> Future[R]:
        """Have ``fn(*args, **kwargs)`` called, and return its future."""
        check_callable(fn, "Executor.submit's first argument")
        future: Future[R] = InterruptibleFuture()
        call = Call(fn, *args, **kwargs)
        with held_back(), self._lock:
            self._check_that_it_is_open()
            while (service := self._service) is None or not service.take(future, call):
                self._service = self._open()
        service.wait_for_threads()
        return future

    def map(
        self,
        fn: Callable[..., R],
        /,
        *iterables: Iterable[Any],
        timeout: float | None = None,
        chunksize: int | None = None,
    ) -> Iterator[R]:
        """Begin to call ``fn`` with each item, or one of each iterable; iterate over the results, in order.

        Calls travel together as with :func:`anymap.pmap`. The iterables are read at once. The first call that failed
        raises its error in its turn, and ends the others.

        Args:
            fn: What to call.
            *iterables: What to call it with.
            timeout: Seconds from now, after which ``TimeoutError`` is raised where a result is not there.
            chunksize: How many calls travel together, 1 or more. ``None``: as measured while the map runs.
        """
        check_call(fn, iterables, "Executor.map")
        deadline = None if timeout is None else time.monotonic() + timeout
        size = (
            layers.current().value("chunksize")
            if chunksize is None
            else settings.check("chunksize", "chunksize", chunksize)
        )
        rows = list(iterables[0]) if len(iterables) == 1 else list(zip(*iterables, strict=False))
        with held_back(), self._lock:
            self._check_that_it_is_open()
            plan = replace(
                self._fresh_plan(),
                func=self._options.prepared(fn),
                star=len(iterables) > 1,
                prompt=True,
                ordered=True,
                chunksize=size,
                total=len(rows),
            )
            service = MapService(plan, rows, self._services)
            service.start()
        service.wait_for_threads()
        return service.results(deadline)

    def shutdown(self, wait: bool = True, *, cancel_futures: bool = False) -> None:
        """Take no more calls, and give the workers back when those taken have ended; ``wait`` for that.

        ``cancel_futures``: leave out those that have not begun.
        """
        with held_back():
            self._shut_down(wait=wait, cancel_futures=cancel_futures)

    def _shut_down(self, *, wait: bool, cancel_futures: bool) -> None:
        with self._lock:
            self._is_shut_down = True
        if os.getpid() != self._process:
            return
        running = self._services.running()
        if cancel_futures:
            for service in running:
                service.cancel()
        self._close_services()
        if wait:
            for service in running:
                let_in(service.join)
        self._services.end_progress()

    def terminate(self) -> None:
        """Take no more calls, and end those that run, wherever they are. What was not done is cancelled."""
        self.shutdown(wait=False)
        for service in self._services.running():
            service.end()

    def __repr__(self) -> str:
        state = ", shut down" if self._is_shut_down else ""
        return f"<anymap.{type(self).__name__} on {self._plan.backend!r}{state}>"

    def _check_that_it_is_open(self) -> None:
        if self._is_shut_down:
            raise RuntimeError("cannot schedule new futures after shutdown")
        if os.getpid() != self._process:
            raise RuntimeError("this executor belongs to the process that forked this one: make another one here")

    def _open(self) -> CallService:
        service = CallService(self._fresh_plan(), self._services)
        service.start()
        return service

    def _fresh_plan(self) -> Plan:
        plan = self._plan
        self._plan = replace(plan, backend=plan.backend.fresh())
        return replace(plan, sinks=tuple(sinks_for(plan.config, self._progress)))


def _make_plan(
    options: WorkerOptions,
    retries: int | Retry | None,
    timeout: float | None,
    progress: BlockProgress | Literal[False] | None,
) -> Plan:
    given: dict[str, Any] = {
        **(pmap.__kwdefaults__ or {}),
        "backend": options.backend,
        "workers": options.workers,
        "retries": retries,
        "timeout": timeout,
        "progress": progress,
    }
    plan = make_plan(operator.call, ((),), **given)
    options.limit_tasks(plan)
    return replace(
        plan,
        func=options.prepared(operator.call),
        prompt=False,
        ordered=False,
        lazy=True,
        on_error="return",
        max_failures=None,
        retry=Retry(0) if retries is None else plan.retry,
        # One at a time, else a call could wait in a chunk behind the very one that waits for it.
        chunksize=1,
        window=None,
        total=None,
    )
