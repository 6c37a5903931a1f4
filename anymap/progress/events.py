"""What a map tells about itself while it runs."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Protocol

__all__ = ["Advanced", "Event", "Finished", "Sink", "Started"]


@dataclass(frozen=True, slots=True, kw_only=True)
class Started:
    """The map begins. Always the first event."""

    desc: str | None
    """What the caller calls this map."""
    total: int | None
    """How many items there will be, where that is known."""
    backend: str
    """The backend's name."""
    workers: int
    """How many items can run at once, as far as is known now."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Advanced:
    """Items were finished, or a tenth of a second has passed. Counts are totals, not differences."""

    done: int
    """Items that have an outcome: a result or an error."""
    failed: int
    """Those among ``done`` whose outcome is an error."""
    retried: int
    """Attempts that were made again so far."""
    lost: int
    """Workers that died so far."""
    total: int | None
    """How many items there will be; may become known only on the way."""
    elapsed: float
    """Seconds since the map began."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Finished:
    """The map is over. Always the last event, sent exactly once."""

    done: int
    failed: int
    retried: int
    lost: int
    total: int | None
    elapsed: float
    complete: bool
    """Every item has an outcome; False after an early stop or an error that ended the map."""
    start_up: float = 0.0
    """Seconds until the first item began."""
    work: float = 0.0
    """Seconds that all items took together, wherever they ran."""
    cpu: float = 0.0
    """Seconds of ``work`` that were spent on a CPU."""
    packing: float = 0.0
    """Seconds that the caller's process took to pickle tasks and to load results."""
    waiting: float = 0.0
    """Seconds for which the map waited for its input, or for its consumer to take results."""
    advice: str = ""
    """One line on what would have been quicker; empty where nothing would."""
    gain: float = 1.0
    """How many times quicker that would have been, about."""


Event = Started | Advanced | Finished


class Sink(Protocol):
    """Anything callable that takes an event.

    Calls come one at a time, from the thread that iterates or from a thread of the map's, at most about ten a second
    between the first and the last.
    """

    def __call__(self, event: Event, /) -> object: ...
