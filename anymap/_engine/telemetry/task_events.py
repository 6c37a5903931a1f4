"""What items show of their own progress, and inner maps of theirs, as events of the map around them."""

from __future__ import annotations

import dataclasses
import threading
from typing import TYPE_CHECKING

from anymap._host.live_messages import TASK
from anymap._in_worker import tell
from anymap._in_worker.task_progress import Progress
from anymap.progress import BarSink
from anymap.progress.events import Advanced, Event, Finished, Started, TaskProgress

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable

    from anymap._engine.ledger import Chunk
    from anymap._engine.telemetry.measures import Timings
    from anymap._host.live_messages import Told
    from anymap.backends.base import Traits
    from anymap.progress import Emitter
    from anymap.progress.events import Sink

_TO_SETTLE = 0.1
"""Seconds. The thread that waits so long has deadlines to look after."""
_MOST = 1000
"""As many are known at once; what more there are goes untold."""


class Tasks:
    """Keeps the last word on each task that is under way. Told by many threads, it tells by one, when asked to."""

    def __init__(self, emitter: Emitter, timings: Timings, traits: Traits, settle: Callable[[float], object]) -> None:
        """``settle`` waits so many seconds at most for what has been told so far to be heard."""
        self._emitter = emitter
        self._settle = settle
        self._timings = timings
        self._remote = traits.remote
        self._lock = threading.Lock()
        self._open: dict[str, TaskProgress] = {}
        self._via: dict[str, int] = {}
        self._changed: dict[str, TaskProgress] = {}

    def hear(self, told: Told) -> None:
        number, desc, done, total, seconds, first, ended = told.message
        event = TaskProgress(
            key=f"{told.host}-{told.pid}-{number}",
            index=told.item,
            desc=desc,
            done=done,
            total=total,
            ended=ended,
            worker=f"{told.pid} on {told.host}" if self._remote else str(told.pid),
            seconds=seconds,
            elapsed=self._timings.elapsed,
        )
        with self._lock:
            # What comes after the end of its item is of no interest.
            if first:
                self._end_those_of_dead_workers(event.index, told.via)
                self._via[event.key] = told.via
            if first or event.key in self._open:
                self._take(event)

    def emit_changes(self, in_flight: Callable[[], Iterable[Chunk]]) -> None:
        """Emit the last word on each that has changed, and that those have ended whose item is not ``in_flight``."""
        known = list(self._open.values())  # first: what is told of later may be in flight only later
        chunks = [chunk.indexes for chunk in in_flight()]
        over = {event.key for event in known if event.index is not None and not any(event.index in of for of in chunks)}
        if over:
            # Their items told the last of it before they ended. By its own way it may come later.
            self._settle(_TO_SETTLE)
            self._end(over)
        self._emit()

    def end(self) -> None:
        """Emit that all have ended."""
        self._end(set(self._open))
        self._emit()

    def _emit(self) -> None:
        with self._lock:
            changed, self._changed = self._changed, {}
        for event in changed.values():
            self._emitter.emit(event)

    def _end(self, keys: set[str]) -> None:
        with self._lock:
            for key in self._open.keys() & keys:
                self._take(_as_ended(self._open[key]))

    def _end_those_of_dead_workers(self, index: int | None, worker: int) -> None:
        """An item that shows something in another worker is being tried again."""
        for event in list(self._open.values()):
            if index is not None and event.index == index and self._via.get(event.key) != worker:
                self._take(_as_ended(event))

    def _take(self, event: TaskProgress) -> None:
        if event.ended:
            self._open.pop(event.key, None)
            self._via.pop(event.key, None)
        elif len(self._open) < _MOST or event.key in self._open:
            self._open[event.key] = event
        if len(self._changed) < _MOST or event.key in self._changed:
            self._changed[event.key] = event


def _as_ended(event: TaskProgress) -> TaskProgress:
    return dataclasses.replace(event, ended=True)


# --- inner maps -------------------------------------------------------------------------------------------------------


def passed_out(sinks: tuple[Sink, ...], depth: int) -> tuple[Sink, ...]:
    """Return the sinks of a map, with what draws a bar replaced, in an inner one, by what has the outer map draw it."""
    if not depth or not any(isinstance(sink, BarSink) for sink in sinks) or tell.find(TASK) is None:
        return sinks
    return tuple(InnerBar() if isinstance(sink, BarSink) else sink for sink in sinks)


class InnerBar:
    """Shows an inner map as a task of the item that it is called in."""

    wants = frozenset({Started, Advanced, Finished})

    def __init__(self) -> None:
        self._place = tell.find(TASK)
        self._progress = Progress()

    def __call__(self, event: Event, /) -> None:
        match event:
            case Started():
                self._progress = Progress(event.total, event.desc)
                self._progress.open(self._place)
            case Advanced():
                self._move(event)
            case Finished():
                self._move(event)
                self._progress.close()

    def _move(self, event: Advanced | Finished) -> None:
        self._progress.total = event.total
        self._progress.update(event.done - self._progress.done)
