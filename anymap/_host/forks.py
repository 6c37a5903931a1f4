"""What a fork of this process finds of it: locks open, and nothing that is the parent's."""

from __future__ import annotations

import os
import re
import sys
import threading
from contextlib import suppress
from operator import attrgetter
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Callable


def in_child(action: Callable[[], object]) -> None:
    """Have ``action`` called in every fork of this process, for as long as this lives."""
    if hasattr(os, "register_at_fork"):
        os.register_at_fork(after_in_child=action)


_THREADS_OF = {"grpc": re.compile(r"event_engine|grpc_"), "polars": re.compile(r"polars-\d")}
"""Libraries that may wait for ever in a fork once they have been used in its parent, and the names of the threads that they then have there."""


def dangerous_libraries() -> list[str]:
    """Return which libraries are known not to survive a fork of this process as it is now."""
    loaded = [name for name in _THREADS_OF if sys.modules.get(name) is not None]
    if not loaded:
        return []
    threads = _names_of_threads()
    return [name for name in loaded if threads is None or any(map(_THREADS_OF[name].match, threads))]


def _names_of_threads() -> list[str] | None:
    """Return the system's names of this process's threads; ``None`` where it tells none."""
    names: list[str] = []
    try:
        threads = os.listdir("/proc/self/task")
    except OSError:
        return None
    for thread in threads:
        with suppress(OSError), open(f"/proc/self/task/{thread}/comm", encoding="utf-8", errors="replace") as file:
            names.append(file.read())
    return names


class Lock:
    """A reentrant lock of a module, open in a fork unless the thread that forked holds it: the others are not there."""

    def __init__(self) -> None:
        self._lock = threading.RLock()
        in_child(self._renew)

    def acquire(self, *, blocking: bool = True) -> bool:
        return self._lock.acquire(blocking=blocking)

    def release(self) -> None:
        self._lock.release()

    # Entered by the lock itself: in a method that is written in Python a signal handler may raise when the lock is taken
    # and the block not yet entered, and nothing would release it.
    __enter__ = property(attrgetter("_lock.__enter__"))
    __exit__ = property(attrgetter("_lock.__exit__"))

    def _renew(self) -> None:
        if not self._lock._is_owned():  # type: ignore[attr-defined]  # as threading.Condition asks
            self._lock = threading.RLock()
