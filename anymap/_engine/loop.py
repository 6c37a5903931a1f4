"""One map in flight: pull, launch, land, deliver.

Two threads work on it. The one that iterates pulls the input, loads results and hands them out; all user code of this
process but the sinks runs there. The supervisor looks after everything that must not wait for it. Callbacks of the
backend only enter in the ledger what became of a chunk. The lock guards the ledger and is never held while something
is pickled, submitted or handed out.
"""

from __future__ import annotations

import threading
import time
from collections import deque
from concurrent.futures import CancelledError
from functools import partial
from itertools import islice
from typing import TYPE_CHECKING, Any, NamedTuple

from anymap import _board, _failures
from anymap._engine import chunks
from anymap._engine.carrier import Carrier, Refused, make_carrier
from anymap._engine.landing import AsFinished, Batch, InOrder
from anymap._engine.ledger import Chunk, Ledger
from anymap._engine.supervisor import Supervisor
from anymap._errors import ItemTimeout, MapError, WorkerLost
from anymap._worker import Answer
from anymap.backends.base import ChunkLost
from anymap.progress import Advanced, Emitter, Finished, Started

if TYPE_CHECKING:
    from collections.abc import Iterator
    from concurrent.futures import Future

    from anymap._engine.plan import Plan

_SLOW_PULL = 0.001
"""Seconds. An input that takes longer for a row may take for ever: what is there is sent, if a worker is idle."""


class _Arrival(NamedTuple):
    """What became of rows, for the iterating thread to load and land."""

    chunk: Chunk
    answer: Answer | None
    again: frozenset[int]
    """Positions that will be tried again and have no outcome yet."""
    death: tuple[Exception, float, str] | None = None
    """What ended the only row of ``chunk`` where there is no answer: exception, seconds, worker."""


class Run:
    """The engine's side of one map. :meth:`batches` is the whole of its use."""

    def __init__(self, plan: Plan, rows: Iterator[Any]) -> None:
        self._plan = plan
        self._rows = rows
        self._backend = plan.backend
        self._emitter = Emitter(plan.sinks)
        self._ledger = Ledger()
        self._pace = chunks.Pace()
        self._landing = InOrder() if plan.ordered and plan.lazy else AsFinished()
        self._lock = threading.RLock()
        self._landed = threading.Condition(self._lock)
        self._arrivals: deque[_Arrival] = deque()
        self._futures: dict[Chunk, tuple[Future[Answer], int]] = {}
        self._dead: set[int] = set()
        self._delivered = 0
        self._waiting = False
        self._stopping = False
        self._closed = False
        self._broken: BaseException | None = None
        self._first_error: Exception | None = None
        self.source_error: Exception | None = None
        self._slow = False
        self._carrier: Carrier
        self._supervisor = Supervisor(self.tick)
        self._began = time.monotonic()

    # --- the iterating thread -------------------------------------------------------------------------------------

    def batches(self) -> Iterator[Batch]:
        """Do the map; yield results as they land, in the plan's order. Closing the generator ends the map."""
        try:
            self._open()
            while not self._over():
                self._fill(partial=False)
                for batch in self._ready():
                    yield batch
                    self._delivered += len(batch.values)
                self._raise_what_stopped_us()
                if not self._over() and not self._pull():
                    self._fill(partial=True)
                    self._wait()
            if self.source_error is not None:
                raise self.source_error
        finally:
            self._close()

    @property
    def window(self) -> int:
        """How many items may be in flight or undelivered just now."""
        if self._plan.window is not None:
            return self._plan.window
        if self._backend.traits.inline and self._plan.lazy:
            return 1
        return 2 * self._workers() * self._suggested_chunksize()

    def _open(self) -> None:
        # The function first: if it cannot be sent there is nothing to open.
        self._began = time.monotonic()
        self._backend.open(self._plan.workers)
        self._carrier = make_carrier(self._plan, self._backend.traits)
        workers = self._workers()
        self._emitter.emit(
            Started(desc=self._plan.desc, total=self._plan.total, backend=self._backend.name, workers=workers)
        )
        if self._emitter or not self._backend.traits.inline:
            self._supervisor.start()

    def _over(self) -> bool:
        return self._ledger.exhausted and self._delivered == self._ledger.pulled

    def _ready(self) -> Iterator[Batch]:
        """Load what has arrived and yield what may be handed out. Stops at the first error that stops the map."""
        while self._arrivals:
            for batch in self._load(self._arrivals.popleft()):
                self._landing.add(batch)
            while (ready := self._landing.pop()) is not None:
                yield ready
            if self._first_error is not None:
                return

    def _load(self, arrival: _Arrival) -> Iterator[Batch]:
        """Turn an arrival into batches of consecutive rows that have an outcome."""
        values, errors = self._outcomes(arrival)
        self._check_failures(errors)
        begin = 0
        for hole in [*sorted(arrival.again), len(values)]:
            if hole > begin:
                part = {position - begin: exc for position, exc in errors.items() if begin <= position < hole}
                yield from self._cut_at_error(Batch(arrival.chunk.start + begin, values[begin:hole], part))
            begin = hole + 1

    def _outcomes(self, arrival: _Arrival) -> tuple[list[Any], dict[int, Exception]]:
        chunk, answer = arrival.chunk, arrival.answer
        if answer is None:
            assert arrival.death is not None  # noqa: S101 - an arrival has one or the other
            return [None], {0: self._attach(chunk, 0, *arrival.death)}
        values, unloadable = self._carrier.values(answer)
        errors = {p: self._attach(chunk, p, exc, 0.0, answer.worker) for p, exc in unloadable.items()}
        for position, raised, seconds in answer.failures:
            if position not in arrival.again:
                exc = self._carrier.error(raised)
                errors[position] = self._attach(chunk, position, exc, seconds, answer.worker)
        return values, errors

    def _attach(self, chunk: Chunk, position: int, exc: Exception, seconds: float, worker: str) -> Exception:
        index = chunk.start + position
        attempts = max(self._ledger.attempts.pop(index, 1), 1)
        return _failures.attach(exc, index, chunk.rows[position], attempts, seconds, worker)

    def _check_failures(self, errors: dict[int, Exception]) -> None:
        if not errors or self._first_error is not None:
            return
        if self._plan.on_error == "raise":
            self._first_error = errors[min(errors)]
        elif self._too_many_failures():
            counts = self._ledger.counts
            message = f"{counts.failed} of {counts.done} items failed, more than max_failures={self._plan.max_failures}"
            self._first_error = MapError(message, list(errors.values()), (), tuple(map(_failures.failure, errors.values())))

    def _too_many_failures(self) -> bool:
        limit = self._plan.max_failures
        if limit is None:
            return False
        if isinstance(limit, float):
            limit = limit * (self._plan.total or self._ledger.counts.done)
        return self._ledger.counts.failed > limit

    def _cut_at_error(self, batch: Batch) -> Iterator[Batch]:
        if self._plan.on_error != "raise" or not batch.errors:
            yield batch
        elif cut := min(batch.errors):
            yield Batch(batch.start, batch.values[:cut], {})

    def _raise_what_stopped_us(self) -> None:
        if self._broken is not None:
            raise self._broken
        if self._first_error is not None:
            raise self._first_error
        if self.source_error is not None and not self._plan.lazy and self._plan.on_error == "raise":
            raise self.source_error

    def _pull(self) -> bool:
        """Pull some rows, if there is room; return whether that changed anything."""
        ledger = self._ledger
        quantum = min(self._room(), self._chunksize())
        if ledger.exhausted or quantum <= 0:
            return False
        before = ledger.pulled
        try:
            if self._plan.prompt:
                ledger.stage(list(islice(self._rows, quantum)))
            else:
                self._pull_watchfully(quantum)
        except Exception as exc:  # noqa: BLE001 - the input is the user's; what it gave so far is still done
            self.source_error = exc
            ledger.exhausted = True
            return True
        ledger.exhausted = ledger.pulled == before
        return True

    def _pull_watchfully(self, quantum: int) -> None:
        """Pull from an input that may wait for results: nothing that is ready may be kept back meanwhile."""
        stage, arrivals, clock = self._ledger.stage, self._arrivals, time.monotonic
        began = clock()
        for row in islice(self._rows, quantum):
            stage((row,))
            self._slow = clock() - began > _SLOW_PULL
            if arrivals or self._slow:
                return

    def _room(self) -> int:
        held = self._ledger.pulled - (self._delivered if self._plan.lazy else self._ledger.counts.done)
        return self.window - held

    def _wait(self) -> None:
        """Wait until something has arrived."""
        with self._landed:
            if self._arrivals or self._broken is not None or self._over():
                return
            if self._backend.traits.inline:
                ripe = self._ledger.next_ripe()
                timeout = max(ripe - time.monotonic(), 0.0) if ripe is not None else 0.0
                self._landed.wait(timeout)
                return
            self._waiting = True
            try:
                with self._backend.waiting():
                    self._landed.wait()
            finally:
                self._waiting = False

    def _close(self) -> None:
        with self._lock:
            if self._closed:
                return
            self._closed = True
        complete = self._over() and self.source_error is None
        self._supervisor.stop()
        try:
            if hasattr(self, "_carrier") and not complete:
                self._carrier.board.cancel()
            self._backend.close(abandon=not complete)
        finally:
            if hasattr(self, "_carrier"):
                self._carrier.close()
            counts = self._ledger.counts
            self._emitter.emit(
                Finished(
                    done=counts.done,
                    failed=counts.failed,
                    retried=counts.retried,
                    lost=counts.lost,
                    total=self._total(),
                    elapsed=time.monotonic() - self._began,
                    complete=complete,
                )
            )

    # --- the iterating thread and the supervisor ------------------------------------------------------------------

    def _workers(self) -> int:
        return max(self._backend.capacity(), 1)

    def _total(self) -> int | None:
        return self._ledger.pulled if self._ledger.exhausted else self._plan.total

    def _chunksize(self) -> int:
        if self._plan.chunksize is not None:
            return self._plan.chunksize
        size = self._suggested_chunksize()
        if self._plan.window is not None:
            size = min(size, max(self._plan.window // (2 * self._workers()), 1))
        return size

    def _suggested_chunksize(self) -> int:
        if self._plan.chunksize is not None:
            return self._plan.chunksize
        if self._backend.traits.inline and self._plan.lazy:
            return 1
        total = self._total()
        remaining = None if total is None else max(total - self._ledger.pulled + self._ledger.waiting_rows(), 1)
        return chunks.chunksize(self._pace, self._workers(), remaining)

    def _fill(self, *, partial: bool) -> None:
        """Launch what there is to launch. A chunk in hand beyond each worker's own keeps workers from waiting."""
        while (taken := self._take(partial=partial or self._slow)) is not None:
            self._launch(*taken)

    def _take(self, *, partial: bool) -> tuple[Chunk, int] | None:
        with self._lock:
            capacity = self._workers()
            flying = self._ledger.flying
            limit = 1 if self._backend.traits.inline else 2 * capacity
            if self._stopping or self._closed or flying >= limit or self._carrier.board.full:
                return None
            partial = self._ledger.exhausted or (partial and flying < capacity)
            chunk = self._ledger.next(self._chunksize(), time.monotonic(), partial=partial)
            return None if chunk is None else (chunk, self._carrier.board.take())

    def _launch(self, chunk: Chunk, slot: int) -> None:
        budget = None if self._plan.chunksize is not None else chunks.budget(self._pace)
        sent = time.monotonic()
        try:
            future = self._backend.submit(self._carrier.task(chunk, slot, budget))
        except Refused as refused:
            self._enter_refusal(chunk, slot, refused)
        except Exception as exc:  # noqa: BLE001 - the engine broke, or the map was closed meanwhile
            self.fail(exc)
        else:
            with self._lock:
                if self._ledger.is_flying(chunk):
                    self._futures[chunk] = future, slot
            future.add_done_callback(partial(self._on_done, chunk, slot, sent))

    def fail(self, exc: BaseException) -> None:
        """End the map with an error that is no item's."""
        with self._lock:
            if not self._closed and self._broken is None:
                self._broken = exc
            self._stopping = True
            self._landed.notify_all()

    # --- the backend's threads ------------------------------------------------------------------------------------

    def _on_done(self, chunk: Chunk, slot: int, sent: float, future: Future[Answer]) -> None:
        try:
            answer = future.result()
        except (ChunkLost, CancelledError) as lost:
            self._enter_loss(chunk, slot, lost)
        except BaseException as exc:  # noqa: BLE001 - whatever it is, the iterating thread must hear of it
            self.fail(exc)
        else:
            self._enter_answer(chunk, slot, time.monotonic() - sent, answer)
        self._wake()

    def _wake(self) -> None:
        with self._landed:
            if self._waiting:
                self._landed.notify_all()
                return
        self._supervisor.wake()

    def _enter_answer(self, chunk: Chunk, slot: int, under_way: float, answer: Answer) -> None:
        if answer.broken is not None:
            exc = self._carrier.error(answer.broken)
            exc.add_note(f"anymap: the function could not be loaded in worker {answer.worker}")
            self.fail(exc)
            return
        with self._lock:
            if not self._forget(chunk, slot):
                return
            self._pace.note(answer.done, answer.seconds, answer.longest, under_way)
            raised = {position: exc for position, exc, _ in answer.failures}
            again = self._ledger.land(chunk, answer.done, raised, partial(self._verdict, raised), time.monotonic())
            self._note_failures(len(raised) - len(again))
            if answer.done:
                self._arrivals.append(_Arrival(chunk, answer, frozenset(again)))

    def _enter_loss(self, chunk: Chunk, slot: int, lost: BaseException) -> None:
        dead = getattr(lost, "dead", None)
        with self._lock:
            mark = self._carrier.board.read(slot)
            if not self._forget(chunk, slot):
                return
            self._count_dead(dead)
            position = self._running_position(chunk, mark, dead)
            certain = dead is not None and mark.pid in dead
            blamed = self._ledger.lose(chunk, position, certain=certain)
            if blamed is not None:
                exc, seconds = self._death(chunk, blamed, mark, lost)
                self._enter_failure(chunk, blamed, exc, seconds, str(mark.pid or "unknown"))

    def _running_position(self, chunk: Chunk, mark: _board.Mark, dead: Any) -> int | None:
        if self._backend.traits.remote:
            return None
        if dead is not None and mark.pid not in dead:
            return -1
        if chunk.expired is not None and chunk.expired != mark.position:
            # It finished just before its worker was killed for it, and the item after it is not to blame.
            return -1
        return mark.position

    def _count_dead(self, dead: Any) -> None:
        before = len(self._dead)
        self._dead.update(dead or ())
        self._ledger.counts.lost += len(self._dead) - before if dead is not None else 1

    def _death(self, chunk: Chunk, position: int, mark: _board.Mark, lost: BaseException) -> tuple[Exception, float]:
        index, item = chunk.start + position, _failures.safe_repr(chunk.rows[position])
        if chunk.expired == position:
            message = f"item {index} ({item}) took longer than timeout={self._plan.timeout:g} s"
            return ItemTimeout(message), time.monotonic() - mark.began
        exitcode = (getattr(lost, "dead", None) or {}).get(mark.pid)
        message = f"the worker that ran item {index} ({item}) died: {lost}"
        return WorkerLost(message, exitcode), time.monotonic() - mark.began if mark.began else 0.0

    def _enter_refusal(self, chunk: Chunk, slot: int, refused: Refused) -> None:
        with self._lock:
            if not self._forget(chunk, slot):
                return
            self._ledger.refuse(chunk, refused.errors)
            for position, cause in refused.errors.items():
                item = f"argument of item {chunk.start + position}"
                exc = type(cause)(f"the {item} cannot be sent to a worker: {cause}")
                exc.__cause__ = cause.__cause__
                self._arrive_dead(chunk, position, exc, 0.0, "none")
            self._note_failures(len(refused.errors))
        self._wake()

    def _enter_failure(self, chunk: Chunk, position: int, exc: Exception, seconds: float, worker: str) -> None:
        verdict = partial(self._plan_verdict, exc)
        if self._ledger.fail(chunk, position, verdict, time.monotonic()):
            self._note_failures(1)
            self._arrive_dead(chunk, position, exc, seconds, worker)

    def _arrive_dead(self, chunk: Chunk, position: int, exc: Exception, seconds: float, worker: str) -> None:
        row = chunk.part(position, position + 1)
        self._arrivals.append(_Arrival(row, None, frozenset(), (exc, seconds, worker)))

    def _note_failures(self, count: int) -> None:
        if count and self._plan.on_error == "raise":
            self._stopping = True

    def _forget(self, chunk: Chunk, slot: int) -> bool:
        """Give back what a chunk in flight held; return whether anybody still waits for it."""
        self._futures.pop(chunk, None)
        if self._closed or not self._ledger.is_flying(chunk):
            return False
        self._carrier.board.give_back(slot)
        return True

    def _verdict(self, raised: dict[int, Any], position: int, attempts: int) -> float | None:
        if attempts > self._plan.retry.times:
            return None
        return self._plan.retry.delay(self._carrier.error(raised[position]), attempts)

    def _plan_verdict(self, exc: Exception, position: int, attempts: int) -> float | None:  # noqa: ARG002
        return self._plan.retry.delay(exc, attempts)

    # --- the supervisor -------------------------------------------------------------------------------------------

    def tick(self) -> None:
        """Look after everything that does not wait for the iterating thread."""
        try:
            self._backend.poll()
            marks = self._marks()
            self._expire(marks)
            if not self._backend.traits.inline:
                self._fill(partial=True)
            self._emitter.emit(self._advanced(marks))
        except Exception as exc:  # noqa: BLE001 - the iterating thread must hear of it
            self.fail(exc)

    def _marks(self) -> dict[Chunk, _board.Mark]:
        with self._lock:
            return {chunk: self._carrier.board.read(slot) for chunk, (_, slot) in self._futures.items()}

    def _expire(self, marks: dict[Chunk, _board.Mark]) -> None:
        """Put an end to items that take longer than they may."""
        limit = self._plan.timeout
        if limit is None:
            return
        for chunk, mark in marks.items():
            if 0 <= mark.position < len(chunk) and time.monotonic() - mark.began > limit:
                self._end_item(chunk, mark)

    def _end_item(self, chunk: Chunk, mark: _board.Mark) -> None:
        with self._lock:
            flight = self._futures.get(chunk)
            if flight is None or self._carrier.board.read(flight[1]) != mark:
                return
            chunk.expired = mark.position
            if self._backend.traits.kills:
                self._backend.kill(mark.pid)
                return
            self._futures.pop(chunk)
            self._abandon_item(chunk, mark)
        self._backend.abandon(flight[0])
        self._wake()

    def _abandon_item(self, chunk: Chunk, mark: _board.Mark) -> None:
        # The slot is not given back: who knows until when its thread writes to it.
        blamed = self._ledger.lose(chunk, mark.position, certain=True)
        if blamed is not None:
            exc, seconds = self._death(chunk, blamed, mark, TimeoutError())
            self._enter_failure(chunk, blamed, exc, seconds, str(mark.pid))

    def _advanced(self, marks: dict[Chunk, _board.Mark]) -> Advanced:
        counts = self._ledger.counts
        under_way = sum(max(mark.position, 0) for chunk, mark in marks.items() if self._ledger.is_flying(chunk))
        return Advanced(
            done=counts.done + under_way,
            failed=counts.failed,
            retried=counts.retried,
            lost=counts.lost,
            total=self._total(),
            elapsed=time.monotonic() - self._began,
        )
