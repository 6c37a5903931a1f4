"""What threads and processes that run items close when they end."""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple

if TYPE_CHECKING:
    from collections.abc import Callable


class Ending(NamedTuple):
    """How one module closes what it keeps for workers.

    Attributes:
        is_due: Tells whether any thread of this process has something to close.
        of_this_thread: Closes what the calling thread keeps.
        of_all_threads: Closes what any thread of this process keeps.
    """

    is_due: Callable[[], bool]
    of_this_thread: Callable[[], object]
    of_all_threads: Callable[[], object]


_endings: list[Ending] = []


def register(ending: Ending) -> None:
    """Have ``ending`` called from now on. A module registers when it is loaded, so what no item uses costs nothing."""
    _endings.append(ending)


def is_due() -> bool:
    """Tell whether any thread of this process has something to close."""
    return any(ending.is_due() for ending in _endings)


def end_this_thread() -> None:
    """Close what the calling thread keeps."""
    for ending in _endings:
        ending.of_this_thread()


def end_all_threads() -> None:
    """Close what any thread of this process keeps; the process is about to end."""
    for ending in _endings:
        ending.of_all_threads()
