"""What a map tells about itself while it runs: one stream of events, the same on every backend.

Indexes count the input's items from 0. ``elapsed`` is in seconds since the map began, on the caller's clock. ``worker`` is
a process id, with the host's name where that is another one.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Protocol

if TYPE_CHECKING:
    from collections.abc import Mapping

__all__ = [
    "BY_DEFAULT",
    "Advanced",
    "Event",
    "Finished",
    "ItemDone",
    "ItemFailed",
    "ItemRetried",
    "ItemStarted",
    "ItemTimedOut",
    "LogRecord",
    "Sink",
    "Started",
    "TaskProgress",
    "WorkerDied",
    "WorkerStarted",
]


@dataclass(frozen=True, slots=True, kw_only=True)
class Started:
    """The map begins. Always the first event."""

    desc: str | None
    """What the caller calls this map."""
    total: int | None
    """How many items there will be, where that is known."""
    backend: str
    """The backend's name; empty for a task that no map is around."""
    workers: int
    """How many items can run at once, as far as is known now."""
    settings: Mapping[str, str] = field(default_factory=dict)
    """Where each setting of the map came from, by its name."""


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
    """Items that have an outcome. Of a map that ended early: with those whose results were not waited for."""
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
    busy: float = 0.0
    """The share of its workers' time that the map used: 1.0 where none of them ever waited."""
    slowest: tuple[tuple[int, float], ...] = ()
    """Index and seconds of the items that took the longest, the slowest first: at most five, and one of each chunk.

    Items of microseconds are timed together, up to 0.2 ms of them, and one stands for all with their mean; where they take
    less than half a microsecond, up to some 20 ms of them.
    """


@dataclass(frozen=True, slots=True, kw_only=True)
class ItemStarted:
    """A worker has begun an attempt of an item.

    It comes again for an item that is tried again, and for one whose chunk was lost with its worker.
    """

    index: int
    worker: str
    elapsed: float
    """When the caller heard of it."""


@dataclass(frozen=True, slots=True, kw_only=True)
class ItemDone:
    """An item has a result. Once for each item that has one, when its chunk has come back."""

    index: int
    worker: str
    seconds: float
    """How long the attempt took that brought it."""
    elapsed: float


@dataclass(frozen=True, slots=True, kw_only=True)
class ItemFailed:
    """An item has an error for its outcome: it will not be tried again.

    A result that the caller cannot load fails after it was done.
    """

    index: int
    worker: str
    """Empty for an item that was never sent to one."""
    error: Exception
    attempts: int
    """How often the item was tried."""
    seconds: float
    """How long the last attempt took."""
    elapsed: float


@dataclass(frozen=True, slots=True, kw_only=True)
class ItemRetried:
    """An attempt of an item has failed, and there will be another one."""

    index: int
    worker: str
    error: Exception
    attempts: int
    """How often the item has failed so far."""
    elapsed: float


@dataclass(frozen=True, slots=True, kw_only=True)
class ItemTimedOut:
    """An attempt of an item was given up after ``timeout=``. Whether there will be another one the next event tells."""

    index: int
    worker: str
    seconds: float
    elapsed: float


@dataclass(frozen=True, slots=True, kw_only=True)
class WorkerStarted:
    """A worker has done its first work for this map."""

    worker: str
    elapsed: float


@dataclass(frozen=True, slots=True, kw_only=True)
class WorkerDied:
    """A worker died, or an engine gave up what it ran."""

    worker: str | None
    """``None`` where the engine does not tell which."""
    exitcode: int | None
    """Negative: the signal that ended it; ``None``: not known."""
    cause: str
    elapsed: float


@dataclass(frozen=True, slots=True, kw_only=True)
class TaskProgress:
    """How far the code inside an item is, as it says by :func:`anymap.task_progress` or :func:`anymap.track`.

    Ten times a second at most for each, and once more when it ends.
    """

    key: str
    """Which one it is: an item may have several."""
    index: int | None
    """The item; ``None`` where that is not known."""
    desc: str | None
    done: int
    total: int | None
    ended: bool
    """This was the last word on it."""
    worker: str
    seconds: float
    """For how long it has run."""
    elapsed: float


@dataclass(frozen=True, slots=True, kw_only=True)
class LogRecord:
    """A worker's log line has arrived."""

    record: Any
    """The :class:`logging.LogRecord`."""
    elapsed: float


Event = (
    Started
    | ItemStarted
    | ItemDone
    | ItemFailed
    | ItemRetried
    | ItemTimedOut
    | WorkerStarted
    | WorkerDied
    | Advanced
    | TaskProgress
    | LogRecord
    | Finished
)

BY_DEFAULT: frozenset[type[Any]] = frozenset({Started, Advanced, TaskProgress, Finished})
"""What a sink is called with that does not say what it wants: all but what comes for single items, workers and lines."""


class Sink(Protocol):
    """Anything callable that takes an event.

    Calls come one at a time, from the thread that iterates or from a thread of the map's, each in a copy of the context in
    which the map was called. A sink that has an attribute
    ``wants``, a collection of event types, is called with events of these types and no others, whose cost no other sink
    pays; one that has none gets :data:`BY_DEFAULT`, which is at most some ten events a second between the first and the
    last, and ten more for each bar that an item shows.

    >>> from anymap import pmap
    >>> from anymap.progress import ItemDone
    >>> seconds = {}
    >>> def note(event):
    ...     seconds[event.index] = event.seconds
    >>> note.wants = {ItemDone}
    >>> pmap(abs, [-1, -2], backend="serial", progress=note)
    [1, 2]
    >>> sorted(seconds)
    [0, 1]
    """

    def __call__(self, event: Event, /) -> object: ...
