"""One map from its first row to its last: pull, send, complete, hand out.

Two threads work on it. The one that iterates pulls the input, loads results and hands them out; all code of the
caller's but the sinks runs there. The supervisor does everything that must not wait for it.
"""

from __future__ import annotations

import os
import threading
import time
from queue import Empty, SimpleQueue
from typing import TYPE_CHECKING, Any

from anymap._engine import ends, outcomes
from anymap._engine.codec import make_codec
from anymap._engine.dispatch import Completion, Dispatcher
from anymap._engine.ordering import AsFinished, Batch, InOrder
from anymap._engine.supervisor import Supervisor
from anymap._engine.telemetry.reporter import Reporter, Telemetry
from anymap._engine.telemetry.standstill import Standstill
from anymap._host import memory, own_log
from anymap._host.handlers import held_back, let_in
from anymap._serialize import exceptions

if TYPE_CHECKING:
    from collections.abc import Generator, Iterator

    from anymap._engine.ledger import Chunk
    from anymap._engine.plan import Plan
    from anymap._engine.sources import Source

_BLINK = 0.2
"""Seconds. A signal that comes just before a thread begins to wait does not wake it: Ctrl-C would be lost."""
_NAP = 5.0
"""Seconds. Signals are the main thread's. But what the collector tells just before any thread waits is lost on it, too."""
_SMALL_MAP = 0.02
"""Seconds that a map may last before there is a thread to look after it."""
_NO_WORKERS = 10.0
"""Seconds between two words on a backend that has no workers."""


class Run:
    """The engine's side of one map. :meth:`batches` is the whole of its use."""

    def __init__(self, plan: Plan, source: Source) -> None:
        self.source_error: Exception | None = None
        """What the input raised."""
        self.failed: list[Exception] = []
        """What failed so far, in the order of completion, where it is to be raised together."""
        self._plan = plan
        self._source = source
        self._backend = plan.backend
        self._on_error = outcomes.outcomes_of(plan)
        telemetry = Telemetry(plan)
        self._timings, self._router = telemetry.timings, telemetry.router
        self._dispatcher = Dispatcher(plan, telemetry, self._on_news)
        self._reporter = Reporter(plan, self._dispatcher, telemetry)
        self._ledger = self._dispatcher.ledger
        self._ordering = InOrder() if plan.ordered and plan.lazy else AsFinished()
        self._news: SimpleQueue[None] = SimpleQueue()
        """One for each time that there is news. What is in it is of no interest."""
        self._supervisor = Supervisor(self._tick, self._is_busy)
        self._delivered = 0
        self._waiting = False
        self._manned = time.monotonic()
        self._error: Exception | None = None
        self._process = os.getpid()
        self._is_open = False
        self._closed = False

    def batches(self) -> Generator[Batch]:
        """Do the map; yield results as they are complete, in the plan's order. Closing the generator ends the map."""
        try:
            yield from self._work()
        except BaseException as exc:
            self.close(exc)
            raise
        self.close()

    def _work(self) -> Generator[Batch]:
        self.open()
        while not self._over():
            self._supervise_if_it_takes_long()
            self._dispatcher.fill(partial_chunks=self._source.slow)
            yield from self._deliver()
            self._reporter.tell_of_items()
            self._raise_what_ends_the_map()
            if not self._over() and not self._pull():
                self._dispatcher.fill(partial_chunks=True)
                self._wait()
        if self.source_error is not None:
            raise self.source_error

    @property
    def window(self) -> int:
        """How many items may be in flight or undelivered just now."""
        return self._dispatcher.sizes.window()

    @property
    def pulled(self) -> int:
        """How many items have been pulled so far."""
        return self._ledger.pulled

    def open(self) -> None:
        """Get everything ready. :meth:`batches` does it, if it was not done."""
        if self._is_open:
            return
        self._is_open = True
        self._timings.began = time.monotonic()
        if not self._backend.traits.shares_memory:
            memory.note_kills()
        ends.open_backend(self._plan)
        self._standstill = Standstill(self._backend)
        self._dispatcher.codec = make_codec(self._plan, self._router, self._reporter.around())
        self._reporter.start(self._dispatcher.sizes.workers(), self._dispatcher.codec.error)
        self._router.wake_by(self._supervisor.wake)
        # Where this thread may be kept from looking after the map from the very first item on.
        if self._plan.lazy or not self._plan.prompt:
            self._supervisor.start()
        if self._plan.lazy:
            ends.close_at_exit(self)

    def _over(self) -> bool:
        return self._ledger.exhausted and self._delivered == self._ledger.pulled

    # --- deliver --------------------------------------------------------------------------------------------------

    def _deliver(self) -> Iterator[Batch]:
        """Hand out what is ready. Apart from the loop, which would keep the last of it while it waits."""
        for batch in self._ready():
            with self._timings.waiting:
                yield batch
            self._delivered += len(batch.values)

    def _ready(self) -> Iterator[Batch]:
        """Load what has arrived and yield what may be handed out. Stops at the first error if that stops the map."""
        while self._dispatcher.completions and self._error is None:
            for batch in self._load(self._dispatcher.completions.popleft()):
                self._ordering.add(batch)
            while (ready := self._ordering.pop()) is not None:
                yield ready

    def _load(self, completion: Completion) -> Iterator[Batch]:
        """Turn an completion into batches of consecutive rows that have an outcome."""
        values, errors = self._outcomes(completion)
        self._check(errors)
        if not completion.again:  # as they are: to copy what is large takes time
            yield from self._until_error(Batch(completion.chunk.start, values, errors))
            return
        begin = 0
        for hole in [*sorted(completion.again), len(values)]:
            if hole > begin:
                part = {position - begin: exc for position, exc in errors.items() if begin <= position < hole}
                yield from self._until_error(Batch(completion.chunk.start + begin, values[begin:hole], part))
            begin = hole + 1

    def _outcomes(self, completion: Completion) -> tuple[list[Any], dict[int, Exception]]:
        chunk, answer, codec = completion.chunk, completion.answer, self._dispatcher.codec
        assert codec is not None  # noqa: S101 - something has arrived
        if answer is None:
            assert completion.death is not None  # noqa: S101 - an completion has one or the other
            return [None], {0: self._attach(chunk, 0, *completion.death)}
        began = time.monotonic()
        values, unloadable = codec.values(answer)
        self._dispatcher.enter_loading(chunk, unloadable, answer.worker, time.monotonic() - began)
        errors = {p: self._attach(chunk, p, exc, 0.0, answer.worker) for p, exc in unloadable.items()}
        for position, raised, seconds in answer.failures:
            if position not in completion.again:
                kept = (answer.kept or {}).get(position, "")
                errors[position] = self._attach(chunk, position, codec.error(raised), seconds, answer.worker, kept)
        return values, errors

    def _attach(
        self, chunk: Chunk, position: int, exc: Exception, seconds: float, worker: str, output: str = ""
    ) -> Exception:
        index = chunk.start + position
        attempts = self._dispatcher.forget_attempts(index)
        return outcomes.of_item(self._plan, exc, index, chunk.rows[position], attempts, seconds, worker, output)

    def _check(self, errors: dict[int, Exception]) -> None:
        """See whether these errors end the map."""
        if not errors:
            return
        if self._on_error.ends_at_first:
            self._error = errors[min(errors)]
        elif self._on_error.keeps_failures:
            self.failed += errors.values()

    def _until_error(self, batch: Batch) -> Iterator[Batch]:
        """Leave out, where the first error stops the map, what comes after it."""
        if not self._on_error.ends_at_first or not batch.errors:
            yield batch
        elif cut := min(batch.errors):
            yield Batch(batch.start, batch.values[:cut], {})

    def _raise_what_ends_the_map(self) -> None:
        if self._dispatcher.broken is not None:
            raise self._dispatcher.broken
        if self._error is not None:
            raise self._error
        if self._dispatcher.failed_too_often():
            raise outcomes.TooManyFailures
        if self.source_error is not None and not self._plan.lazy and self._on_error.ends_at_first:
            raise self.source_error

    # --- pull -----------------------------------------------------------------------------------------------------

    def _pull(self) -> bool:
        """Pull some rows, if there is room; return whether that changed anything."""
        ledger, source = self._ledger, self._source
        if ledger.exhausted or (quantum := min(self._room(), self._dispatcher.sizes.chunksize())) <= 0:
            return False
        try:
            with self._timings.waiting:
                changed = let_in(source.pull, quantum, ledger, self._dispatcher.completions)
        except Exception as exc:  # the input is the user's; what it gave so far is still done
            if exceptions.raised_by_handler(exc):
                raise
            self.source_error = exc
            ledger.exhausted = True
            return True
        ledger.exhausted = source.ended
        return changed

    def _room(self) -> int:
        held = self._ledger.pulled - (self._delivered if self._plan.lazy else self._ledger.counts.done)
        return self._dispatcher.sizes.window() - held

    # --- wait -----------------------------------------------------------------------------------------------------

    def _wait(self) -> None:
        """Wait until there is something to hand out or to send."""
        if self._supervisor.rests and (self._ledger.in_flight_count or self._reporter):
            self._supervisor.wake()  # if only to tell that the last one has ended
        self._waiting = True
        try:
            with self._backend.waiting():
                while not self._hears_news(self._patience()):
                    self._supervise_if_it_takes_long()
        finally:
            self._waiting = False

    def _hears_news(self, patience: float) -> bool:
        """Wait for news so many seconds; return whether there is any."""
        try:
            let_in(self._news.get, timeout=patience)
        except Empty:
            return False
        for _ in range(self._news.qsize()):
            self._news.get()
        return True

    def _patience(self) -> float:
        """Return how long to wait at a time."""
        if not self._supervisor.started:
            return _SMALL_MAP
        return _BLINK if threading.current_thread() is threading.main_thread() else _NAP

    def _supervise_if_it_takes_long(self) -> None:
        # A thread takes longer to start than a small map to end.
        if not self._supervisor.started and self._timings.elapsed > _SMALL_MAP:
            self._supervisor.start()

    def wake(self) -> bool:
        """Have the iterating thread look again; return whether it was waiting."""
        self._news.put(None)
        return self._waiting

    def _on_news(self) -> None:
        """Wake the thread that can act on it: the iterating thread if it waits, else the supervisor."""
        if not self.wake():
            self._supervisor.wake()

    # --- look after -----------------------------------------------------------------------------------------------

    def _is_busy(self) -> bool:
        return bool(self._ledger.in_flight_count or self._ledger.waiting) or not self._source.empty

    def _tick(self) -> None:
        """Do what must not wait for the iterating thread."""
        try:
            self._backend.poll()
            marks = self._dispatcher.marks()
            self._router.catch_up()
            self._dispatcher.expire(marks)
            self._standstill.look(marks.values())
            if self._dispatcher.completions:
                self._source.speak_if_stuck()
            self._speak_of_missing_workers()
            self._dispatcher.fill(partial_chunks=True)
            if self._reporter:
                self._reporter.advance(marks)
        except BaseException as exc:  # noqa: BLE001 - the iterating thread must hear of it
            self._dispatcher.fail(exc)

    def _speak_of_missing_workers(self) -> None:
        """Say every ten seconds that there is no worker; a cluster may get workers yet."""
        now = time.monotonic()
        if self._backend.capacity() > 0:
            self._manned = now
        elif now - self._manned >= _NO_WORKERS:
            self._manned = now
            own_log.warning("a map waits for workers: backend %r has none at the moment", self._backend.name)

    # --- end ------------------------------------------------------------------------------------------------------

    def fail(self, exc: BaseException) -> None:
        """End the map from another thread: the iterating one raises ``exc``."""
        with held_back():
            self._dispatcher.fail(exc)

    def close(self, error: BaseException | None = None) -> None:
        """End the map, however far it is. Does nothing the second time, and in a fork of the process whose map it is.

        ``error`` is what ends it. What fails in the clean-up becomes a note of that error; without one, it is logged.
        """
        if self._closed or os.getpid() != self._process:
            return
        with held_back():
            self._close(error)

    def _close(self, error: BaseException | None) -> None:
        self._closed = True
        complete = self._over() and self.source_error is None
        self._dispatcher.abandon()
        self._supervisor.stop()
        codec = self._dispatcher.codec
        marks = self._dispatcher.marks() if codec is not None else {}
        try:
            if codec is not None and not complete:
                codec.board.cancel()
            ends.close_backend(self._backend, error, complete=complete)
        finally:
            self._router.close(settle=codec is not None and codec.board.told)
            if codec is not None:
                clean = complete and not self._ledger.counts.lost and not self._dispatcher.gave_up
                codec.close(clean=clean)
            self._dispatcher.fall_silent()
            self._dispatcher.remember(complete=complete)
            self._reporter.finish(marks, complete=complete)
