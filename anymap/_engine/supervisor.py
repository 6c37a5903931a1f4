"""The thread that looks after a map while its caller does something else."""

from __future__ import annotations

import sys
import threading
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Callable

_INTERVAL = 0.1
"""Seconds between two looks when nothing happens."""


class Supervisor:
    """Calls ``tick`` ten times a second, and at once when woken. Where not ``busy`` after a tick: only when woken."""

    def __init__(self, tick: Callable[[], None], busy: Callable[[], bool] = lambda: True) -> None:
        self._tick = tick
        self._busy = busy
        self.rests = False
        """It will not look again until it is woken, or is about to find out whether it has to."""
        self._woken = threading.Event()
        self._stopped = False
        self._thread: threading.Thread | None = None

    @property
    def started(self) -> bool:
        return self._thread is not None

    def start(self) -> None:
        thread = threading.Thread(target=self._work, name="anymap-supervisor", daemon=True)
        note_as_here(thread)
        thread.start()
        self._thread = thread

    def wake(self) -> None:
        self._woken.set()

    def stop(self) -> None:
        """End the thread; on return it is in no tick, unless this is the thread itself."""
        self._stopped = True
        # What it looked after holds this: they would keep each other, and all they hold, until garbage is collected.
        self._tick, self._busy = _nothing, bool
        self._woken.set()
        if self._thread is None or self._thread is threading.current_thread() or sys.is_finalizing():
            # When the interpreter ends with a map left open, its daemon threads have stopped where they were.
            return
        self._thread.join()

    def _work(self) -> None:
        while not self._stopped:
            self._woken.wait(None if self.rests else _INTERVAL)
            self._woken.clear()
            if not self._stopped:
                self._tick()
                # Said before it looks: what begins just then wakes it for nothing, rather than not at all.
                self.rests = True
                self.rests = not self._busy()


def note_as_here(thread: threading.Thread) -> None:
    """Note on a new thread what others have noted on the current one: Streamlit's session is an attribute of the thread."""
    for name, value in vars(threading.current_thread()).items():
        if not name.startswith("_") and not hasattr(thread, name):
            setattr(thread, name, value)


def _nothing() -> None:
    pass
