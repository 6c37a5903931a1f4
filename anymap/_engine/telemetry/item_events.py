"""What becomes of single items and workers, as events. Only kept where a sink wants them."""

from __future__ import annotations

import threading
from collections import defaultdict, deque
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, ClassVar

from anymap._errors import ItemTimeout
from anymap._serialize import exceptions
from anymap.progress.events import (
    ItemDone,
    ItemFailed,
    ItemRetried,
    ItemStarted,
    ItemTimedOut,
    WorkerDied,
    WorkerStarted,
)

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator, Mapping

    from anymap._engine.ledger import Chunk
    from anymap._engine.telemetry.measures import Timings
    from anymap._engine.telemetry.router import MessageRouter
    from anymap._host.live_messages import Told
    from anymap._worker.protocol import Answer
    from anymap.progress import Emitter
    from anymap.progress.events import Event

_OF_ITEMS = (ItemStarted, ItemDone, ItemFailed, ItemRetried, ItemTimedOut)


@dataclass(slots=True)
class _Completed:
    """What a chunk brought, noted under the lock by the thread that completed it, and told later."""

    chunk: Chunk
    at: float
    answer: Answer
    again: frozenset[int]
    attempts: Mapping[int, int]


@dataclass(slots=True)
class _Died:
    """An attempt of one item that ended with its worker, or was given up."""

    index: int
    at: float
    error: Exception
    attempts: int
    seconds: float
    worker: str
    is_final: bool


@dataclass(slots=True)
class _Lost:
    """Items that may have run in vain, and the workers that were lost with them."""

    indexes: tuple[int, ...]
    workers: tuple[WorkerDied, ...]


class ItemEvents:
    """Turns what happens to chunks into events, in an order in which no item ends before it begins."""

    kinds: ClassVar = (*_OF_ITEMS, WorkerStarted, WorkerDied)
    """What it can tell."""

    def __init__(self, emitter: Emitter, router: MessageRouter, timings: Timings) -> None:
        self.decode: Callable[[Any], Exception] = exceptions.as_exception
        """Makes an exception of what an answer has of one."""
        self._emitter = emitter
        self._router = router
        self._timings = timings
        self._lock = threading.RLock()
        self._begun: deque[ItemStarted] = deque()
        self._noted: deque[_Completed | _Died | _Lost] = deque()
        self._starts: defaultdict[int, deque[ItemStarted]] = defaultdict(deque)
        """Attempts that have begun while the one before has not been told to have ended."""
        self._running: set[int] = set()
        self._workers: set[str] = set()

    # --- what happens: on any thread ------------------------------------------------------------------------------

    def begin(self, told: Told) -> None:
        """Note that a worker has told of an item that it begins."""
        if told.item is not None:
            self._begun.append(ItemStarted(index=told.item, worker=told.message, elapsed=self._timings.elapsed))

    def complete(self, chunk: Chunk, answer: Answer, again: Iterable[int], attempts: Mapping[int, int]) -> None:
        """Note what an answer brought. ``attempts``: how often each of its failed items has failed."""
        self._noted.append(_Completed(chunk, self._timings.elapsed, answer, frozenset(again), dict(attempts)))

    def die(self, index: int, error: Exception, attempts: int, seconds: float, worker: str, *, is_final: bool) -> None:
        """Note that an item's attempt ended without an answer."""
        self._noted.append(_Died(index, self._timings.elapsed, error, attempts, seconds, worker, is_final))

    def lose(self, chunk: Chunk, blamed: int | None, cause: str, dead: Mapping[int, int | None] | None) -> None:
        """Note that a chunk was lost; of the row at ``blamed`` it is still to be said how it ended.

        ``dead``: the workers that are not yet known as dead; ``None``: which died is not known.
        """
        at = self._timings.elapsed
        known: Iterable[tuple[str | None, int | None]]
        known = [(None, None)] if dead is None else [(str(pid), code) for pid, code in dead.items()]
        workers = tuple(WorkerDied(worker=worker, exitcode=code, cause=cause, elapsed=at) for worker, code in known)
        rest = tuple(index for index in chunk.indexes if blamed is None or index != chunk.start + blamed)
        self._noted.append(_Lost(rest, workers))

    def fail_to_load(self, chunk: Chunk, errors: Mapping[int, Exception], worker: str) -> None:
        """Note that results are of no use here."""
        for position, error in errors.items():
            self.die(chunk.start + position, error, 1, 0.0, worker, is_final=True)

    # --- what is told of it: on a thread of the map's -------------------------------------------------------------

    def flush(self) -> None:
        """Emit what has been noted."""
        if not (self._noted or self._begun):
            return
        with self._lock:
            count = len(self._noted)
            if count and self._emitter.wants(ItemStarted):
                self._router.settle()
            while self._begun:
                start = self._begun.popleft()
                self._starts[start.index].append(start)
            for _ in range(count):
                for event in self._events(self._noted.popleft()):
                    self._emit(event)
            for index in [index for index in self._starts if index not in self._running]:
                self._start(index)

    def _emit(self, event: Event) -> None:
        if self._emitter.wants(type(event)):
            self._emitter.emit(event)

    def _events(self, noted: _Completed | _Died | _Lost) -> Iterator[Event]:
        match noted:
            case _Completed():
                yield from self._news_of(noted.answer.worker, noted.at)
                yield from self._completed(noted)
            case _Died():
                self._end(noted.index)
                yield from _died(noted)
            case _Lost():
                for index in noted.indexes:
                    self._end(index)
                yield from noted.workers

    def _news_of(self, worker: str, at: float) -> Iterator[Event]:
        if worker not in self._workers:
            self._workers.add(worker)
            yield WorkerStarted(worker=worker, elapsed=at)

    def _completed(self, noted: _Completed) -> Iterator[Event]:
        if not self._emitter.wants(*_OF_ITEMS):
            return
        failed = {position: (raised, seconds) for position, raised, seconds in noted.answer.failures}
        durations = noted.answer.durations or {}
        for position in range(noted.answer.done):
            index = noted.chunk.start + position
            self._end(index)
            if position in failed:
                yield self._failed(noted, index, position, *failed[position])
            else:
                yield ItemDone(
                    index=index,
                    worker=noted.answer.worker,
                    seconds=durations.get(position, 0.0),
                    elapsed=noted.at,
                )

    def _failed(self, noted: _Completed, index: int, position: int, raised: Any, seconds: float) -> Event:
        told: dict[str, Any] = {"index": index, "worker": noted.answer.worker, "elapsed": noted.at}
        told |= {"error": self.decode(raised), "attempts": noted.attempts.get(position, 1)}
        if position in noted.again:
            return ItemRetried(**told)
        return ItemFailed(**told, seconds=seconds)

    def _start(self, index: int) -> None:
        starts = self._starts[index]
        self._emit(starts.popleft())
        self._running.add(index)
        if not starts:
            del self._starts[index]

    def _end(self, index: int) -> None:
        """See to it that the item has begun before it ends."""
        if index not in self._running and index in self._starts:
            self._start(index)
        self._running.discard(index)


def _died(noted: _Died) -> Iterator[Event]:
    told: dict[str, Any] = {"index": noted.index, "worker": noted.worker, "elapsed": noted.at}
    if isinstance(noted.error, ItemTimeout):
        yield ItemTimedOut(**told, seconds=noted.seconds)
    told |= {"error": noted.error, "attempts": noted.attempts}
    yield ItemFailed(**told, seconds=noted.seconds) if noted.is_final else ItemRetried(**told)
