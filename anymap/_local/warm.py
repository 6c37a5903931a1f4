"""What is kept between maps, and its end."""

from __future__ import annotations

import atexit
import sys
from typing import TYPE_CHECKING

from anymap import _forks, _spool

if TYPE_CHECKING:
    from collections.abc import Callable

_lock = _forks.Lock()
_closers: list[Callable[[], object]] = []


def at_shutdown(close: Callable[[], object]) -> None:
    """Have ``close`` called by :func:`shutdown` and at exit. The same function is remembered once."""
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
    for close in reversed(closers):
        close()
    _spool.remove_own()
    if (made := sys.modules.get("anymap._per_worker")) is not None:
        made.close_here()
