"""``on_error``: what stands in the place of an item that failed, and how a map ends that had such items."""

from __future__ import annotations

import abc
import math
from concurrent.futures import CancelledError
from operator import attrgetter
from typing import TYPE_CHECKING, Any, ClassVar

from anymap._engine.call_checks import hint_on_failure
from anymap._errors import MapError
from anymap._host import guarded
from anymap._serialize import failures

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

    from anymap._engine.ordering import Batch
    from anymap._engine.plan import Plan


class TooManyFailures(Exception):  # noqa: N818 - the user gets a MapError instead
    """Ends a map that has passed ``max_failures``."""


class Outcomes(abc.ABC):
    """One value of ``on_error``."""

    ends_at_first: ClassVar[bool] = False
    """The first failure ends the map."""

    def __init__(self, plan: Plan) -> None:
        self._plan = plan

    @property
    def keeps_failures(self) -> bool:
        """The failures are all needed at the end."""
        return self._plan.max_failures is not None

    def may_fail(self, done: int) -> float:
        """Return how many items may fail before that ends the map, of which so many are ``done``."""
        limit = self._plan.max_failures
        if isinstance(limit, float):
            return limit * (self._plan.total or done)
        return math.inf if limit is None else limit

    @abc.abstractmethod
    def in_place_of(self, exc: Exception) -> tuple[Exception, ...]:
        """Return what is handed out where an item failed: the exception or nothing. May raise it."""

    def finish(self, results: list[Any], failed: list[Exception], source_error: Exception | None) -> None:  # noqa: ARG002 - for subclasses
        """End the results of a map whose items have all been handed out: complete them, or raise what ends it."""
        if source_error is not None:
            raise source_error


class Raise(Outcomes):
    """The first failure ends the map."""

    ends_at_first: ClassVar[bool] = True

    def may_fail(self, done: int) -> float:  # noqa: ARG002 - none may
        return 0

    def in_place_of(self, exc: Exception) -> tuple[Exception, ...]:
        raise exc


class Return(Outcomes):
    """The exception stands in the result's place; that of the input where the next result would."""

    def in_place_of(self, exc: Exception) -> tuple[Exception, ...]:
        return (exc,)

    def finish(self, results: list[Any], failed: list[Exception], source_error: Exception | None) -> None:  # noqa: ARG002 - they are there
        if source_error is not None:
            results.append(source_error)


class Skip(Outcomes):
    """There is no result."""

    def in_place_of(self, exc: Exception) -> tuple[Exception, ...]:  # noqa: ARG002 - it is left out
        return ()


class Group(Outcomes):
    """All failures are raised together at the end. An iterator leaves them out: it cannot take back what it has handed out."""

    @property
    def keeps_failures(self) -> bool:
        return True

    def in_place_of(self, exc: Exception) -> tuple[Exception, ...]:
        return () if self._plan.lazy else (exc,)

    def finish(self, results: list[Any], failed: list[Exception], source_error: Exception | None) -> None:
        if failed or source_error is not None:
            raise _map_error(self._plan, "", failed, results, source_error)


_BY_NAME: dict[str, type[Outcomes]] = {"raise": Raise, "return": Return, "skip": Skip, "group": Group}


def outcomes_of(plan: Plan) -> Outcomes:
    """Return what the plan's ``on_error`` means."""
    return _BY_NAME[plan.on_error](plan)


def values(batch: Batch, outcomes: Outcomes) -> list[Any]:
    """Return what is handed out for the rows of a batch."""
    if not batch.errors:
        return batch.values
    found: list[Any] = []
    for position, value in enumerate(batch.values):
        exc = batch.errors.get(position)
        found += (value,) if exc is None else outcomes.in_place_of(exc)
    return found


def indices(batch: Batch, outcomes: Outcomes) -> Sequence[int]:
    """Return the index in the input of each of these :func:`values`."""
    every = range(batch.start, batch.start + len(batch.values))
    left_out = {batch.start + position for position, exc in batch.errors.items() if not outcomes.in_place_of(exc)}
    return [index for index in every if index not in left_out] if left_out else every


def of_item(
    plan: Plan, exc: Exception, index: int, row: Any, attempts: int, seconds: float, worker: str, output: str = ""
) -> Exception:
    """Return what an item has failed with, with what :func:`failure` tells, and the hint that newcomers may need."""
    attached = failures.attach(
        exc, index, row, attempts, seconds, worker, output=output, depth=plan.depth, show_item=plan.show_items
    )
    if (hint := hint_on_failure(exc, plan.func, row, star=plan.star)) is not None:
        guarded.add_note(attached, f"anymap: {hint}")
    return attached


def unfinished(count: int) -> list[Any]:
    """Return what stands in a :class:`~anymap.MapError` for items that were not finished."""
    return [CancelledError() for _ in range(count)]


def too_many_failures(plan: Plan, failed: list[Exception], results: Sequence[Any]) -> MapError:
    """Return what is raised where more items ``failed`` than ``max_failures`` allows."""
    limit = f"{100 * plan.max_failures:g}%" if isinstance(plan.max_failures, float) else plan.max_failures
    return _map_error(plan, f", more than max_failures={limit}", failed, results)


def _map_error(
    plan: Plan, why: str, failed: Iterable[Exception], results: Sequence[Any], source_error: Exception | None = None
) -> MapError:
    known = [found for exc in failed if (found := failures.failure(exc)) is not None]
    known.sort(key=attrgetter("index"))
    exceptions = [found.exception for found in known]
    if source_error is not None:
        exceptions.append(source_error)
    count = "1 item" if len(known) == 1 else f"{len(known)} items"
    message = f"{count} failed{why}{failures.first_of(known, show_items=plan.show_items)}"
    if source_error is not None:
        message = f"the input raised {failures.in_short(source_error)}" + (f"; {message}" if known else "")
    return MapError(message, exceptions, results, known)
