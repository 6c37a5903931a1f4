"""The part of the exam on leaving: input is pulled only as needed, and nothing of a map outlives it."""

from __future__ import annotations

import itertools
import threading
import time
from typing import TYPE_CHECKING

from anymap.testing import _processes
from anymap.testing import _samples as samples
from anymap.testing._exam import ONE_AT_A_TIME, Exam, promises
from anymap.testing._owner import stack, start
from anymap.testing._switchboard import Ring
from anymap.testing._verdicts import applies_if, expect, expect_equal, expect_raises

if TYPE_CHECKING:
    from collections.abc import Iterator

    from anymap._engine.results import MapIterator
    from anymap.backends.base import Backend
    from anymap.testing._switchboard import Switchboard

_INLINE = "tasks run in the caller's thread: there is nothing to leave"
_WORD_ARRIVES = 0.5
"""Seconds."""
_WINDOW = 8
_TAKEN = 100


class _RingAndFail(Ring):
    def __call__(self, item: int) -> int:
        raise ValueError(super().__call__(item))


@promises
class Leaving(Exam):
    """Endless input, early ends, and what is left behind."""

    def test_an_endless_input_is_pulled_no_further_than_the_window(self) -> None:
        self._expect_laziness(ordered=True)

    def test_so_it_is_if_results_come_as_they_finish(self) -> None:
        self._expect_laziness(ordered=False)

    def test_leaving_does_not_wait_for_running_items(self) -> None:
        applies_if(not self.traits.inline, _INLINE)
        with self.switchboard() as switchboard:
            self._in_full_flight(switchboard, self.make_backend()).close()

    def test_items_that_were_queued_when_the_map_was_left_never_run(self) -> None:
        applies_if(not self.traits.inline, _INLINE)
        candidate = self.make_backend()
        with self.switchboard() as switchboard:
            self._in_full_flight(switchboard, candidate).close()
            if self.traits.remote:
                # Word of it has a way to go, and nothing tells when it has come.
                time.sleep(_WORD_ARRIVES)
            started = switchboard.started()
            switchboard.let_all_go()
            # By the time that these have come back, whatever was still queued would have had its turn.
            self.map(switchboard.function(), range(-20, 0), backend=candidate, chunksize=1)
            later = [item for item in switchboard.started()[len(started) :] if item >= 0]
        expect(not later, f"items {later} were started after the map had been left")

    def test_an_error_ends_the_map_while_other_items_run(self) -> None:
        applies_if(self.capacity() > 1, ONE_AT_A_TIME)
        with self.switchboard() as switchboard:
            threading.Thread(target=switchboard.let_go_beside, args=(1, 0), daemon=True).start()
            function = _RingAndFail(switchboard.address)
            expect_raises(ValueError, lambda: self.map(function, range(50), chunksize=1))

    def test_closing_does_not_wait_for_a_running_task(self) -> None:
        applies_if(not self.traits.inline, _INLINE)
        with self.switchboard() as switchboard, self.station(switchboard.function()) as station:
            for item in range(4):
                station.submit(item)
            switchboard.expect(0)
            station.close(abandon=True)

    def test_a_task_that_was_given_up_harms_no_other(self) -> None:
        applies_if(not self.traits.inline, _INLINE)
        applies_if(not self.traits.kills, "stuck workers are killed instead")
        with self.switchboard() as switchboard, self.station(switchboard.function(0)) as station:
            stuck = station.submit(0)
            switchboard.expect(0)
            station.backend.abandon(stuck)
            switchboard.let_go(0)
            for item in range(1, 6):
                expect_equal(station.values(station.submit(item)), [item], "a task after one that was given up")

    def test_nothing_is_left_after_shutdown(self) -> None:
        # Where the engine is the user's, it is there already.
        processes = _processes.below() if self.traits.borrowed else type(self)._below
        self._come_and_go()
        # A library may have threads that it starts once and keeps; a second time there must be no more of them.
        threads = set(threading.enumerate())
        self._come_and_go()

        def left() -> tuple[set[int], set[threading.Thread]]:
            return _processes.below() - processes, set(threading.enumerate()) - threads

        self.eventually(lambda: not any(left()), lambda: _describe(*left()))

    def test_maps_do_not_pile_up_what_they_leave(self) -> None:
        for _ in range(3):
            self.map(samples.square, range(10))
        before = self._count()
        for _ in range(10):
            self.map(samples.square, range(10))
        count = self._count
        self.eventually(lambda: count() <= before, lambda: f"{before} processes and threads became {count()}")

    def _expect_laziness(self, *, ordered: bool) -> None:
        pulled = 0

        def source() -> Iterator[int]:
            nonlocal pulled
            for pulled in itertools.count(1):
                yield pulled - 1

        got = []
        with self.map(samples.identity, source(), lazy=True, ordered=ordered, window=_WINDOW) as results:
            for result in itertools.islice(results, _TAKEN):
                got.append(result)
                ahead = pulled - len(got)
                expect(ahead <= _WINDOW, f"{ahead} items were pulled beyond those taken, in a window of {_WINDOW}")
        if ordered:
            expect_equal(got, list(range(_TAKEN)), f"the first {_TAKEN} results")
        expect(len(set(got)) == _TAKEN, f"there are {len(set(got))} different ones among {_TAKEN} results")

    def _in_full_flight(self, switchboard: Switchboard, candidate: Backend) -> MapIterator[int]:
        """Return a map with one result taken, an item running in every worker, and others queued."""
        capacity = self.capacity()
        window = 4 * capacity + 1
        pulled = threading.Event()

        def source() -> Iterator[int]:
            for item in itertools.count():
                if item == window - 1:
                    pulled.set()
                yield item

        function = switchboard.function()
        results = self.map(function, source(), backend=candidate, lazy=True, chunksize=1, window=window)

        def let_the_first_go() -> None:
            switchboard.expect(0)
            switchboard.expect_number(capacity)
            expect(pulled.wait(self.left()), "the input was not pulled while items were running")
            switchboard.let_go(0)

        watched = start(let_the_first_go)
        first = next(results)
        watched.result(self.left())
        expect_equal(first, 0, "the first result")
        switchboard.expect_number(capacity + 1)
        return results  # type: ignore[no-any-return]

    def _come_and_go(self) -> None:
        self.map(samples.square, range(10))
        with self.map(samples.square, itertools.count(), lazy=True) as results:
            next(results)
        self.end_what_is_kept()

    def _count(self) -> int:
        return len(_processes.below()) + threading.active_count()


def _describe(processes: set[int], threads: set[threading.Thread]) -> str:
    found = [*(f"process {pid}" for pid in processes), *(f"thread {thread.name}" for thread in threads)]
    return "\n".join([f"still there: {', '.join(found)}", *map(stack, threads)])
