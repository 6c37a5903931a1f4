"""What a map tells its sinks: made of what the engine knows, and no more of it than they want."""

from __future__ import annotations

from typing import TYPE_CHECKING

from anymap._engine import paces
from anymap._engine.advice import Advice, advise
from anymap._engine.journal import Journal
from anymap._engine.tasks import Tasks, passed_out
from anymap._letters import ITEM, TASK
from anymap.progress import Advanced, Emitter, Finished, ItemDone, ItemStarted, LogRecord, Started, TaskProgress

if TYPE_CHECKING:
    from anymap._board import Mark
    from anymap._engine.carrier import Around, Carrier
    from anymap._engine.flights import Flights
    from anymap._engine.ledger import Chunk
    from anymap._engine.plan import Plan
    from anymap._engine.records import Records


class Reporter:
    """Where all events of one map come from. Its methods are called by the iterating thread and by the supervisor."""

    def __init__(self, plan: Plan, flights: Flights) -> None:
        self._plan = plan
        self._flights = flights
        self._emitter = Emitter(passed_out(plan.sinks, plan.depth), plan.context)
        self._workers = 1
        self._tasks = self._listen_to_tasks()
        self._journal = flights.journal = self._keep_journal()
        self._records = self._listen_to_records()

    def __bool__(self) -> bool:
        """Somebody listens."""
        return bool(self._emitter)

    def around(self) -> Around | None:
        """Return what is to wrap the function in the workers, if anything."""
        if not self._emitter.wants(ItemStarted, ItemDone):
            return None
        from anymap._items import Watched  # noqa: PLC0415 - few maps need it

        return Watched

    def start(self, carrier: Carrier, workers: int) -> None:
        self._workers = workers
        if self._journal is not None:
            self._journal.carrier = carrier
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
        if self._journal is not None:
            self._journal.flush()
        if self._records is not None:
            self._records.flush()

    def advance(self, marks: dict[Chunk, Mark]) -> None:
        """Tell how far it all is; ``marks`` of the chunks in flight."""
        self.tell_of_items()
        if self._tasks is not None:
            self._tasks.emit_changes(self._flights.ledger.in_flight)
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
        hearing = self._flights.hearing
        tasks = Tasks(self._emitter, self._flights.meter, self._plan.backend.traits, hearing.settle)
        hearing.listen(TASK, tasks.hear)
        return tasks

    def _listen_to_records(self) -> Records | None:
        if not self._emitter.wants(LogRecord):
            return None
        from anymap._engine.records import Records  # noqa: PLC0415 - as above

        return Records(self._plan, self._emitter, self._flights.hearing, self._flights.meter)

    def _keep_journal(self) -> Journal | None:
        if not self._emitter.wants(*Journal.kinds):
            return None
        journal = Journal(self._emitter, self._flights.hearing, self._flights.meter)
        if self._emitter.wants(ItemStarted):
            self._flights.hearing.listen(ITEM, journal.begin)
        return journal

    def _advanced(self, marks: dict[Chunk, Mark]) -> Advanced:
        counts = self._flights.counts(marks)
        return Advanced(
            done=counts.done,
            failed=counts.failed,
            retried=counts.retried,
            lost=counts.lost,
            total=self._flights.total(),
            elapsed=self._flights.meter.elapsed,
        )

    def _finished(self, marks: dict[Chunk, Mark], *, complete: bool) -> Finished:
        counts, meter = self._flights.counts(marks), self._flights.meter
        advice = self._advice() if self._may_be_advised(complete=complete) else None
        elapsed = meter.elapsed
        return Finished(
            done=counts.done,
            failed=counts.failed,
            retried=counts.retried,
            lost=counts.lost,
            total=self._flights.total(),
            elapsed=elapsed,
            complete=complete,
            start_up=meter.start_up or 0.0,
            work=meter.work,
            cpu=meter.cpu,
            packing=meter.packing,
            waiting=meter.waiting.seconds,
            advice=advice.text if advice is not None else "",
            gain=advice.factor if advice is not None else 1.0,
            busy=min(meter.work / (elapsed * self._workers), 1.0) if elapsed else 0.0,
            slowest=meter.slowest_items(),
        )

    def _advice(self) -> Advice | None:
        costs, items = self._flights.meter.costs(), self._flights.ledger.counts.done
        slower = paces.slower_backends(self._plan.func, costs.busy / items) if items else set()
        return advise(costs, items, self._workers, slower - {self._plan.backend.name})

    def _may_be_advised(self, *, complete: bool) -> bool:
        # A map that lost a worker would have lost the program elsewhere.
        return complete and not self._flights.ledger.counts.lost and not self._plan.backend.traits.inline
