"""What the caller gets: a list, or an iterator. Here errors, values until now, take the form that was asked for."""

from __future__ import annotations

import abc
from concurrent.futures import CancelledError
from contextlib import closing
from typing import TYPE_CHECKING, Any, Generic, Self, TypeVar

from anymap._engine import outcomes
from anymap._engine.inline import Inline, is_inline
from anymap._engine.ordering import AsFinished, InOrder
from anymap._engine.raising import without_ours
from anymap._engine.run import Run
from anymap._engine.sources import source_of
from anymap._host import guarded
from anymap._host.handlers import held_back

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence
    from types import TracebackType

    from anymap._engine.ordering import Batch
    from anymap._engine.plan import Plan

R_co = TypeVar("R_co", covariant=True)


def run_of(plan: Plan, rows: list[Any] | range | tuple[Any, ...] | Iterator[Any]) -> Run | Inline:
    """Return a map that has not begun."""
    return Inline(plan, rows) if is_inline(plan) else Run(plan, source_of(rows, plan))


def collect(run: Run | Inline, plan: Plan) -> list[Any]:
    """Do a whole map and return its results."""
    with held_back():
        return run.collect() if isinstance(run, Inline) else _collect(run, plan)


def iterate(run: Run | Inline, plan: Plan) -> MapIterator[Any]:
    """Return the iterator over the results of a map that begins with the first that is asked for."""
    return InlineIterator(run, plan) if isinstance(run, Inline) else BatchIterator(run, plan)


def _collect(run: Run, plan: Plan) -> list[Any]:
    ordering, on_error = InOrder() if plan.ordered else AsFinished(), outcomes.outcomes_of(plan)
    results: list[Any] = []
    arrived: list[Batch] = []
    source_error: Exception | None = None
    try:
        with closing(run.batches()) as batches:
            for batch in batches:
                if plan.max_failures is not None:
                    arrived.append(batch)
                # At once: what has just been loaded is still in the processor's cache.
                ordering.add(batch)
                while (ready := ordering.pop()) is not None:
                    results += outcomes.values(ready, on_error)
    except outcomes.TooManyFailures:
        results = _in_their_places(arrived, run.pulled)
        raise outcomes.too_many_failures(plan, run.failed, results) from None
    except Exception as exc:
        if exc is not run.source_error:
            raise
        # What was done is not lost with the input.
        source_error = exc
    on_error.finish(results, run.failed, source_error)
    return results


def _in_their_places(batches: list[Batch], pulled: int) -> list[Any]:
    """Return what there is for each item that was pulled: its result, its exception, or that it was not finished."""
    results = outcomes.unfinished(pulled)
    for batch in batches:
        for position, value in enumerate(batch.values):
            results[batch.start + position] = batch.errors.get(position, value)
    return results


class MapIterator(abc.ABC, Generic[R_co]):
    """The results of a lazy map, one by one.

    Leaving a ``with`` block, ``close()`` or dropping the iterator ends the map: what is queued is cancelled, and
    workers are freed.
    """

    _plan: Plan
    _run: Run | Inline
    _closed = False

    @property
    def window(self) -> int:
        """How many items may be in flight or waiting to be taken just now."""
        return self._run.window

    def __repr__(self) -> str:
        func, state = guarded.short_repr(self._plan.func), ", closed" if self._closed else ""
        return f"<MapIterator of {func} on {self._plan.backend!r}{state}>"

    def __iter__(self) -> Self:
        return self

    @abc.abstractmethod
    def __next__(self) -> R_co: ...

    def indexed(self) -> Iterator[tuple[int, R_co]]:
        """Iterate over pairs of an item's index in the input and its result; for results that come as they finish."""
        try:
            for value in self:
                yield self._index(), value
        except Exception as exc:  # noqa: BLE001 - whatever it is, it is raised
            __tracebackhide__ = True
            raise without_ours(exc)  # noqa: B904 - it is the same

    @abc.abstractmethod
    def _index(self) -> int:
        """Return the index in the input of the item whose result was last handed out."""

    def close(self) -> None:
        """End the map now. Does nothing if it is over.

        If another thread is waiting for a result, a ``CancelledError`` of ``concurrent.futures`` is raised there.
        """
        self._closed = True
        self._end()

    @abc.abstractmethod
    def _end(self) -> None: ...

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, exc: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self.close()


class InlineIterator(MapIterator[R_co]):
    """Those of a map in the caller's own thread."""

    _run: Inline

    def __init__(self, run: Inline, plan: Plan) -> None:
        self._run = run
        self._plan = plan
        self._results = run.results()

    def __next__(self) -> R_co:
        try:
            return next(self._results)  # type: ignore[no-any-return]
        except BaseException as exc:  # noqa: BLE001 - whatever it is, it is raised
            __tracebackhide__ = True
            raise without_ours(exc)  # noqa: B904 - it is the same

    def _index(self) -> int:
        return self._run.handed_out - 1

    def _end(self) -> None:
        if self._results.gi_running:  # type: ignore[attr-defined]  # it is for that thread to end the map
            self._run.fail(_closed_meanwhile())
        else:
            self._results.close()


class BatchIterator(MapIterator[R_co]):
    """Those of a map on other threads or processes, which come in batches."""

    _run: Run

    def __init__(self, run: Run, plan: Plan) -> None:
        self._run = run
        self._plan = plan
        self._on_error = outcomes.outcomes_of(plan)
        self._batches = run.batches()
        self._indices: Sequence[int] = ()
        self._values: Any = iter(())
        self._is_waiting = False

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

    def _turn_to_next_batch(self) -> None:
        """Load the next results into the iterator; raise ``StopIteration`` or the map's error at the end."""
        self._is_waiting = True
        try:
            batch = next(self._batches)
        except outcomes.TooManyFailures:
            raise outcomes.too_many_failures(self._plan, self._run.failed, ()) from None
        except StopIteration:
            failed, self._run.failed = self._run.failed, []  # raised only once
            self._on_error.finish([], failed, None)
            raise
        finally:
            self._is_waiting = False
        if self._closed:
            self._batches.close()
            raise _closed_meanwhile()
        self._indices = outcomes.indices(batch, self._on_error)
        self._values = iter(outcomes.values(batch, self._on_error))

    def _index(self) -> int:
        left: int = self._values.__length_hint__()
        return self._indices[len(self._indices) - left - 1]

    def _end(self) -> None:
        self._values = iter(())
        if self._is_waiting:  # it is for that thread to end the map
            self._run.fail(_closed_meanwhile())
        else:
            self._batches.close()


def _closed_meanwhile() -> CancelledError:
    return CancelledError("the map was closed while a result was awaited")
