"""What is kept between maps, and its end."""

from __future__ import annotations

import atexit
import contextlib
from typing import TYPE_CHECKING

from anymap._host import endings, forks, spill

if TYPE_CHECKING:
    from collections.abc import Callable

_lock = forks.Lock()
_closers: list[Callable[[], object]] = []


def at_shutdown(close: Callable[[], object]) -> None:
    """Have ``close`` called by :func:`anymap.shutdown` and at exit, but not in forks of this process.

    For what a backend keeps between maps. What was registered last is called first, and the same function once. Register
    it again when something is started after a shutdown, or in a fork: that costs nothing where it is known.
    """
    with _lock:
        if not _closers:
            atexit.register(shutdown)
        if close not in _closers:
            _closers.append(close)


def during_a_map() -> RuntimeError:
    """Return what ends a map whose workers were shut down."""
    return RuntimeError("anymap was shut down while a map was running")


def shutdown() -> None:
    """End everything that is kept warm between maps: worker processes and clusters of our own, their files.

    The next map starts what it needs anew. One that is running on these ends with a ``RuntimeError``. Called at exit too.
    """
    with _lock:
        closers = _closers[:]
    with contextlib.ExitStack() as last_first:
        last_first.callback(endings.end_this_thread)
        last_first.callback(spill.remove_own)
        for close in closers:
            last_first.callback(close)


# What the parent has kept is not a fork's to end.
forks.in_child(lambda: _closers.clear())  # noqa: PLW0108 - tests put another list in its place
