"""Chunks in flight: sending them, and entering in the ledger what became of each.

Works on threads of all kinds: the iterating one, the supervisor, the backend's. The lock guards the ledger and is
never held while something is pickled or submitted.
"""

from __future__ import annotations

import math
import threading
import time
from collections import deque
from concurrent.futures import CancelledError, Future
from dataclasses import replace
from functools import partial
from typing import TYPE_CHECKING, Any, NamedTuple

from anymap._engine.codec import Refused
from anymap._engine.deaths import Deaths
from anymap._engine.ledger import Ledger
from anymap._engine.outcomes import outcomes_of
from anymap._engine.sizes import Sizes
from anymap._engine.telemetry import rates
from anymap._host import guarded, own_log
from anymap._worker.protocol import Answer
from anymap.backends.base import ChunkLost

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Mapping

    from anymap._engine.codec import Codec
    from anymap._engine.ledger import Chunk, Counts
    from anymap._engine.plan import Plan
    from anymap._engine.telemetry.reporter import Telemetry
    from anymap._host.status_board import Mark
    from anymap._worker.task import Task


class Completion(NamedTuple):
    """What became of rows, for the iterating thread to load and hand out."""

    chunk: Chunk
    answer: Answer | None
    again: frozenset[int] = frozenset()
    """Positions that will be tried again and have no outcome yet."""
    death: tuple[Exception, float, str] | None = None
    """What ended the only row of ``chunk`` where there is no answer: exception, seconds, worker."""


class Dispatcher:
    """The submission and completion of one map's chunks."""

    def __init__(self, plan: Plan, telemetry: Telemetry, news: Callable[[], None]) -> None:
        """``news`` is called, on any thread, when there is something to hand out or to send."""
        self.ledger = Ledger()
        self.timings = telemetry.timings
        self.completions: deque[Completion] = deque()
        self.broken: BaseException | None = None
        """What ended the map, if it is no item's error."""
        self.gave_up = False
        """An item was left running, and its worker still writes to the board."""
        self.codec: Codec | None = None
        self._plan = plan
        self._backend = plan.backend
        self._news = news
        self._router = telemetry.router
        self._item_events = telemetry.item_events
        self._on_error = outcomes_of(plan)
        self.sizes = Sizes(plan, self.ledger)
        self._lock = threading.RLock()
        self._slots: dict[Chunk, int] = {}
        """Where on the board each chunk in flight says how far it is."""
        self._futures: dict[Chunk, Future[Answer]] = {}
        self._deaths = Deaths(plan)
        self._stopped_submitting = False
        self._too_many_failures = False
        self._abandoned = False
        self._last_death: Exception | None = None

    # --- sending --------------------------------------------------------------------------------------------------

    def fill(self, *, partial_chunks: bool) -> None:
        """Send what there is to send; one chunk beyond each worker's own keeps workers from waiting.

        ``partial_chunks``: rather than leave a worker idle, send it less than a chunk.
        """
        while (taken := self._take(partial_chunks=partial_chunks)) is not None:
            self._send(*taken)

    def fall_silent(self) -> None:
        """Tell no news any more, and keep no listener alive."""
        self._news = _nothing

    def remember(self, *, complete: bool) -> None:
        """Keep for the next map how long items took."""
        backend, func, items = self._backend.name, self._plan.func, self.ledger.counts.done
        rates.remember(backend, func, self.sizes.rate)
        if complete and items:
            rates.note_speed(backend, func, self.timings.costs().busy / items)

    def stop_submitting(self) -> None:
        """Send nothing any more."""
        self._stopped_submitting = True

    def abandon(self) -> None:
        """Wait for nothing any more: what is still in flight is cancelled, not lost."""
        self.stop_submitting()
        self._abandoned = True

    def fail(self, exc: BaseException) -> None:
        """End the map with an error that is no item's."""
        with self._lock:
            if self.broken is None:
                if self._last_death is not None:
                    guarded.add_note(exc, f"anymap: before that, {self._last_death}")
                self.broken = exc
        self.stop_submitting()
        self._news()

    def _take(self, *, partial_chunks: bool) -> tuple[Chunk, int] | None:
        assert self.codec is not None  # noqa: S101 - set before the first is sent
        if not self.ledger.waiting:
            return None
        with self._lock:
            workers = self.sizes.workers()
            in_flight = self.ledger.in_flight_count
            if self._stopped_submitting or in_flight >= 2 * workers or self.codec.board.full:
                return None
            partial_chunks = self.ledger.exhausted or (partial_chunks and in_flight < workers)
            chunk = self.ledger.next(self.sizes.chunksize(), time.monotonic(), partial=partial_chunks)
            if chunk is None:
                return None
            slot = self._slots[chunk] = self.codec.board.take()
            return chunk, slot

    def _send(self, chunk: Chunk, slot: int) -> None:
        assert self.codec is not None  # noqa: S101
        sent = time.monotonic()
        try:
            task = self.codec.task(chunk, slot, self.sizes.budget(), self._may_fail_yet())
            with self._lock:
                self.timings.packing += time.monotonic() - sent
                self.sizes.rate.weigh(len(chunk), self.codec.weight(task.rows))
            future = self._submit(task)
        except Refused as refused:
            self._enter_refusal(chunk, slot, refused)
        except Exception as exc:  # noqa: BLE001 - the engine broke, or the map was closed meanwhile
            if not self._stopped_submitting:  # else the map ends for another reason, which came first
                self.fail(exc)
        else:
            with self._lock:
                if self.ledger.is_in_flight(chunk):
                    self._futures[chunk] = future
            future.add_done_callback(partial(self._on_done, chunk, slot, sent))

    def _submit(self, task: Task) -> Future[Answer]:
        future = self._backend.submit(task)
        if not isinstance(future, Future):
            got = guarded.short_repr(future)
            raise TypeError(f"backend {self._backend.name!r} returned {got} from submit, and no Future")
        return future

    # --- completion -----------------------------------------------------------------------------------------------

    def _on_done(self, chunk: Chunk, slot: int, sent: float, future: Future[Answer]) -> None:
        try:
            self._enter(chunk, slot, time.monotonic() - sent, future)
        except BaseException as exc:  # noqa: BLE001 - whatever it is, the iterating thread must hear of it
            self.fail(exc)
        self._news()

    def _enter(self, chunk: Chunk, slot: int, under_way: float, future: Future[Answer]) -> None:
        try:
            answer = future.result()
        except (ChunkLost, CancelledError) as lost:
            self._enter_loss(chunk, slot, lost)
        else:
            self._enter_answer(chunk, slot, under_way, answer)

    def _enter_answer(self, chunk: Chunk, slot: int, under_way: float, answer: Answer) -> None:
        if not isinstance(answer, Answer) or answer.slot != slot or answer.done > len(chunk):
            self.fail(
                RuntimeError(
                    f"backend {self._backend.name!r} gave a task an answer that is not its own: {guarded.short_repr(answer)}"
                )
            )
            return
        assert self.codec is not None  # noqa: S101
        if answer.told:
            self._router.receive_messages(answer.told)
        if answer.broken is not None:
            self.fail(self._not_run(answer))
            return
        with self._lock:
            if not self._release(chunk, slot):
                return
            self.timings.note(answer, chunk.start)
            self.sizes.rate.note(answer.done, answer.seconds, answer.longest, under_way)
            if answer.done:
                self.sizes.rate.weigh(answer.done, self.codec.weight(answer.values))
            raised = {position: exc for position, exc, _ in answer.failures}
            verdict = partial(self._retry_raised, raised)
            again = self.ledger.complete(chunk, answer.done, raised, verdict, time.monotonic())
            self._note_failures(len(raised) - len(again))
            if self._item_events is not None:
                self._item_events.complete(
                    chunk, answer, again, {p: self.ledger.failed_so_far(chunk, p) for p in raised}
                )
            if answer.done:
                self.completions.append(Completion(chunk, answer, frozenset(again)))

    def enter_loading(self, chunk: Chunk, unloadable: dict[int, Exception], worker: str, seconds: float) -> None:
        """Enter how long a chunk's results took to load, and which of them cannot be loaded here."""
        with self._lock:
            self.timings.packing += seconds
            self.ledger.fail_to_load(len(unloadable))
            self._note_failures(len(unloadable))
            if self._item_events is not None:
                self._item_events.fail_to_load(chunk, unloadable, worker)

    def forget_attempts(self, index: int) -> int:
        """Return how many attempts an item took whose outcome is known now."""
        with self._lock:
            return self.ledger.forget_attempts(index)

    def _not_run(self, answer: Answer) -> Exception:
        assert self.codec is not None  # noqa: S101
        exc = self.codec.error(answer.broken)
        guarded.add_note(exc, f"anymap: worker {answer.worker} could not run what it was sent")
        return exc

    def _enter_refusal(self, chunk: Chunk, slot: int, refused: Refused) -> None:
        with self._lock:
            if not self._release(chunk, slot):
                return
            self.ledger.refuse(chunk, refused.errors)
            self._note_failures(len(refused.errors))
            for position, cause in refused.errors.items():
                exc = type(cause)(f"the argument of item {chunk.start + position} cannot be sent to a worker: {cause}")
                exc.__cause__ = cause.__cause__
                if self._item_events is not None:
                    self._item_events.die(chunk.start + position, exc, 1, 0.0, "", is_final=True)
                self._complete_dead(chunk, position, exc, 0.0, "")
        self._news()

    def _enter_loss(self, chunk: Chunk, slot: int, lost: BaseException) -> None:
        assert self.codec is not None  # noqa: S101
        dead = getattr(lost, "dead", None)
        with self._lock:
            mark = self.codec.board.read(slot)
            if not self._release(chunk, slot) or self._abandoned:
                return
            newly_dead = self._deaths.count(dead, self.ledger.counts)
            certain = chunk.expired is not None or (dead is not None and mark.pid in dead)
            blamed = self.ledger.lose(chunk, self._deaths.running_position(chunk, mark, dead), certain=certain)
            if self._item_events is not None:
                self._item_events.lose(chunk, blamed, str(lost), newly_dead)
            if blamed is not None:
                self._enter_death(chunk, blamed, mark, lost)

    def _enter_death(self, chunk: Chunk, position: int, mark: Mark, lost: BaseException) -> None:
        exc = self._last_death = self._deaths.error(chunk, position, mark, lost)
        seconds = time.monotonic() - mark.began if mark.began else 0.0
        worker = str(mark.pid or "unknown")
        is_final = self.ledger.fail(chunk, position, partial(self._retry, exc), time.monotonic())
        if self._item_events is not None:
            attempts = self.ledger.failed_so_far(chunk, position)
            self._item_events.die(chunk.start + position, exc, attempts, seconds, worker, is_final=is_final)
        if is_final:
            self._note_failures(1)
            self._complete_dead(chunk, position, exc, seconds, worker)

    def _complete_dead(self, chunk: Chunk, position: int, exc: Exception, seconds: float, worker: str) -> None:
        row = chunk.part(position, position + 1)
        self.completions.append(Completion(row, None, death=(exc, seconds, worker)))

    def _note_failures(self, count: int) -> None:
        """Submit nothing any more once too many items have failed. Before these failures are among the completions."""
        if count and self.ledger.counts.failed > self._on_error.may_fail(self.ledger.counts.done):
            self._too_many_failures = not self._on_error.ends_at_first
            self.stop_submitting()

    def _may_fail_yet(self) -> int | None:
        """Return how many items of one more chunk may fail; ``None``: all of them."""
        limit = self._on_error.may_fail(self.ledger.counts.done)
        return None if limit == math.inf else max(int(limit) - self.ledger.counts.failed, 0)

    def failed_too_often(self) -> bool:
        """Tell whether more items have failed than may, and all of them have been taken from the completions."""
        if not self._too_many_failures:
            return False
        with self._lock:
            return not self.completions

    def _release(self, chunk: Chunk, slot: int) -> bool:
        """Give back what a chunk in flight held; return whether a map still waits for it."""
        assert self.codec is not None  # noqa: S101
        self._futures.pop(chunk, None)
        self._slots.pop(chunk, None)
        if not self.ledger.is_in_flight(chunk):
            return False
        self.codec.board.give_back(slot)
        return True

    def _retry_raised(self, raised: dict[int, Any], position: int, attempts: int) -> float | None:
        assert self.codec is not None  # noqa: S101
        if attempts > self._plan.retry.times:
            return None
        return self._retry(self.codec.error(raised[position]), position, attempts)

    def _retry(self, exc: Exception, position: int, attempts: int) -> float | None:  # noqa: ARG002 - a verdict's form
        return self._plan.retry.delay(exc, attempts)

    # --- on the way -----------------------------------------------------------------------------------------------

    def total(self) -> int | None:
        return self.sizes.total()

    def in_flight(self) -> Iterable[Chunk]:
        return self.ledger.in_flight()

    def marks(self) -> dict[Chunk, Mark]:
        """Read how far each chunk is."""
        assert self.codec is not None  # noqa: S101
        with self._lock:
            return {chunk: self.codec.board.read(slot) for chunk, slot in self._slots.items()}

    def counts(self, marks: Mapping[Chunk, Mark]) -> Counts:
        """Return the totals of this moment, with the items that chunks in flight have done by their ``marks``."""
        with self._lock:
            under_way = sum(mark.ended(len(chunk)) for chunk, mark in marks.items() if self.ledger.is_in_flight(chunk))
            return replace(self.ledger.counts, done=self.ledger.counts.done + under_way)

    def expire(self, marks: dict[Chunk, Mark]) -> None:
        """Put an end to items that take longer than they may."""
        limit = self._plan.timeout
        if limit is None:
            return
        for chunk, mark in marks.items():
            if 0 <= mark.position < len(chunk) and mark.seconds() > limit:
                self._end_item(chunk, mark)

    def _end_item(self, chunk: Chunk, mark: Mark) -> None:
        assert self.codec is not None  # noqa: S101
        with self._lock:
            future = self._futures.get(chunk)
            if future is None or self.codec.board.read(self._slots[chunk]) != mark:
                return
            chunk.expired = mark.position
            if self._backend.traits.kills:
                self._deaths.killed.add(mark.pid)
            else:
                self._give_up(chunk, mark)
        if self._backend.traits.kills:
            self._backend.kill_task(future, mark.pid)
        else:
            try:
                self._backend.abandon(future)
            except Exception as exc:  # noqa: BLE001 - the item has its outcome, and only its worker stays busy
                own_log.warning("backend %r cannot give up a task that is stuck", self._backend.name, exc_info=exc)
            self._news()

    def _give_up(self, chunk: Chunk, mark: Mark) -> None:
        # The slot is not given back: its thread may still write to it.
        self.gave_up = True
        del self._futures[chunk], self._slots[chunk]
        blamed = self.ledger.lose(chunk, mark.position, certain=True)
        if self._item_events is not None:
            self._item_events.lose(chunk, blamed, "", {})
        if blamed is not None:
            self._enter_death(chunk, blamed, mark, TimeoutError())


def _nothing() -> None:
    pass
