"""How far the code inside an item is: told to the map around it, which shows it; outside of a map, shown here."""

from __future__ import annotations

import itertools
import math
import operator
import time
from typing import TYPE_CHECKING, Any, Self, TypeVar

from anymap._config import layers
from anymap._errors import ConfigError
from anymap._host.live_messages import TASK
from anymap._in_worker import tell as _tell
from anymap._worker.maps import serves
from anymap.progress._block import BlockProgress
from anymap.progress.events import Advanced, Finished, Started

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator
    from types import TracebackType

    from anymap._worker.context import TaskContext

T = TypeVar("T")

_INTERVAL = 0.1
"""Seconds between two words on one task."""
_numbers = itertools.count()
_clock = time.monotonic


def task_progress(*, total: int | None = None, desc: str | None = None) -> Progress:
    """Show how far the code inside an item is: a bar of its own, below that of the map.

    The map draws it, wherever the item runs, on a dask worker of another machine too; a sink gets it as
    :class:`~anymap.progress.events.TaskProgress`. ``total``: how many updates there will be, where that is known.
    ``desc``: what the bar is called, else it has the item's number. An update takes less than a microsecond, as the map
    is told ten times a second at most. Outside of a map this is a plain bar, shown where and when a map's would be.

    Raises:
        ConfigError: ``total`` is no whole number, or ``desc`` no text.

    >>> from anymap import pmap, task_progress
    >>> def add_up(most):
    ...     with task_progress(total=most, desc=f"up to {most}") as bar:
    ...         total = 0
    ...         for number in range(most):
    ...             total += number
    ...             bar.update()
    ...     return total
    >>> pmap(add_up, [10, 100])
    [45, 4950]
    """
    return Progress(total, desc)


def track(rows: Iterable[T], *, desc: str | None = None, total: int | None = None) -> Iterator[T]:
    """Yield from ``rows`` and show how far that is: :func:`task_progress` for a loop.

    ``total`` is their number, where ``len()`` tells nothing or something else.

    >>> from anymap import pmap, track
    >>> pmap(lambda text: [letter.upper() for letter in track(text)], ["ab", "c"])
    [['A', 'B'], ['C']]
    """
    if not hasattr(rows, "__iter__") and not hasattr(rows, "__getitem__"):
        raise TypeError(f"track takes what can be iterated over, not {rows!r}")
    if total is None:
        try:
            total = len(rows)  # type: ignore[arg-type]
        except TypeError:
            total = None
    return _tracked(rows, Progress(total, desc))


def _tracked(rows: Iterable[T], progress: Progress) -> Iterator[T]:
    with progress:
        update = progress.update
        for row in rows:
            yield row
            update()


class Progress:
    """What :func:`task_progress` returns. Use it in a ``with`` block, and update it from one thread."""

    def __init__(self, total: int | None = None, desc: str | None = None) -> None:
        if not isinstance(desc, str | None):
            raise ConfigError(f"desc must be a string, not {desc!r}")
        self.total = _whole(total)
        """How many updates there will be. May be set while it runs."""
        self.desc = desc
        """What it is called. May be set while it runs."""
        self.done = 0
        """The updates so far."""
        self._began = 0.0
        self._due = math.inf
        self._audience: _Map | _Screen | None = None

    def update(self, n: int = 1) -> None:
        """Say that ``n`` more are done."""
        self.done += n
        if (now := _clock()) >= self._due:
            self._due = now + _INTERVAL
            self._tell(now)

    def __repr__(self) -> str:
        return f"<Progress desc={self.desc!r}, total={self.total}>"

    def __enter__(self) -> Self:
        self.open()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, exc: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self.close()

    def open(self, place: TaskContext | None = None) -> None:
        """Begin; ``place`` says inside of what, if that is not to be found from here."""
        self._began = now = _clock()
        self._audience = _find_audience() if place is None else _Map(place)
        if self._audience is not None:
            self._due = now + _INTERVAL
            self._tell(now, first=True)

    def close(self) -> None:
        self._tell(_clock(), ended=True)
        self._audience, self._due = None, math.inf

    def _tell(self, now: float, *, first: bool = False, ended: bool = False) -> None:
        if self._audience is not None:
            self._audience.hear(self, now - self._began, first=first, ended=ended)


class _Map:
    """The map that the task is inside of."""

    def __init__(self, place: TaskContext) -> None:
        self._place = place
        self._number = next(_numbers)

    def hear(self, task: Progress, seconds: float, *, first: bool, ended: bool) -> None:
        message = (self._number, task.desc, task.done, task.total, seconds, first, ended)
        _tell.tell(TASK, message, patience=1.0 if first or ended else 0.0, place=self._place)


class _Screen:
    """The sinks of a map that is not there."""

    def __init__(self, emitter: Any) -> None:
        self._emitter = emitter

    def hear(self, task: Progress, seconds: float, *, first: bool, ended: bool) -> None:
        counts: dict[str, Any] = {"done": task.done, "failed": 0, "retried": 0, "lost": 0, "total": task.total}
        if first:
            self._emitter.emit(Started(desc=task.desc, total=task.total, backend="", workers=1))
        elif ended:
            complete = task.total is None or task.done >= task.total
            self._emitter.emit(Finished(**counts, elapsed=seconds, complete=complete))
        else:
            self._emitter.emit(Advanced(**counts, elapsed=seconds))


def _find_audience() -> _Map | _Screen | None:
    if (place := _tell.find(TASK)) is not None:
        return _Map(place)
    if serves() or (config := layers.current()).inherited is not None:
        return None
    from anymap import progress  # noqa: PLC0415 - workers need nothing of it

    option = config.value("progress")
    emitter = progress.Emitter(progress.resolve(option.progress if isinstance(option, BlockProgress) else option))
    return _Screen(emitter) if emitter else None


def _whole(total: Any) -> int | None:
    try:
        number = None if total is None else operator.index(total)
    except TypeError:
        number = -1
    if number is not None and number < 0:
        raise ConfigError(f"total must be a whole number, 0 or more, not {total!r}")
    return number
