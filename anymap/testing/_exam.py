"""What every part of the exam needs: the candidate, a limit on every wait, and a verdict on each promise."""

from __future__ import annotations

import contextlib
import functools
import os
import time
import traceback
import unittest
from concurrent.futures import wait
from typing import TYPE_CHECKING, Any, ClassVar, TypeVar

from anymap._errors import ConfigError
from anymap._host.lifecycle import shutdown
from anymap._map import pmap
from anymap.backends import _registry
from anymap.backends.base import Backend
from anymap.testing import _processes
from anymap.testing import _samples as samples
from anymap.testing._owner import Owner, start
from anymap.testing._station import Station
from anymap.testing._switchboard import Switchboard
from anymap.testing._verdicts import Outcome, PromiseBroken, fail

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator
    from concurrent.futures import Future

    from anymap.backends.base import Traits

T = TypeVar("T")
P = TypeVar("P", bound="type[Exam]")

ONE_AT_A_TIME = "tasks run one after another"
"""Why a promise does not apply."""
_PREFIX = "test_"
_STARTS = 3
"""So many times the engine may be started within a promise."""
_ENOUGH = 3
"""After so many promises that have used up their time, the others have a tenth of it."""
_GRACE = 1.0
"""Seconds for a test to say itself what it waits for in vain, before it is given up as a whole."""


class Exam:
    """The base of the parts of the exam. A subclass says what to examine, and may change the rest."""

    backend: str | Backend | type[Backend]
    """The candidate: its name, its class, or an instance with options."""
    patience: float = 30.0
    """Seconds within which each promise must be kept, besides those that the engine takes to start."""
    startup: float = 60.0
    """Seconds that the engine may take to start."""
    many: int = 100_000
    """The items of the largest map."""
    host: str = "127.0.0.1"
    """This host's address, as the workers see it."""
    outcomes: ClassVar[dict[str, Outcome]]
    """What came of each promise so far."""
    _known_traits: ClassVar[Traits | None]
    _owner: ClassVar[Owner | None]
    _started_in: ClassVar[float | None]
    """Seconds that the engine has taken to start, once that was measured."""
    _below: ClassVar[set[int]]
    """The processes that there were before the first map."""
    _used_up: ClassVar[int]
    """How many promises have used up their time."""
    _switchboards: list[Switchboard]
    _deadline: float = 0.0

    def __init_subclass__(cls, **keywords: Any) -> None:
        super().__init_subclass__(**keywords)
        cls.outcomes = {}
        cls._known_traits = cls._owner = cls._started_in = None
        cls._below, cls._used_up = set(), 0

    def make_backend(self) -> Backend:
        """Return the candidate: a new instance, or the same each time. Each map opens a copy of its own."""
        candidate = self.backend
        if not isinstance(candidate, Backend):
            candidate = (_registry.find(candidate) if isinstance(candidate, str) else candidate)()
        if not isinstance(getattr(candidate, "name", None), str):
            fail(f"{type(candidate).__qualname__} has no name: give the class one, as name = 'toy'")
        return candidate

    def end_what_is_kept(self) -> None:
        """End what is kept between maps. Extend it if the engine keeps workers that the program's other code uses too."""
        shutdown()

    # --- what the examinations use --------------------------------------------------------------------------------

    @property
    def traits(self) -> Traits:
        """What the candidate declares once it is open."""
        cls = type(self)
        if cls._known_traits is None:
            with self.station(abs) as station:
                cls._known_traits = station.backend.traits
        return cls._known_traits

    def capacity(self) -> int:
        """Return how many tasks run at once, with two workers asked for and once there are workers."""
        with self.station(abs) as station:
            station.wait(station.submit(0))
            return station.backend.capacity()

    def map(self, func: Callable[..., Any], *iterables: Any, **options: Any) -> Any:
        """Map on the candidate, with two workers unless something else is asked for."""
        given: dict[str, Any] = {"backend": self.make_backend(), "workers": 2, "progress": False, **options}
        return pmap(func, *iterables, **given)

    @contextlib.contextmanager
    def station(
        self, func: Callable[[Any], Any], workers: int | None = 2, *, candidate: Backend | None = None
    ) -> Iterator[Station]:
        """Open the candidate by itself, with no engine above it, for tasks that call ``func``."""
        station = Station(candidate or self.make_backend(), func, workers, self.left)
        with contextlib.closing(station):
            yield station

    @contextlib.contextmanager
    def switchboard(self, *, holding: bool = True) -> Iterator[Switchboard]:
        """Open a line on which running items say so and, if it is ``holding``, wait until they are let go."""
        switchboard = Switchboard(self.host, self.left, holding=holding)
        self._switchboards.append(switchboard)
        with contextlib.closing(switchboard):
            yield switchboard

    def in_threads(self, calls: Iterable[Callable[[], T]]) -> list[T]:
        """Make these calls at the same time, each in a thread of its own; return what they return."""
        started = [start(call) for call in calls]
        wait(started, self.left())
        if not all(ended.done() for ended in started):
            fail("calls in several threads have not all returned in time")
        return [ended.result() for ended in started]

    def place(self) -> samples.Place:
        """Return where an item runs."""
        place: samples.Place = self.map(samples.where, [0])[0]
        return place

    def left(self) -> float:
        """Return how many seconds there are left for this promise."""
        return max(self._deadline - time.monotonic(), 0.0)

    def eventually(self, holds: Callable[[], object], otherwise: Callable[[], str]) -> None:
        """Wait for something that no event tells of."""
        while not holds():
            if not self.left():
                fail(otherwise())
            time.sleep(0.01)

    def _examine(self, test: Callable[[], None]) -> None:
        refuse_to_examine_another()
        cls = type(self)
        self._switchboards = []
        if cls._started_in is None:
            self._begin()
        patience = self.patience / 10 if cls._used_up >= _ENOUGH else self.patience
        patience += _STARTS * (cls._started_in or 0.0)
        try:
            self._call(test, patience)
        finally:
            cls._used_up += not self.left()

    def _begin(self) -> None:
        """Note what there is before the first map, and find out how long the engine takes to start."""
        type(self)._started_in = 0.0
        # What goes wrong is told where a promise is about it.
        with contextlib.suppress(Exception, unittest.SkipTest):
            self._call(self._measure_start, self.startup)

    def _measure_start(self) -> None:
        cls = type(self)
        self.end_what_is_kept()
        cls._below = _processes.below()
        began = time.monotonic()
        try:
            with self.station(abs) as station:
                station.wait(station.submit(0))
            cls._started_in = time.monotonic() - began
        finally:
            self.end_what_is_kept()

    def _call(self, test: Callable[[], None], patience: float) -> None:
        cls = type(self)
        owner = cls._owner = cls._owner or Owner()
        self._deadline = time.monotonic() + patience
        ended = owner.call(test)
        wait([ended], patience + _GRACE)
        if not ended.done():
            where = owner.stack()
            cls._owner = None
            self._give_up(ended)
            fail(f"no end within {patience:g} s; it was stuck here:\n{where}")
        ended.result()

    def _give_up(self, ended: Future[None]) -> None:
        """Leave behind as little as can be: a stuck thread might keep the program from exiting, or keep it busy."""
        for switchboard in self._switchboards:
            switchboard.let_all_go()
        wait([ended], _GRACE)


def refuse_to_examine_another() -> None:
    if os.environ.get("ANYMAP_FORCE_BACKEND"):
        raise ConfigError("ANYMAP_FORCE_BACKEND is set: no other backend than that one can be examined")


def promise_of(test: str) -> str:
    """Return in plain words what the test of this name examines."""
    return test.removeprefix(_PREFIX).replace("_", " ")


def promises(part: P) -> P:
    """Make every test of this part of the exam end, whatever the candidate does, and have it leave its verdict."""
    for name, test in list(vars(part).items()):
        if name.startswith(_PREFIX):
            setattr(part, name, _as_promise(promise_of(name), test))
    return part


def _as_promise(promise: str, test: Callable[[Any], None]) -> Callable[[Any], None]:
    @functools.wraps(test)
    def examine(self: Exam) -> None:
        outcome = Outcome(promise, "kept", "")
        try:
            self._examine(functools.partial(test, self))
        except unittest.SkipTest as skipped:
            outcome = Outcome(promise, "not applicable", str(skipped))
            raise
        except BaseException as exc:
            outcome = Outcome(promise, "broken", _in_words(exc))
            raise
        finally:
            type(self).outcomes[promise] = outcome

    return examine


def _in_words(exc: BaseException) -> str:
    return str(exc) if isinstance(exc, PromiseBroken) else "".join(traceback.format_exception_only(exc)).strip()
