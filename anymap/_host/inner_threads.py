"""How many threads numerical libraries (BLAS, OpenMP) may use in a process that runs before they can be told by variables.

That takes threadpoolctl, and is left alone where that is not installed.
"""

from __future__ import annotations

import importlib.util
import os
import sys
from typing import Any

from anymap._host import cpus, forks

VARIABLES = (
    "OMP_NUM_THREADS",
    "OPENBLAS_NUM_THREADS",
    "MKL_NUM_THREADS",
    "NUMEXPR_NUM_THREADS",
    "VECLIB_MAXIMUM_THREADS",
)
"""By these the libraries are told when they are loaded."""

_lock = forks.Lock()
_limits: list[int] = []
"""Of the maps that run in this process's own threads just now."""
_limiter: Any = None
_known: tuple[int, Any] = (0, None)


def share(workers: int) -> int:
    """Return how many each of so many workers may use if none is to wait for a CPU."""
    return max(1, cpus.available() // workers)


def limit(workers: int, asked: int | None) -> int | None:
    """Hold each of so many workers in this process to ``asked`` threads, or to its share of the CPUs.

    Returns what :func:`lift` is to be given. The strictest limit holds. Not asked, it leaves alone what the user has set.
    """
    if asked is None and (workers == 1 or any(name in os.environ for name in VARIABLES)):
        return None
    threads = asked or share(workers)
    with _lock:
        _limits.append(threads)
        _apply()
    return threads


def lift(threads: int | None) -> None:
    """Take a limit back."""
    with _lock:
        if threads in _limits:
            _limits.remove(threads)
            _apply()


def _apply() -> None:
    global _limiter  # noqa: PLW0603 - what holds is a fact about the process
    if _limiter is not None:
        _limiter.restore_original_limits()
        _limiter = None
    if _limits and (controller := _controller()) is not None:
        _limiter = controller.limit(limits=min(_limits))


def _controller() -> Any:
    """Return what knows the libraries that are loaded; ``None`` where there can be none, or where it cannot be told."""
    global _known  # noqa: PLW0603 - a cache of the process: to look for them takes longer than a small map
    if sys.modules.get("numpy") is None or importlib.util.find_spec("threadpoolctl") is None:
        return None
    if _known[0] != len(sys.modules):
        import threadpoolctl  # noqa: PLC0415 - only where it is of use

        _known = len(sys.modules), threadpoolctl.ThreadpoolController()
    return _known[1]


# Its limits are those of the parent's maps.
forks.in_child(_limits.clear)
