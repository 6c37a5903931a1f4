"""The maps of an ``Executor``, each on a thread of its own."""

from __future__ import annotations

import abc
import concurrent.futures
import os
import threading
import time
from collections import deque
from contextlib import suppress
from functools import partial
from queue import Empty, SimpleQueue
from typing import TYPE_CHECKING, Any

from anymap._engine.inline import Inline, is_inline
from anymap._engine.run import Run
from anymap._engine.sources import Listed, QueueSource
from anymap._engine.supervisor import note_as_here
from anymap._host import forks, leaving

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence
    from concurrent.futures import Future

    from anymap._engine.ordering import Batch
    from anymap._engine.plan import Plan
    from anymap._serialize.calls import Call
    from anymap.progress._block import BlockProgress

_NAP = 1.0
"""Seconds after which a thread looks for itself whether it is to go on."""
_BLINK = 0.2
"""Seconds. A signal that comes just before the main thread begins to wait does not wake it: Ctrl-C would be lost."""


class Services:
    """Those of one executor. Outlives it, as its calls do."""

    def __init__(self, progress: BlockProgress | None, *, finish_at_exit: bool) -> None:
        self.finish_at_exit = finish_at_exit
        self._progress = progress
        self._running: set[Service] = set()
        self._closed = False
        self._lock = threading.Lock()

    def add(self, service: Service) -> None:
        with self._lock:
            self._running.add(service)

    def discard(self, service: Service) -> None:
        """A service has ended. With the last one of an executor that takes no more calls, its bar ends."""
        with self._lock:
            self._running.discard(service)
        self.end_progress()

    def running(self) -> list[Service]:
        with self._lock:
            return list(self._running)

    def close(self) -> None:
        """Take no more calls. May be called by the collector, so it takes no lock."""
        self._closed = True
        for service in tuple(self._running):
            service.close()

    def end_progress(self) -> None:
        """End the bar if no more calls come and none runs."""
        with self._lock:
            if not self._closed or self._running or self._progress is None:
                return
            progress, self._progress = self._progress, None
        progress.close()


class Service(abc.ABC):
    """A map on a thread of its own."""

    def __init__(self, plan: Plan, source: QueueSource | Listed, family: Services) -> None:
        leaving.finish_first(_leave)
        self._source = source
        self._run: Run | Inline
        self._wake: Callable[[], object]
        if is_inline(plan):
            news: SimpleQueue[None] = SimpleQueue()
            self._run, self._wake = Inline(plan, source.rows(partial(_wait, news))), partial(news.put, None)
        else:
            run = Run(plan, source)
            self._run, self._wake = run, run.wake
        self._family = family
        self._backend = plan.backend
        self._process = os.getpid()
        self._thread = threading.Thread(target=self._work, name="anymap-executor", daemon=True)
        note_as_here(self._thread)

    def start(self) -> None:
        """Open the backend, and begin."""
        try:
            self._run.open()
            # Its caller will wait for results, of which the backend knows nothing.
            with self._backend.waiting():
                pass
            self._family.add(self)
            _services.add(self)
            self._thread.start()
        except BaseException as exc:
            self._forget()
            self._run.close(exc)
            raise

    @property
    def finish_at_exit(self) -> bool:
        return self._family.finish_at_exit

    @property
    def workers(self) -> int:
        return max(self._backend.capacity(), 1)

    def wait_for_threads(self) -> None:
        """Return when the engine has started its threads: while the interpreter ends, it could start none."""
        if not self._backend.traits.inline:
            self._source.sent.wait()

    @abc.abstractmethod
    def close(self) -> None:
        """Take no more, and end with what was taken. May be called by the collector."""

    def cancel(self) -> None:
        """Leave out what has not begun."""
        if os.getpid() == self._process:
            self._source.cancel()

    def end(self) -> None:
        """End now, wherever the items are."""
        if os.getpid() == self._process:
            self._source.cancel()
            self._run.fail(concurrent.futures.CancelledError())
            self.close()

    def join(self) -> None:
        if self._thread is not threading.current_thread() and os.getpid() == self._process:
            self._thread.join()

    @abc.abstractmethod
    def _hand_out(self, batch: Batch) -> None:
        """Take in results."""

    @abc.abstractmethod
    def _finish(self, error: BaseException) -> None:
        """The map has ended: give what has no outcome this one."""

    def _work(self) -> None:
        error: BaseException = concurrent.futures.CancelledError()
        try:
            for batch in self._run.batches():
                self._hand_out(batch)
                del batch
        except BaseException as exc:  # noqa: BLE001 - what waits for a result must hear of it
            error = exc
        self._finish(error)
        self._source.sent.set()
        self._forget()

    def _forget(self) -> None:
        _services.discard(self)
        self._family.discard(self)


def _wait(news: SimpleQueue[None]) -> None:
    # What tells it may be interrupted: a signal handler that raises in a finalizer is lost, and what the finalizer was at.
    with suppress(Empty):
        news.get(timeout=_NAP)


class CallService(Service):
    """Runs calls one by one, and gives each future its outcome."""

    def __init__(self, plan: Plan, family: Services) -> None:
        self._feed = QueueSource()
        self._lock = threading.Lock()
        self._ended = False
        super().__init__(plan, self._feed, family)

    def take(self, future: Future[Any], call: Call[Any]) -> bool:
        """Take a call; return whether that was possible."""
        with self._lock:
            if self._ended:
                return False
            self._feed.put(future, call)
        self._wake()
        return True

    def close(self) -> None:
        if os.getpid() == self._process:
            self._feed.close()
            self._wake()

    def _hand_out(self, batch: Batch) -> None:
        self._feed.settle(batch)

    def _finish(self, error: BaseException) -> None:
        with self._lock:
            self._ended = True
        self._feed.fail(error)


class MapService(Service):
    """Runs one call of ``map``, and keeps its results until they are taken."""

    def __init__(self, plan: Plan, rows: Sequence[Any], family: Services) -> None:
        self._left = len(rows)
        self._batches: SimpleQueue[Batch | BaseException] = SimpleQueue()
        super().__init__(plan, Listed(rows), family)

    def close(self) -> None:
        """It takes no more in any case."""

    def results(self, deadline: float | None) -> Iterator[Any]:
        """Iterate over the results; raise the error of the first item that failed, and leave the rest undone then."""
        try:
            while self._left:
                batch = self._next_batch(deadline)
                if isinstance(batch, BaseException):
                    raise batch
                self._left -= len(batch.values)
                values = deque(batch.values)
                for position in range(len(values)):
                    if position in batch.errors:
                        raise batch.errors[position]
                    yield values.popleft()
        finally:
            if self._left:
                self.end()

    def _next_batch(self, deadline: float | None) -> Batch | BaseException:
        while True:
            patience = _BLINK if deadline is None else min(_BLINK, deadline - time.monotonic())
            try:
                return self._batches.get(timeout=max(patience, 0.0))
            except Empty:
                if deadline is not None and time.monotonic() >= deadline:
                    raise TimeoutError from None

    def _hand_out(self, batch: Batch) -> None:
        self._batches.put(batch)

    def _finish(self, error: BaseException) -> None:
        self._batches.put(error)


_services: set[Service] = set()
# They are the parent's.
forks.in_child(_services.clear)


def _leave() -> None:
    """See the calls of all executors to their end that were not shut down."""
    services = list(_services)
    for service in services:
        if service.finish_at_exit:
            service.close()
        else:
            service.end()
    for service in services:
        service.join()
