"""What has to be finished before the program ends, while the engines still work."""

from __future__ import annotations

import threading
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Callable

_finishers: list[Callable[[], object]] = []


def finish_first(finish: Callable[[], object]) -> None:
    """Have ``finish`` called when the main thread has ended, before engines wait for theirs. It is remembered once.

    Raises ``RuntimeError`` if that has begun.
    """
    if finish not in _finishers:
        # As the executors of the standard library do: what is registered with ``atexit`` is called after they have ended.
        threading._register_atexit(finish_all)  # type: ignore[attr-defined]
        _finishers.append(finish)


def finish_all() -> None:
    """Finish now. Also for an engine that has registered itself there later, and so is called first."""
    for finish in _finishers:
        finish()
