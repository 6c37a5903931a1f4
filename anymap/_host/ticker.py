"""Looking in, now and then, on what is under way in this process."""

from __future__ import annotations

import contextlib
import threading
import time
from typing import TYPE_CHECKING, Generic, TypeVar

from anymap._host import forks, own_log

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

T = TypeVar("T")


class Ticker(Generic[T]):
    """One thread that calls ``visit`` with each of those present, every ``interval`` seconds, while there are any.

    If that raises, it is said once, and that one is not visited again.
    """

    def __init__(self, visit: Callable[[T], object], interval: float, name: str) -> None:
        self._visit = visit
        self._interval = interval
        self._name = name
        self._present: set[T] = set()
        self._lock = forks.Lock()
        self._thread: threading.Thread | None = None
        forks.in_child(self._begin_anew)

    @contextlib.contextmanager
    def visiting(self, one: T) -> Iterator[None]:
        """Look in on ``one`` while this lasts."""
        self.enter(one)
        try:
            yield
        finally:
            self.leave(one)

    def enter(self, one: T) -> None:
        """Look in on ``one`` until it leaves. Raises ``RuntimeError`` where no thread can be started."""
        with self._lock:
            if self._thread is None:
                thread = threading.Thread(target=self._tick_all, name=self._name, daemon=True)
                thread.start()
                self._thread = thread
            self._present.add(one)

    def leave(self, one: T) -> None:
        with self._lock:
            self._present.discard(one)

    def _tick_all(self) -> None:
        while True:
            time.sleep(self._interval)
            with self._lock:
                present = list(self._present)
                if not present:
                    self._thread = None
                    return
            for one in present:
                self._try_to_visit(one)

    def _try_to_visit(self, one: T) -> None:
        try:
            self._visit(one)
        except Exception:  # noqa: BLE001 - one task's fault is no other's
            with self._lock:
                self._present.discard(one)

            own_log.exception("%s: a task is no longer looked after", self._name)

    def _begin_anew(self) -> None:
        """In a fork: those present are the parent's, and so is the thread."""
        self._present = set()
        self._thread = None
