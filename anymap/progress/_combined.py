"""Shows several maps as one: those of a ``using`` block, or of a pool."""

from __future__ import annotations

import threading
import time
from dataclasses import fields, replace
from typing import TYPE_CHECKING, Any

from anymap.progress._emitter import Emitter, wants
from anymap.progress._resolve import resolve
from anymap.progress.events import Advanced, Event, Finished, Started, TaskProgress

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator

    from anymap.progress._block import BlockProgress
    from anymap.progress.events import Sink

__all__ = ["sinks_of_map"]

_ADDED_UP = ("done", "failed", "retried", "lost", "start_up", "work", "cpu", "packing", "waiting")
"""The fields of events whose sums tell of all maps."""


def sinks_of_map(block: BlockProgress) -> list[Sink]:
    """Return the sinks of one more map of a block: the block's own, and those that are for each map by itself."""
    combined: CombinedProgress = block.shown_by(CombinedProgress)
    return [*combined.part(), *(sink for option in combined.for_each_map for sink in resolve(option))]


class CombinedProgress:
    """Adds up the events of maps, which may run at the same time, for the sinks that show maps.

    Sinks that are called with the events of single maps, such as a file of events, are left out: ``for_each_map``.
    """

    def __init__(self, block: BlockProgress) -> None:
        self.for_each_map: list[Any] = []
        self._block = block
        self._sinks = list(self._shared(block.progress))
        self._emitter = Emitter(self._sinks)
        self._lock = threading.RLock()
        self._began: float | None = None
        self._running: dict[_Part, Advanced] = {}
        self._ended: list[Finished] = []
        """One event at most: that of all maps that have ended."""

    def part(self) -> Iterator[Sink]:
        """Return the sink of one more map, if anything is shown."""
        if self._emitter:
            yield _Part(self, self._sinks)

    def hear(self, part: _Part, event: Event) -> None:
        """Take in the event of one map, and show what all of them amount to."""
        with self._lock:
            match event:
                case Started():
                    self._start(event)
                case Advanced():
                    self._running[part] = event
                    self._advance()
                case TaskProgress():
                    self._emitter.emit(replace(event, elapsed=self._elapsed()))
                case Finished():
                    self._running.pop(part, None)
                    self._ended = [_sum([*self._ended, event])]
                    self._advance()

    def finish(self) -> None:
        """Show the end: there are no more maps."""
        with self._lock:
            if self._began is not None:
                end = _sum([*self._ended, *map(_as_finished, self._running.values())])
                self._emitter.emit(replace(end, total=self._block.total, elapsed=self._elapsed()))

    def _shared(self, option: Any) -> Iterator[Sink]:
        if isinstance(option, list | tuple):
            for each in option:
                yield from self._shared(each)
            return
        sinks = resolve(option)
        if any(getattr(sink, "shows_maps", False) for sink in sinks):
            yield from sinks
        elif sinks:
            self.for_each_map.append(option)

    def _start(self, event: Started) -> None:
        if self._began is None:
            self._began = time.monotonic()
            self._emitter.emit(replace(event, desc=self._block.desc, total=self._block.total))

    def _advance(self) -> None:
        counts = _counts([*self._ended, *self._running.values()])
        told = {name: counts[name] for name in ("done", "failed", "retried", "lost")}
        self._emitter.emit(Advanced(**told, total=self._block.total, elapsed=self._elapsed()))

    def _elapsed(self) -> float:
        return 0.0 if self._began is None else time.monotonic() - self._began


class _Part:
    """The sink of one map."""

    def __init__(self, whole: CombinedProgress, sinks: Iterable[Sink]) -> None:
        self.wants = frozenset[type[Any]]().union(*map(wants, sinks)) | {Started, Advanced, Finished}
        self.draws = any(getattr(sink, "draws", False) for sink in sinks)
        self._whole = whole

    def __call__(self, event: Event, /) -> None:
        self._whole.hear(self, event)


def _counts(events: Iterable[Advanced | Finished]) -> dict[str, Any]:
    events = list(events)
    return {name: sum(getattr(event, name, 0) for event in events) for name in _ADDED_UP}


def _sum(events: list[Finished]) -> Finished:
    return Finished(**_counts(events), total=None, elapsed=0.0, complete=all(event.complete for event in events))


def _as_finished(event: Advanced) -> Finished:
    return Finished(**{each.name: getattr(event, each.name) for each in fields(event)}, complete=False)
