"""``Executor``: calls one by one, with the interface of the standard library, on any backend."""

from __future__ import annotations

import concurrent.futures
import operator
import os
import threading
import weakref
from dataclasses import replace
from typing import TYPE_CHECKING, Any, ClassVar, ParamSpec, TypeVar

from anymap import _forks, _leaving
from anymap._api import pmap
from anymap._calls import Call
from anymap._config import layers
from anymap._engine.loop import Run
from anymap._engine.plan import Plan, Retry
from anymap._engine.sources import Feed
from anymap._engine.supervisor import note_as_here
from anymap._plan import make_plan

if TYPE_CHECKING:
    from collections.abc import Callable
    from concurrent.futures import Future

    from anymap._live import Engine
    from anymap.backends.base import Backend

P = ParamSpec("P")
R = TypeVar("R")


class Executor(concurrent.futures.Executor):
    """A :class:`concurrent.futures.Executor` on any backend: for whatever takes one, such as asyncio.

    >>> import anymap
    >>> with anymap.Executor("threads") as executor:
    ...     future = executor.submit(pow, 2, 5)
    ...     future.result()
    32

    Backend and workers are chosen as by :func:`anymap.pmap`, and so are the ways in which calls fail: with the
    exception that they raised and a note that names the call, with :class:`WorkerLost` if they killed their worker, with
    :class:`NotPicklable` if they cannot be sent. Each costs that call alone.

    Calls start in the order in which they were submitted, each as soon as a worker is free; none waits behind another
    that was sent to the same worker. For many short calls of one function ``pmap`` is faster, as it sends them in
    chunks. Twice as many calls as there are workers are marked as running and cannot be cancelled any more.

    The first call to be submitted opens the backend, and raises what :func:`anymap.pmap` would if that is not possible.
    If the engine as a whole breaks, all calls that are under way fail with its error, and the next call that is
    submitted opens the backend anew. The workers are given back by ``shutdown()``, at the end of a ``with`` block, or
    when the executor is dropped, each time when all calls have ended. A program does not end before.

    Args:
        backend: As for :func:`anymap.pmap`.
        workers: As for :func:`anymap.pmap`.

    Raises:
        ConfigError: As for :func:`anymap.pmap`; so do ``UnknownBackend`` and ``BackendUnavailable``.
    """

    _is_finished_at_exit: ClassVar[bool] = True

    def __init__(
        self, backend: str | Backend | type[Backend] | Engine | None = None, workers: int | str | None = None
    ) -> None:
        self._plan = _make_plan(backend, workers)
        self._lock = threading.RLock()
        self._service: _Service | None = None
        self._release: weakref.finalize[[], Executor] | None = None
        self._is_shut_down = False
        self._process = os.getpid()

    def submit(self, fn: Callable[P, R], /, *args: P.args, **kwargs: P.kwargs) -> Future[R]:
        """Have ``fn(*args, **kwargs)`` called, and return its future."""
        future: Future[R] = concurrent.futures.Future()
        call = Call(fn, *args, **kwargs)
        with self._lock:
            self._check_that_it_is_open()
            while (service := self._service) is None or not service.take(future, call):
                self._service = self._open()
        service.wait_for_threads()
        return future

    def _check_that_it_is_open(self) -> None:
        if self._is_shut_down:
            raise RuntimeError("cannot schedule new futures after shutdown")
        if os.getpid() != self._process:
            raise RuntimeError("this executor belongs to the process that forked this one: make another one here")

    def _open(self) -> _Service:
        plan = self._plan
        self._plan = replace(plan, backend=plan.backend.fresh())
        service = _Service(plan, finish_at_exit=self._is_finished_at_exit)
        if self._release is not None:
            self._release.detach()
        self._release = weakref.finalize(self, service.close)
        self._release.atexit = False
        return service

    def shutdown(self, wait: bool = True, *, cancel_futures: bool = False) -> None:
        """Take no more calls, and give the workers back when those taken have ended; ``wait`` for that.

        ``cancel_futures``: those that have not begun.
        """
        with self._lock:
            self._is_shut_down = True
            service = self._service
        if service is None or os.getpid() != self._process:
            return
        if cancel_futures:
            service.feed.cancel()
        service.close()
        if wait:
            service.join()

    def _terminate(self) -> None:
        """Take no more calls, and end those that run wherever they are."""
        self.shutdown(wait=False)
        if self._service is not None:
            self._service.end()


def _make_plan(backend: str | Backend | type[Backend] | Engine | None, workers: int | str | None) -> Plan:
    options: dict[str, Any] = {**(pmap.__kwdefaults__ or {}), "backend": backend, "workers": workers}
    if layers.current().said("progress") is None:  # unasked an executor shows nothing
        options["progress"] = False
    plan = make_plan(operator.call, ((),), **options)
    return replace(
        plan,
        prompt=False,
        ordered=False,
        lazy=True,
        on_error="return",
        max_failures=None,
        retry=Retry(0),
        # One at a time, else a call could wait in a chunk behind the very one that waits for it.
        chunksize=1,
        window=None,
        total=None,
    )


class _Service:
    """A map whose input is the calls that are submitted, and the thread that hands out its results."""

    def __init__(self, plan: Plan, *, finish_at_exit: bool) -> None:
        _leaving.finish_first(_leave)
        self.feed = Feed()
        self.finish_at_exit = finish_at_exit
        self._run = Run(plan, self.feed)
        self._inline = plan.backend.traits.inline
        self._process = os.getpid()
        self._lock = threading.Lock()
        self._ended = False
        self._thread = threading.Thread(target=self._work, name="anymap-executor", daemon=True)
        note_as_here(self._thread)
        try:
            self._run.open()
            # Its caller will wait for futures, of which the backend knows nothing.
            with plan.backend.waiting():
                pass
            _services.add(self)
            self._thread.start()
        except BaseException:
            _services.discard(self)
            self._run.close()
            raise

    def take(self, future: Future[Any], call: Call[Any]) -> bool:
        """Take a call; return whether that was possible."""
        with self._lock:
            if self._ended:
                return False
            self.feed.put(future, call)
        self._run.wake()
        return True

    def wait_for_threads(self) -> None:
        """Return when the engine has started its threads: while the interpreter ends, it could start none."""
        if not self._inline:
            self.feed.launched.wait()

    def close(self) -> None:
        """Take no more, and end with the last call. May be called by the collector."""
        if os.getpid() == self._process:
            self.feed.close()
            self._run.wake()

    def end(self) -> None:
        """End now, wherever the calls are."""
        if os.getpid() == self._process:
            self.feed.cancel()
            self._run.fail(concurrent.futures.CancelledError())

    def join(self) -> None:
        if self._thread is not threading.current_thread():
            self._thread.join()

    def _work(self) -> None:
        error: BaseException = concurrent.futures.CancelledError()
        try:
            for batch in self._run.batches():
                self.feed.settle(batch)
                del batch
        except BaseException as exc:  # noqa: BLE001 - whoever waits for a future must hear of it
            error = exc
        with self._lock:
            self._ended = True
        self.feed.fail(error)
        _services.discard(self)


_services: set[_Service] = set()
# They are the parent's.
_forks.in_child(_services.clear)


def _leave() -> None:
    """See the calls of all executors to their end that nobody has shut down."""
    services = list(_services)
    for service in services:
        if service.finish_at_exit:
            service.close()
        else:
            service.end()
    for service in services:
        service.join()
