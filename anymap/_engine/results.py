"""What the caller gets: a list, or an iterator. Here errors, values until now, take the form that was asked for."""

from __future__ import annotations

from concurrent.futures import CancelledError
from contextlib import closing
from operator import attrgetter
from typing import TYPE_CHECKING, Any, Generic, Self, TypeVar

from anymap._engine.ordering import AsFinished, InOrder
from anymap._engine.raising import without_ours
from anymap._engine.run import TooManyFailures
from anymap._errors import MapError
from anymap._host import guarded
from anymap._host.handlers import held_back
from anymap._serialize import failures as _failures

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence
    from types import TracebackType

    from anymap._engine.ordering import Batch
    from anymap._engine.plan import Plan
    from anymap._engine.run import Run

R_co = TypeVar("R_co", covariant=True)


def collect(run: Run, plan: Plan) -> list[Any]:
    """Do the whole map and return its results."""
    with held_back():
        return _collect(run, plan)


def _collect(run: Run, plan: Plan) -> list[Any]:
    shaper, landing = _Shaper(plan), InOrder() if plan.ordered else AsFinished()
    results: list[Any] = []
    arrived: list[Batch] = []
    source_error: Exception | None = None
    try:
        with closing(run.batches()) as batches:
            for batch in batches:
                if plan.max_failures is not None:
                    arrived.append(batch)
                # At once: what has just been loaded is still in the processor's cache.
                landing.add(batch)
                while (ready := landing.pop()) is not None:
                    results += shaper.values(ready)
    except TooManyFailures:
        results = _in_their_places(arrived, run.pulled)
        raise _passed_max_failures(run, plan, results) from None
    except Exception as exc:
        if plan.on_error == "raise" or exc is not run.source_error:
            raise
        # What was done is not lost with the input: its error stands where the next item's result would.
        source_error = exc
    if source_error is not None and plan.on_error != "group":
        if plan.on_error == "skip":
            raise source_error
        results.append(source_error)
    if plan.on_error == "group":
        _raise_group(run, plan, results, source_error)
    return results


def _in_their_places(batches: list[Batch], pulled: int) -> list[Any]:
    """Return what there is for each item that was pulled: its result, its exception, or that it was not finished."""
    results: list[Any] = [CancelledError() for _ in range(pulled)]
    for batch in batches:
        for position, value in enumerate(batch.values):
            results[batch.start + position] = batch.errors.get(position, value)
    return results


def _passed_max_failures(run: Run, plan: Plan, results: Sequence[Any]) -> MapError:
    limit = f"{100 * plan.max_failures:g}%" if isinstance(plan.max_failures, float) else plan.max_failures
    return _map_error(plan, f", more than max_failures={limit}", run.failed, results)


def _raise_group(run: Run, plan: Plan, results: Sequence[Any], source_error: Exception | None = None) -> None:
    """Raise what has failed as one error, if anything has; only once."""
    failed, run.failed = run.failed, []
    if failed or source_error is not None:
        raise _map_error(plan, "", failed, results, source_error)


def _map_error(
    plan: Plan, why: str, failed: list[Exception], results: Sequence[Any], source_error: Exception | None = None
) -> MapError:
    failures = [found for exc in failed if (found := _failures.failure(exc)) is not None]
    failures.sort(key=attrgetter("index"))
    exceptions = [found.exception for found in failures]
    if source_error is not None:
        exceptions.append(source_error)
    count = "1 item" if len(failed) == 1 else f"{len(failed)} items"
    message = f"{count} failed{why}{_failures.first_of(failures, show_items=plan.show_items)}"
    if source_error is not None:
        message = f"the input raised {_failures.in_short(source_error)}" + (f"; {message}" if failed else "")
    return MapError(message, exceptions, results, failures)


class MapIterator(Generic[R_co]):
    """The results of a lazy map, one by one.

    Leaving a ``with`` block, ``close()`` or dropping the iterator ends the map: what is queued is cancelled, and
    workers are freed.
    """

    def __init__(self, run: Run, plan: Plan) -> None:
        self._run = run
        self._plan = plan
        self._shaper = _Shaper(plan)
        self._batches = run.batches()
        self._indices: range | list[int] = range(0)
        self._values: Any = iter(())
        self._is_waiting = False
        self._closed = False

    @property
    def window(self) -> int:
        """How many items may be in flight or waiting to be taken just now."""
        return self._run.window

    def __repr__(self) -> str:
        func, state = guarded.short_repr(self._plan.func), ", closed" if self._closed else ""
        return f"<MapIterator of {func} on {self._plan.backend!r}{state}>"

    def __iter__(self) -> Self:
        return self

    def __next__(self) -> R_co:
        for value in self._values:
            return value  # type: ignore[no-any-return]
        try:
            with held_back():
                return self._first_of_next_batch()
        except BaseException as exc:  # noqa: BLE001 - whatever it is, it is raised
            __tracebackhide__ = True
            raise without_ours(exc)  # noqa: B904 - it is the same

    def _first_of_next_batch(self) -> R_co:
        while True:
            self._turn_to_next_batch()
            for value in self._values:
                return value  # type: ignore[no-any-return]

    def indexed(self) -> Iterator[tuple[int, R_co]]:
        """Iterate over pairs of an item's index in the input and its result; for results that come as they finish."""
        try:
            for value in self:
                yield self._indices[len(self._indices) - self._values.__length_hint__() - 1], value
        except Exception as exc:  # noqa: BLE001 - whatever it is, it is raised
            __tracebackhide__ = True
            raise without_ours(exc)  # noqa: B904 - it is the same

    def close(self) -> None:
        """End the map now. Does nothing if it is over.

        If another thread is waiting for a result, a ``CancelledError`` of ``concurrent.futures`` is raised there.
        """
        self._values = iter(())
        self._closed = True
        if self._is_waiting:  # it is for that thread to end the map
            self._run.fail(_closed_meanwhile())
        else:
            self._batches.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, exc: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self.close()

    def _turn_to_next_batch(self) -> None:
        """Load the next results into the iterator; raise ``StopIteration`` or the map's error at the end."""
        self._is_waiting = True
        try:
            batch = next(self._batches)
        except TooManyFailures:
            raise _passed_max_failures(self._run, self._plan, ()) from None
        except StopIteration:
            if self._plan.on_error == "group":
                _raise_group(self._run, self._plan, ())
            raise
        finally:
            self._is_waiting = False
        if self._closed:
            self._batches.close()
            raise _closed_meanwhile()
        self._indices = self._shaper.indices(batch)
        self._values = iter(self._shaper.values(batch))


def _closed_meanwhile() -> CancelledError:
    return CancelledError("the map was closed while a result was awaited")


class _Shaper:
    """Applies ``on_error`` to batches."""

    def __init__(self, plan: Plan) -> None:
        # An iterator cannot take back what it has handed out: a group is what is raised at its end.
        self._leaves_out = plan.on_error == "skip" or (plan.on_error == "group" and plan.lazy)

    def values(self, batch: Batch) -> list[Any]:
        if not batch.errors:
            return batch.values
        if self._leaves_out:
            return [value for position, value in enumerate(batch.values) if position not in batch.errors]
        return [batch.errors.get(position, value) for position, value in enumerate(batch.values)]

    def indices(self, batch: Batch) -> range | list[int]:
        every = range(batch.start, batch.start + len(batch.values))
        if self._leaves_out and batch.errors:
            return [index for index in every if index - batch.start not in batch.errors]
        return every
