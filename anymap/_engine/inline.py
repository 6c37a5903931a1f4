"""A map in the caller's own thread: pull an item, call the function, hand out the result.

Nothing here waits for another thread, so signal handlers run at any moment, as in a plain loop; they are only held back while
the map opens and closes.
"""

from __future__ import annotations

import os
import time
from typing import TYPE_CHECKING, Any

from anymap._engine import ends, outcomes
from anymap._engine.inline_calls import Calls, Tally
from anymap._engine.ordering import Batch
from anymap._engine.supervisor import Supervisor
from anymap._engine.telemetry import rates
from anymap._host import guarded
from anymap._host.handlers import held_back, let_in
from anymap._serialize import exceptions

if TYPE_CHECKING:
    from collections.abc import Callable, Generator, Iterable

    from anymap._engine.inline_calls import Call
    from anymap._engine.plan import Plan


def is_inline(plan: Plan) -> bool:
    """Tell whether a map runs in the caller's own thread."""
    return plan.backend.expected_traits(plan.workers).inline


class Failed:
    """Marks an item's failure among results."""

    def __init__(self, exc: Exception) -> None:
        self.exc = exc


class Inline:
    """One map. Use :meth:`collect`, :meth:`results` or :meth:`batches`, once."""

    def __init__(self, plan: Plan, rows: Iterable[Any]) -> None:
        self.failed: list[Exception] = []
        """What failed so far, where it is needed at the end."""
        self._plan = plan
        self._rows = rows
        self._on_error = outcomes.outcomes_of(plan)
        self._in_place_of: Callable[[Exception], tuple[Any, ...]] = self._on_error.in_place_of
        self._tally = Tally(plan)
        self._calls = Calls(plan, self._tally)
        self._supervisor = Supervisor(self._advance)
        self._source_error: Exception | None = None
        self._raised: BaseException | None = None
        """What ends the map, and is no error of the input's."""
        self._told_to_end: BaseException | None = None
        self._process = os.getpid()
        self._is_open = False
        self._closed = False

    # --- the map, in one of three forms -----------------------------------------------------------------------------

    def collect(self) -> list[Any]:
        """Do the whole map and return its results."""
        if self._plan.max_failures is not None:
            self._in_place_of = _mark
        results: list[Any] = []
        try:
            self.open()
            let_in(self._extend, results)
        except outcomes.TooManyFailures:
            self.close()
            results = [*_unmarked(results), self.failed[-1]]
            raise outcomes.too_many_failures(self._plan, self.failed, results) from None
        except BaseException as exc:
            self.close(exc)
            raise
        self.close()
        if self._plan.max_failures is not None:
            results = [given for value in results for given in self._outcome_of(value)]
        self._on_error.finish(results, self.failed, self._source_error)
        return results

    def results(self) -> Generator[Any]:
        """Yield the results one by one. Closing the generator ends the map."""
        try:
            with held_back():
                self.open()
            yield from self._values(self._calls.in_context())
        except outcomes.TooManyFailures:
            self.close()
            raise outcomes.too_many_failures(self._plan, self.failed, ()) from None
        except BaseException as exc:
            self.close(exc)
            raise
        self.close()
        self._on_error.finish([], self.failed, None)

    def batches(self) -> Generator[Batch]:
        """Yield each item as a batch of its own."""
        self._in_place_of = _mark
        for value in self.results():
            at = self._tally.at - 1
            if type(value) is Failed:
                yield Batch(at, [None], {0: value.exc})
            else:
                yield Batch(at, [value], {})

    # --- the loop ---------------------------------------------------------------------------------------------------

    def _extend(self, results: list[Any]) -> None:
        if self._plan.prompt:  # pulling runs no code of the caller's, which would find itself inside of the map
            self._calls.inside(lambda: results.extend(self._values(self._calls.plain())))
        else:
            results.extend(self._values(self._calls.in_context()))

    def _values(self, call: Call) -> Generator[Any]:
        # All that is done for each item is here, and in what ``call`` is wrapped in.
        tally, clock = self._tally, time.monotonic
        try:
            for row in self._rows:
                tally.began = clock()
                try:
                    value = call(row)
                except BaseException as exc:  # noqa: BLE001 - it is the item's outcome, whatever it is
                    yield from self._outcome(exc, call, row)
                else:
                    tally.at += 1
                    if self._told_to_end is not None:
                        self._end(self._told_to_end)
                    yield value
        except Exception as exc:
            if exc is self._raised or self._plan.lazy or exceptions.raised_by_handler(exc):
                raise
            self._source_error = exc
            return
        self._tally.exhausted = True

    def _outcome(self, exc: BaseException, call: Call, row: Any) -> tuple[Any, ...]:
        """Try an item that has failed again, as often as it may be; return what is handed out in the end."""
        attempts = 1
        while True:
            if issubclass(type(exc), KeyboardInterrupt) or exceptions.raised_by_handler(exc):
                self._end(exc)  # it is the caller's, not the item's
            seconds = time.monotonic() - self._tally.began
            guarded.put(exc, "__traceback__", exceptions.users_part(guarded.get(exc, "__traceback__")))
            delay = self._plan.retry.delay(exceptions.as_exception(exc), attempts)
            self._calls.note_failure(exc, seconds, attempts, is_final=delay is None)
            if delay is None:
                return self._fail(exceptions.as_exception(exc), row, attempts, seconds)
            self._tally.retried += 1
            time.sleep(delay)
            attempts += 1
            self._calls.begin_again()
            try:
                value = call(row)
            except BaseException as again:  # noqa: BLE001 - as above
                exc = again
            else:
                self._tally.at += 1
                return (value,)

    def _fail(self, exc: Exception, row: Any, attempts: int, seconds: float) -> tuple[Any, ...]:
        tally, calls = self._tally, self._calls
        attached = outcomes.of_item(
            self._plan, exc, tally.at, row, attempts, seconds, calls.worker, calls.output_of_failed()
        )
        tally.at += 1
        tally.failed += 1
        if self._on_error.ends_at_first:
            self._end(attached)
        if self._on_error.keeps_failures:
            self.failed.append(attached)
        if tally.failed > self._on_error.may_fail(tally.at):
            self._end(outcomes.TooManyFailures())
        return self._in_place_of(attached)

    def _end(self, exc: BaseException) -> None:
        self._raised = exc
        raise exc

    def _outcome_of(self, value: Any) -> tuple[Any, ...]:
        return self._on_error.in_place_of(value.exc) if type(value) is Failed else (value,)

    # --- begin and end ----------------------------------------------------------------------------------------------

    def _advance(self) -> None:
        self._calls.router.catch_up()
        self._calls.reporter.advance({})

    @property
    def window(self) -> int:
        """How many items may be under way just now."""
        return self._plan.window or 1

    @property
    def handed_out(self) -> int:
        """How many items have ended."""
        return self._tally.at

    def open(self) -> None:
        """Get everything ready."""
        if self._is_open:
            return
        self._is_open = True
        self._calls.timings.began = time.monotonic()
        ends.open_backend(self._plan)
        self._calls.reporter.start(1, exceptions.as_exception)
        if self._calls.reporter:
            self._supervisor.start()
            if self._plan.lazy:
                ends.close_at_exit(self)

    def fail(self, exc: BaseException) -> None:
        """End the map from another thread, after the item that runs: the iterating one raises ``exc``."""
        self._told_to_end = exc

    def close(self, error: BaseException | None = None) -> None:
        """End the map, however far it is. Does nothing the second time, and in a fork of the process whose map it is."""
        if self._closed or os.getpid() != self._process:
            return
        with held_back():
            self._closed = True
            complete = self._tally.exhausted
            self._supervisor.stop()
            try:
                ends.close_backend(self._plan.backend, error, complete=complete)
            finally:
                self._calls.router.close(settle=False)
                if complete and self._plan.prompt and not self._plan.lazy and self._tally.at:
                    rates.note_speed(
                        self._plan.backend.name, self._plan.func, self._calls.timings.elapsed / self._tally.at
                    )
                self._calls.reporter.finish({}, complete=complete)


def _mark(exc: Exception) -> tuple[Failed]:
    return (Failed(exc),)


def _unmarked(results: list[Any]) -> list[Any]:
    return [value.exc if type(value) is Failed else value for value in results]
