"""What each worker makes for itself once, and closes when it ends: a model, a connection.

A worker is the thread that runs items, so what it has made is never used by two at once.
"""

from __future__ import annotations

import atexit
import contextlib
import os
import sys
import threading
import weakref
from typing import TYPE_CHECKING, Any, Generic, TypeVar

from anymap._host import endings, forks, own_log
from anymap._serialize.share import Shared, share

if TYPE_CHECKING:
    from collections.abc import Callable

T = TypeVar("T")


class PerWorker(Generic[T]):
    """A handle of what each worker makes for itself; :func:`per_worker` makes it."""

    def __init__(self, factory: Shared[Callable[[], T]]) -> None:
        self._factory = factory

    def get(self) -> T:
        """Return this worker's own, which is made at the first call; later items and maps get the same.

        What the factory raises is the error of the item that asked; the next one that asks has it tried again.
        """
        made = _mine().made
        if self._factory.key not in made:
            made[self._factory.key] = _mine().keep(self._factory.get()())
        value: T = made[self._factory.key]
        return value

    def __repr__(self) -> str:
        return f"<PerWorker {self._factory!r}>"

    def __reduce__(self) -> tuple[Any, ...]:
        return PerWorker, (self._factory,)


def per_worker(factory: Callable[[], T]) -> PerWorker[T]:
    """Return a handle by which each worker makes an object for itself at its first ``get()`` and keeps it.

    A worker is a thread that runs items: of a process that runs one at a time it is that process. On ``processes`` and
    ``dask`` what it has made serves later maps too; on ``threads`` and ``pathos``, whose workers end with the map, it
    does not. In the caller's own thread (``serial``, or outside of any map) it serves to :func:`anymap.shutdown`.

    When the worker ends, the last made is closed first: a context manager, which was entered, is left; then ``close()``
    is called, if there is one. A worker that is killed, or dies, closes nothing.

    The factory is shipped once, as :func:`anymap.share` would. Two handles are two objects.

    >>> import io
    >>> from anymap import per_worker, pmap
    >>> log = per_worker(io.StringIO)
    >>> pmap(lambda text: log.get().write(text), ["one", "three"], backend="serial")
    [3, 5]
    """
    if not callable(factory):
        raise TypeError(f"per_worker takes a function that makes the object in each worker, not {factory!r}")
    return PerWorker(share(factory))


class _Worker:
    """What one thread has made."""

    def __init__(self) -> None:
        self.made: dict[str, Any] = {}
        self._pid = os.getpid()
        self._exits = contextlib.ExitStack()
        _workers.add(self)
        _close_at_exit()

    def keep(self, obj: Any) -> Any:
        """Have ``obj`` closed with this worker; return what its context manager gives, if it is one."""
        close = getattr(obj, "close", None)
        if callable(close):
            self._exits.callback(_quietly, close)
        if not hasattr(type(obj), "__exit__"):
            return obj
        value = type(obj).__enter__(obj)
        self._exits.callback(_quietly, type(obj).__exit__, obj, None, None, None)
        return value

    def close(self) -> None:
        """Close all, the last made first."""
        if self._pid == os.getpid():
            self.made.clear()
            self._exits.close()

    def __del__(self) -> None:
        # When its thread has ended. A fork ends the others of its parent's threads, whose things are not its own.
        if self._pid == os.getpid():
            self.close()
        else:
            _of_the_parent.append((self.made, self._exits))


def _quietly(close: Callable[..., object], *arguments: Any) -> None:
    """No caller is left that could act on an error, so it is logged."""
    try:
        close(*arguments)
    except Exception:  # noqa: BLE001 - it is the user's
        own_log.exception("what a worker has made for itself could not be closed")


_workers: weakref.WeakSet[_Worker] = weakref.WeakSet()
_of_the_parent: list[Any] = []
"""What a fork has inherited: to let go of a connection may be enough to close it, and it is the parent's."""
_here = threading.local()
_prepared = 0
"""The process that knows that it has something to close at its end."""


def _mine() -> _Worker:
    if not hasattr(_here, "worker"):
        _here.worker = _Worker()
    worker: _Worker = _here.worker
    return worker


def anything_made() -> bool:
    """Tell whether a thread of this process has something to close."""
    return any(worker.made for worker in list(_workers))


def close_here() -> None:
    """Close what this thread has made. It may make it anew."""
    if hasattr(_here, "worker"):
        _here.worker.close()


def close_all() -> None:
    """Close what any thread of this process has made, which is about to end."""
    close_here()
    for worker in list(_workers):
        worker.close()


def _close_at_exit() -> None:
    global _prepared  # noqa: PLW0603 - a fact about the process
    if _prepared == os.getpid():
        return
    _prepared = os.getpid()
    atexit.register(close_all)
    # Processes of this family call only what was left with them.
    for name in ("multiprocessing.util", "multiprocess.util"):
        if (util := sys.modules.get(name)) is not None:
            util.Finalize(None, close_all, exitpriority=0)


def _after_fork() -> None:
    global _here  # noqa: PLW0603 - what the thread that forked has made is the parent's
    _of_the_parent.append(_here)
    _here = threading.local()


forks.in_child(_after_fork)
endings.register(endings.Ending(anything_made, close_here, close_all))
