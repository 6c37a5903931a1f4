"""What the caller and a worker exchange: tasks, answers, and what all tasks of a map have in common."""

from __future__ import annotations

import sys
from typing import TYPE_CHECKING, Any, NamedTuple

if TYPE_CHECKING:
    from collections.abc import Callable

    from anymap._config.scope import Inherited

PROTOCOL = 11
"""Raised by one whenever what tasks or answers look like changes."""


class Tells(NamedTuple):
    """What running code may tell its map, and how that gets there; see ``_in_worker.tell``."""

    topics: frozenset[str]
    """The topics that have a listener."""
    hear: Callable[[Any], object] | None = None
    """Takes a message at once, where memory is shared."""
    path: str | None = None
    """The pipe to the caller, if the caller is on this host."""
    tag: int = 0
    """What the caller knows the map by at the other end of the pipe."""


class MapSpec(NamedTuple):
    """What all tasks of one map have in common."""

    map_id: str
    function: Any
    """The function itself where memory is shared, else its payload."""
    star: bool
    """Rows are tuples, to be spread over the function's parameters."""
    board: Any
    """A path; the board's memory itself where memory is shared; ``None`` where the caller's board cannot be reached."""
    channel: Any
    """A :class:`~anymap.backends.base.Channel` to tell by how far a chunk is; ``None`` where there is no listener."""
    timeout: float | None
    """Seconds after which the caller gives an item up."""
    spool: str | None
    """The folder for large results; ``None`` where no folder is shared."""
    parent: int
    """The caller's process id; 0 where that is on another host or the worker is not ours to look after."""
    shares_memory: bool
    inherited: Inherited
    """What holds for maps inside of this one."""
    places: Any = None
    """How its workers agree on their indices, see ``_in_worker.worker_index``: between threads the list of owners, between
    processes of this host how many there are, elsewhere what finds out. ``None``: they cannot."""
    tells: Tells | None = None
    """``None`` where there is no listener."""
    around: Callable[[Callable[..., Any]], Callable[..., Any]] | None = None
    """A function of ours that wraps the map's, out there."""
    outer: Any = None
    """Where memory is shared: the context of the task that called the map, if a task did."""
    environment: Any = None
    """What items find around them; see ``_environment``. ``None``: what is there."""
    process_state: bytes | None = None
    """What the worker's process becomes before the map; ``None``: what it is."""


class TaskData:
    """A chunk on its way to a worker."""

    __slots__ = ("budget", "classes", "count", "may_fail", "most", "rows", "slot", "spec", "start")

    def __init__(
        self,
        spec: MapSpec,
        rows: Any,
        count: int,
        slot: int,
        budget: float | None,
        classes: dict[int, bytes],
        start: int = 0,
        may_fail: int | None = None,
    ) -> None:
        self.spec = spec
        self.rows = rows
        self.start = start
        """The place of the first row in the map's input."""
        self.count = count
        self.most = count
        """So many rows may be run; a worker process that is to be replaced soon sets it."""
        self.slot = slot
        self.budget = budget
        self.classes = classes
        self.may_fail = may_fail
        """So many rows may fail; the chunk ends at the next that does. ``None``: all of them."""


class Answer(NamedTuple):
    """What became of a chunk's first ``done`` rows; the rest have not been started."""

    done: int
    values: Any
    """A list where memory is shared, else a payload; failed and missing values are ``None``."""
    failures: list[tuple[int, Any, float]]
    """Position, exception (encoded unless memory is shared) and seconds of each row that failed."""
    seconds: float
    longest: float
    """How long the slowest row took, in seconds."""
    cpu: float
    """What of ``seconds`` was spent on a CPU."""
    worker: str
    slot: int
    """The task's, so that an answer that was mixed up with another is found out."""
    broken: Any = None
    """Why there is no answer: as a rule, because the function could not be loaded there."""
    slowest: int = 0
    """The position of the row that took the longest."""
    told: list[bytes] | None = None
    """Messages of the items to their map that nothing else has brought home; see ``_in_worker.tell``."""
    durations: dict[int, float] | None = None
    """Seconds that each row took, by its position, where a sink wants to know."""
    kept: dict[int, str] | None = None
    """What items that failed have printed, by position, where it is kept."""
    queued: float | None = None
    """What of ``seconds`` they were ready to run and had no CPU; ``None`` where the system does not say."""


def dialect() -> tuple[int, int, int]:
    """Return what caller and worker must have in common: the protocol, and the Python that code is compiled for."""
    return PROTOCOL, *sys.version_info[:2]


def describe_mismatch(caller: tuple[int, int, int], worker: tuple[int, int, int]) -> str:
    protocols = f"the caller has Python {caller[1]}.{caller[2]} and anymap's protocol {caller[0]}"
    return f"{protocols}, the worker {worker[1]}.{worker[2]} and {worker[0]}: install the same on both"
