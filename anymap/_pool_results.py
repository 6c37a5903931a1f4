"""What the methods of a :class:`Pool` return."""

from __future__ import annotations

import multiprocessing
import threading
from collections import deque
from concurrent.futures import CancelledError
from contextlib import suppress
from functools import partial
from typing import TYPE_CHECKING, Any, Generic, Self, TypeVar

from anymap._engine.raising import in_one_frame
from anymap._host.futures import InterruptibleFuture, Latch
from anymap._host.handlers import held_back

if TYPE_CHECKING:
    from collections.abc import Callable
    from concurrent.futures import Future

    from anymap._engine.inline import Inline
    from anymap._engine.run import Run

R = TypeVar("R")


class AsyncResult(Generic[R]):
    """What will come of a call; see :class:`multiprocessing.pool.AsyncResult`."""

    def __init__(
        self,
        future: Future[R],
        callback: Callable[[R], object] | None,
        error_callback: Callable[[BaseException], object] | None,
    ) -> None:
        self._future = future
        self._ended = Latch()
        future.add_done_callback(lambda _: self._ended.set())
        if callback is not None or error_callback is not None:
            future.add_done_callback(partial(_tell, callback, error_callback))

    def __repr__(self) -> str:
        return f"<AsyncResult, {'ready' if self.ready() else 'not ready'}>"

    @in_one_frame
    def get(self, timeout: float | None = None) -> R:
        """Return the result, or raise the error; :class:`multiprocessing.TimeoutError` if there is none after so long."""
        self.wait(timeout)
        if not self.ready():
            raise multiprocessing.TimeoutError
        # Not by result(), whose own frames would be shown.
        if (error := self._future.exception()) is not None:
            raise error
        return self._future.result()

    def wait(self, timeout: float | None = None) -> None:
        """Wait for the result, for at most so many seconds."""
        self._ended.wait(timeout)

    def ready(self) -> bool:
        """Tell whether the call has ended."""
        return self._future.done()

    def successful(self) -> bool:
        """Tell whether it ended without an error; ``ValueError`` if it has not ended."""
        if not self.ready():
            raise ValueError("the call has not ended")
        return not self._future.cancelled() and self._future.exception() is None


def _tell(
    callback: Callable[[R], object] | None, error_callback: Callable[[BaseException], object] | None, future: Future[R]
) -> None:
    error = CancelledError() if future.cancelled() else future.exception()
    if error is not None:
        if error_callback is not None:
            error_callback(error)
    elif callback is not None:
        callback(future.result())


class Results(Generic[R]):
    """The results of a lazy map, errors where they belong."""

    def __init__(self, run: Run | Inline, unfinished: set[Results[Any]]) -> None:
        self._run = run
        self._batches = run.batches()
        self._ready: deque[tuple[Any, BaseException | None]] = deque()
        self._lock = threading.RLock()
        self._unfinished = unfinished
        unfinished.add(self)

    def __repr__(self) -> str:
        return f"<results of an anymap.Pool, {len(self._ready)} ready>"

    def __iter__(self) -> Self:
        return self

    def __next__(self) -> R:
        with self._lock:
            while not self._ready:
                self._take()
            value, error = self._ready.popleft()
        if error is not None:
            __tracebackhide__ = True
            raise error
        return value  # type: ignore[no-any-return]

    def finish(self) -> None:
        """Do the rest of the map."""
        with self._lock, suppress(StopIteration):
            while True:
                self._take()

    def close(self) -> None:
        """Leave the map, which has been told to end: a thread that is in it just now leaves it by itself."""
        if self._lock.acquire(blocking=False):
            self._batches.close()
            self._ready.append((None, CancelledError()))
            self._unfinished.discard(self)
            self._lock.release()

    def _take(self) -> None:
        """Take what is ready next; raise ``StopIteration`` where nothing comes any more."""
        try:
            with held_back():
                batch = next(self._batches)
        except StopIteration:
            self._unfinished.discard(self)
            raise
        except Exception as exc:  # noqa: BLE001 - the input's, raised where the next result is asked for
            self._ready.append((None, exc))
        else:
            self._ready.extend((value, batch.errors.get(position)) for position, value in enumerate(batch.values))


def joined(parts: list[Future[list[R]]]) -> Future[list[R]]:
    """Return a future of all results in one list."""
    whole: Future[list[R]] = InterruptibleFuture()
    left = iter(range(len(parts), 0, -1))

    def finish(_: object) -> None:
        # One step of such an iterator is one for all threads.
        if next(left) == 1:
            try:
                whole.set_result([value for part in parts for value in part.result()])
            except BaseException as exc:  # noqa: BLE001 - the first part's that failed
                whole.set_exception(exc)

    if not parts:
        whole.set_result([])
    for part in parts:
        part.add_done_callback(finish)
    return whole
