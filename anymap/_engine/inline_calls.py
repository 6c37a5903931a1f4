"""How the function is called where the items run in the caller's own thread."""

from __future__ import annotations

import contextlib
import os
import time
from typing import TYPE_CHECKING, Any

from anymap._config.scope import Scope, scope
from anymap._engine.ledger import Chunk, Counts
from anymap._engine.telemetry.reporter import Reporter, Telemetry
from anymap._host.handlers import held_back
from anymap._propagate import item_environment
from anymap._worker.context import InlineContext, task_context
from anymap._worker.protocol import Answer, MapSpec
from anymap._worker.set_up import worker_name

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable

    from anymap._engine.plan import Plan

    Call = Callable[[Any], Any]


class Tally:
    """How far a map is. Any thread may ask."""

    def __init__(self, plan: Plan) -> None:
        self.at = 0
        """How many items have ended: the index of the current one."""
        self.failed = 0
        self.retried = 0
        self.exhausted = False
        """There is nothing left to pull."""
        self.began = 0.0
        """When the current item began, on the clock of ``time.monotonic``."""
        self._plan = plan

    def counts(self, marks: object) -> Counts:  # noqa: ARG002 - there are no chunks
        return Counts(done=self.at, failed=self.failed, retried=self.retried)

    def total(self) -> int | None:
        return self.at if self.exhausted else self._plan.total

    def in_flight(self) -> tuple[Chunk, ...]:
        return (Chunk(self.at, [None]),)


class Calls:
    """Calls the function with one row at a time, inside of the map, and notes what sinks want to know of it."""

    def __init__(self, plan: Plan, tally: Tally) -> None:
        self._plan = plan
        self._tally = tally
        self._telemetry = Telemetry(plan)
        self.timings = self._telemetry.timings
        self.router = self._telemetry.router
        self.reporter = Reporter(plan, tally, self._telemetry)
        self._context = InlineContext(self._spec(), tally)
        self.worker = worker_name(self._context.spec)

    def output_of_failed(self) -> str:
        """Return what the current item has printed, where that is kept."""
        return (self._context.kept or {}).get(self._tally.at, "")

    def begin_again(self) -> None:
        """The current item is tried again: it finds the same random numbers."""
        self._context.stream = None
        self._tally.began = time.monotonic()

    def _spec(self) -> MapSpec:
        plan = self._plan
        return MapSpec(
            map_id="",
            function=plan.func,
            star=plan.star,
            board=None,
            channel=None,
            timeout=plan.timeout,
            spool=None,
            parent=os.getpid(),
            shares_memory=True,
            inherited=plan.config.passed_on(1),
            tells=self._telemetry.router.tells_in_memory(),
            environment=item_environment.make(plan.backend, plan.environment_settings, plan.seed),
            outer=task_context.get(),
        )

    def plain(self) -> Call:
        """Return what calls the function with a row, to be called :meth:`inside` of the map."""
        func, environment = self._plan.func, self._context.spec.environment
        if environment is not None:
            func = environment.around(func)
        if (around := self.reporter.around()) is not None:
            func = around(func)
        call = (lambda row: func(*row)) if self._plan.star else func
        if self._telemetry.item_events is not None:
            call = self._noting_end(call)
        return self._timed(call) if self.reporter else call

    def _timed(self, call: Call) -> Call:
        note, clock, tally = self.timings.note_item, time.monotonic, self._tally

        def timed(row: Any) -> Any:
            try:
                return call(row)
            finally:
                note(clock() - tally.began, tally.at)

        return timed

    def _noting_end(self, call: Call) -> Call:
        def noting_end(row: Any) -> Any:
            value = call(row)
            self._note(Answer(1, [None], [], 0.0, 0.0, 0.0, self.worker, 0))
            return value

        return noting_end

    def note_failure(self, exc: BaseException, seconds: float, attempts: int, *, is_final: bool) -> None:
        answer = Answer(1, [None], [(0, exc, seconds)], 0.0, 0.0, 0.0, self.worker, 0)
        self._note(answer, attempts, again=() if is_final else (0,))

    def _note(self, answer: Answer, attempts: int = 1, again: Iterable[int] = ()) -> None:
        events, context = self._telemetry.item_events, self._context
        if events is None:
            return
        with held_back():
            durations = {0: context.durations.pop(self._tally.at, 0.0)}
            (chunk,) = self._tally.in_flight()
            events.complete(chunk, answer._replace(durations=durations), again, {0: attempts})
            self.reporter.tell_of_items()

    def in_context(self) -> Call:
        """Return what calls the function so that only the item runs inside of the map: not the input, nor what takes the results."""
        call = self.plain()
        environment = self._context.spec.environment
        if environment is not None and environment.output != "inherit":
            return self._in_whole_context(call)
        context, inside = self._context, self._scope()
        enter, enter_scope, current, current_scope = task_context.set, scope.set, task_context.get, scope.get

        # Without tokens: a signal handler may raise before one is bound to a name.
        def in_context(row: Any) -> Any:
            before, scope_before = current(), current_scope()
            try:
                enter(context)
                try:
                    enter_scope(inside)
                    return call(row)
                finally:
                    enter_scope(scope_before)
            finally:
                enter(before)

        return in_context

    def _in_whole_context(self, call: Call) -> Call:
        return lambda row: self.inside(lambda: call(row))

    def inside(self, do: Callable[[], Any]) -> Any:
        """Call ``do`` as an item is called."""
        environment = self._context.spec.environment
        before, scope_before = task_context.get(), scope.get()
        try:
            task_context.set(self._context)
            scope.set(self._scope())
            with environment.inside() if environment is not None else contextlib.nullcontext():
                try:
                    return do()
                except BaseException as exc:  # noqa: BLE001 - raised below
                    # Not through the context manager, which would write on it: its class may refuse that.
                    raised = exc
        finally:
            try:
                scope.set(scope_before)
            finally:
                task_context.set(before)
        raise raised

    def _scope(self) -> Scope:
        return Scope((), self._context.spec.inherited)
