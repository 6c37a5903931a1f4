"""What a map tells its sinks: made of what the engine knows, and no more of it than they want."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Protocol

from anymap._engine.telemetry import rates
from anymap._engine.telemetry.advice import Advice, advise
from anymap._engine.telemetry.item_events import ItemEvents
from anymap._engine.telemetry.measures import Timings
from anymap._engine.telemetry.router import MessageRouter
from anymap._engine.telemetry.task_events import Tasks, passed_out
from anymap._host.live_messages import ITEM, TASK
from anymap.progress import Advanced, Emitter, Finished, ItemDone, ItemStarted, LogRecord, Started, TaskProgress

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable

    from anymap._engine.codec import Around
    from anymap._engine.ledger import Chunk, Counts
    from anymap._engine.plan import Plan
    from anymap._engine.telemetry.log_events import Records
    from anymap._host.status_board import Mark


class Totals(Protocol):
    """What a map knows of all its items."""

    def counts(self, marks: dict[Chunk, Mark]) -> Counts:
        """Return how many items have ended, with those that chunks in flight have done by their ``marks``."""
        ...

    def total(self) -> int | None:
        """Return how many items there are, if that is known."""
        ...

    def in_flight(self) -> Iterable[Chunk]: ...


class Telemetry:
    """What a map measures and hears, and where it tells of it."""

    def __init__(self, plan: Plan) -> None:
        self.timings = Timings()
        self.router = MessageRouter(plan.listeners, plan.context)
        self.emitter = Emitter(passed_out(plan.sinks, plan.depth), plan.context)
        self.item_events = self._keep_item_events()
        """``None`` where no sink wants events of single items and workers."""

    def _keep_item_events(self) -> ItemEvents | None:
        if not self.emitter.wants(*ItemEvents.kinds):
            return None
        item_events = ItemEvents(self.emitter, self.router, self.timings)
        if self.emitter.wants(ItemStarted):
            self.router.listen(ITEM, item_events.begin)
        return item_events


class Reporter:
    """Where all events of one map come from. Its methods are called by the iterating thread and by the supervisor."""

    def __init__(self, plan: Plan, totals: Totals, telemetry: Telemetry) -> None:
        self._plan = plan
        self._totals = totals
        self._emitter = telemetry.emitter
        self._timings = telemetry.timings
        self._router = telemetry.router
        self._item_events = telemetry.item_events
        self._workers = 1
        self._tasks = self._listen_to_tasks()
        self._records = self._listen_to_records()

    def __bool__(self) -> bool:
        """A sink listens."""
        return bool(self._emitter)

    def around(self) -> Around | None:
        """Return what is to wrap the function in the workers, if anything."""
        if not self._emitter.wants(ItemStarted, ItemDone):
            return None
        from anymap._in_worker.items import Watched  # noqa: PLC0415 - few maps need it

        return Watched

    def start(self, workers: int, decode: Callable[[Any], Exception]) -> None:
        """Tell that the map begins. ``decode`` makes an exception of what an answer has of one."""
        self._workers = workers
        if self._item_events is not None:
            self._item_events.decode = decode
        if not self._emitter:
            return
        plan = self._plan
        self._emitter.emit(
            Started(
                desc=plan.desc, total=plan.total, backend=plan.backend.name, workers=workers, settings=plan.settings
            )
        )

    def tell_of_items(self) -> None:
        """Tell what has happened to single items and workers since the last time."""
        if self._item_events is not None:
            self._item_events.flush()
        if self._records is not None:
            self._records.flush()

    def advance(self, marks: dict[Chunk, Mark]) -> None:
        """Tell how far it all is; ``marks`` of the chunks in flight."""
        self.tell_of_items()
        if self._tasks is not None:
            self._tasks.emit_changes(self._totals.in_flight)
        if self._emitter.wants(Advanced):
            self._emitter.emit(self._advanced(marks))

    def finish(self, marks: dict[Chunk, Mark], *, complete: bool) -> None:
        """Tell the end; ``marks`` of the chunks whose answers are not waited for any more."""
        self.tell_of_items()
        if self._tasks is not None:
            self._tasks.end()
        if self._emitter:
            self._emitter.emit(self._finished(marks, complete=complete))

    def _listen_to_tasks(self) -> Tasks | None:
        if not self._emitter.wants(TaskProgress):
            return None
        tasks = Tasks(self._emitter, self._timings, self._plan.backend.traits, self._router.settle)
        self._router.listen(TASK, tasks.hear)
        return tasks

    def _listen_to_records(self) -> Records | None:
        if not self._emitter.wants(LogRecord):
            return None
        from anymap._engine.telemetry.log_events import Records  # noqa: PLC0415 - as above

        return Records(self._plan, self._emitter, self._router, self._timings)

    def _advanced(self, marks: dict[Chunk, Mark]) -> Advanced:
        counts = self._totals.counts(marks)
        return Advanced(
            done=counts.done,
            failed=counts.failed,
            retried=counts.retried,
            lost=counts.lost,
            total=self._totals.total(),
            elapsed=self._timings.elapsed,
        )

    def _finished(self, marks: dict[Chunk, Mark], *, complete: bool) -> Finished:
        counts, timings = self._totals.counts(marks), self._timings
        advice = self._advice() if self._may_be_advised(complete=complete) else None
        elapsed = timings.elapsed
        return Finished(
            done=counts.done,
            failed=counts.failed,
            retried=counts.retried,
            lost=counts.lost,
            total=self._totals.total(),
            elapsed=elapsed,
            complete=complete,
            start_up=timings.start_up or 0.0,
            work=timings.work,
            cpu=timings.cpu,
            packing=timings.packing,
            waiting=timings.waiting.seconds,
            advice=advice.text if advice is not None else "",
            gain=advice.factor if advice is not None else 1.0,
            busy=min(timings.work / (elapsed * self._workers), 1.0) if elapsed else 0.0,
            slowest=timings.slowest_items(),
        )

    def _advice(self) -> Advice | None:
        costs, items = self._timings.costs(), self._totals.counts({}).done
        slower = rates.slower_backends(self._plan.func, costs.busy / items) if items else set()
        return advise(costs, items, self._workers, slower - {self._plan.backend.name})

    def _may_be_advised(self, *, complete: bool) -> bool:
        # A map that lost a worker would have lost the program elsewhere.
        return complete and not self._totals.counts({}).lost and not self._plan.backend.traits.inline
