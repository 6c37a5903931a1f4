"""Futures and events that stay in order when a signal handler raises while the main thread waits for them."""

from __future__ import annotations

import concurrent.futures
import threading
import time
from operator import attrgetter
from queue import Empty, SimpleQueue
from typing import TypeVar

T = TypeVar("T")

_BLINK = 0.2
"""Seconds. A signal that comes just before the main thread begins to wait does not wake it: Ctrl-C would be lost."""


class _Condition(threading.Condition):
    """One whose ``with`` is entered by its lock itself, between two steps of the interpreter.

    With the method of the standard library, which is written in Python, a handler may raise when the lock is taken and
    the block not yet entered: nothing releases it then.
    """

    __enter__ = property(attrgetter("_lock.__enter__"))
    __exit__ = property(attrgetter("_lock.__exit__"))

    def wait(self, timeout: float | None = None) -> bool:
        try:
            return super().wait(timeout)
        except BaseException:
            # It may have been raised when the lock was released and the wait not yet begun. The end of the block would
            # raise an error of its own.
            if not self._is_owned():  # type: ignore[attr-defined]
                self.acquire()
            raise


class InterruptibleFuture(concurrent.futures.Future[T]):
    """A future for the caller to wait for."""

    def __init__(self) -> None:
        super().__init__()
        self._condition = _Condition()


class Latch:
    """An event that happens once."""

    def __init__(self) -> None:
        self._is_set = False
        self._wake: SimpleQueue[None] = SimpleQueue()
        """What one thread that waits takes from it, it puts back for the next."""

    def set(self) -> None:
        self._is_set = True
        self._wake.put(None)

    def wait(self, timeout: float | None = None) -> None:
        """Return when it has happened, or after so many seconds."""
        deadline = None if timeout is None else time.monotonic() + timeout
        while not self._is_set:
            patience = _BLINK if deadline is None else min(deadline - time.monotonic(), _BLINK)
            if patience <= 0:
                return
            try:
                self._wake.get(timeout=patience)
            except Empty:
                continue
            self._wake.put(None)
