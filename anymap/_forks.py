"""What a fork of this process finds of it: locks open, and nothing that is the parent's."""

from __future__ import annotations

import os
import threading
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Callable


def in_child(action: Callable[[], object]) -> None:
    """Have ``action`` called in every fork of this process, for as long as this lives."""
    if hasattr(os, "register_at_fork"):
        os.register_at_fork(after_in_child=action)


class Lock:
    """A reentrant lock of a module, open in a fork unless the thread that forked holds it: the others are not there."""

    def __init__(self) -> None:
        self._lock = threading.RLock()
        in_child(self._renew)

    def acquire(self, *, blocking: bool = True) -> bool:
        return self._lock.acquire(blocking=blocking)

    def release(self) -> None:
        self._lock.release()

    def __enter__(self) -> None:
        self._lock.acquire()

    def __exit__(self, *_: object) -> None:
        self._lock.release()

    def _renew(self) -> None:
        if not self._lock._is_owned():  # type: ignore[attr-defined]  # as threading.Condition asks
            self._lock = threading.RLock()
