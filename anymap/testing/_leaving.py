"""The part of the exam on leaving: input is pulled only as needed, and nothing of a map outlives it."""

from __future__ import annotations

import itertools
import threading
import time
from typing import TYPE_CHECKING

import anymap
from anymap.testing import _processes
from anymap.testing import _samples as samples
from anymap.testing._exam import ONE_AT_A_TIME, Exam, promises
from anymap.testing._switchboard import Ring
from anymap.testing._verdicts import applies_if, expect, expect_equal, expect_raises

if TYPE_CHECKING:
    from collections.abc import Iterator

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
            results = self.map(switchboard.function(), itertools.count(), lazy=True, chunksize=1)
            switchboard.let_go(0)
            expect_equal(next(results), 0, "the first result")
            switchboard.expect(1)
            results.close()

    def test_items_that_were_queued_when_the_map_was_left_never_run(self) -> None:
        applies_if(not self.traits.inline, _INLINE)
        candidate = self.make_backend()
        with self.switchboard() as switchboard:
            results = self.map(switchboard.function(), itertools.count(), backend=candidate, lazy=True, chunksize=1, window=50)
            switchboard.let_go(0)
            next(results)
            switchboard.expect(1)
            results.close()
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
        processes, threads = _processes.below(), set(threading.enumerate())
        applies_if(processes is not None, "processes cannot be listed on this system")
        with self.switchboard(holding=False) as switchboard:
            self.map(switchboard.function(), range(10))
            with self.map(switchboard.function(), itertools.count(), lazy=True) as results:
                next(results)
        anymap.shutdown()
        self.eventually(lambda: not self._strays(processes, threads), lambda: f"still there: {self._strays(processes, threads)}")

    def test_maps_do_not_pile_up_what_they_leave(self) -> None:
        for _ in range(3):
            self.map(samples.square, range(10))
        before = self._count()
        for _ in range(10):
            self.map(samples.square, range(10))
        self.eventually(lambda: self._count() <= before, lambda: f"{before} processes and threads became {self._count()}")

    def _expect_laziness(self, *, ordered: bool) -> None:
        pulled = 0

        def source() -> Iterator[int]:
            nonlocal pulled
            for pulled in itertools.count(1):  # noqa: B007 - read outside
                yield pulled - 1

        got = []
        with self.map(samples.identity, source(), lazy=True, ordered=ordered, window=_WINDOW) as results:
            for result in itertools.islice(results, _TAKEN):
                got.append(result)
                ahead = pulled - len(got)
                expect(ahead <= _WINDOW, f"{ahead} items were pulled beyond the {len(got)} taken, in a window of {_WINDOW}")
        wanted = list(range(_TAKEN)) if ordered else sorted(set(got))
        expect_equal(got if ordered else sorted(got), wanted, f"the first {_TAKEN} results")

    def _strays(self, processes: set[int], threads: set[threading.Thread]) -> list[str]:
        alive = [f"process {pid}" for pid in (_processes.below() or set()) - processes]
        return alive + [thread.name for thread in threading.enumerate() if not thread.daemon and thread not in threads]

    def _count(self) -> int:
        return len(_processes.below() or ()) + threading.active_count()
