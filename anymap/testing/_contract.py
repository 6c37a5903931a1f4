"""The part of the exam on ``open``, ``submit`` and ``close``, with no engine above them."""

from __future__ import annotations

from collections import Counter
from functools import partial
from typing import TYPE_CHECKING, Any

from anymap._worker.protocol import PROTOCOL, Answer
from anymap._worker.task import Task, load_task
from anymap.backends.base import Traits
from anymap.testing import _samples as samples
from anymap.testing._exam import ONE_AT_A_TIME, Exam, promises
from anymap.testing._verdicts import applies_if, expect, expect_equal

if TYPE_CHECKING:
    from anymap.testing._station import Station

_MOST = 4
"""As many tasks are held at once, at most, whatever the capacity."""


class _Foreign(Task):
    """A task from another version of anymap than the worker's."""

    __slots__ = ()

    def __reduce__(self) -> tuple[Any, ...]:
        return load_task, (PROTOCOL + 1, b"")


@promises
class Contract(Exam):
    """The contract of :class:`anymap.backends.Backend`."""

    def test_it_has_a_name_and_declares_traits(self) -> None:
        candidate = self.make_backend()
        expect(isinstance(candidate.name, str) and candidate.name, f"its name is {candidate.name!r}")
        expect(isinstance(self.traits, Traits), f"its traits are {self.traits!r}")

    def test_it_chooses_a_number_of_workers_if_none_is_asked_for(self) -> None:
        with self.station(samples.square, workers=None) as station:
            expect_equal(station.values(station.submit(3)), [9], "a task's results")
            capacity = station.backend.capacity()
            expect(isinstance(capacity, int) and capacity >= 1, f"its capacity is {capacity!r}")

    def test_as_many_tasks_run_at_once_as_its_capacity_says(self) -> None:
        applies_if(not self.traits.inline, ONE_AT_A_TIME)
        with self.switchboard() as switchboard, self.station(switchboard.function()) as station:
            switchboard.let_go(0)
            station.wait(station.submit(0))
            capacity = station.backend.capacity()
            expect(capacity >= 1, f"its capacity is {capacity} when a task has just run")
            items = range(1, min(capacity, _MOST) + 1)
            futures = [station.submit(item) for item in items]
            switchboard.expect(*items)
            switchboard.let_go(*items)
            expect_equal([station.values(future) for future in futures], [[item] for item in items], "the results")

    def test_an_answer_comes_back_untouched(self) -> None:
        with self.station(samples.Fail(ValueError, 2)) as station:
            answer = station.answer(station.submit(1, 2, 3))
            expect(type(answer) is Answer, f"the future brought {answer!r}")
            expect(answer.broken is None, f"the task could not run: {answer.broken!r}")
            failed = [position for position, _, _ in answer.failures]
            expect_equal((answer.done, failed), (3, [1]), "items done, positions of failures")

    def test_each_of_many_futures_brings_its_own_tasks_answer(self) -> None:
        with self.station(samples.square) as station:
            futures = [station.submit(item, item + 1) for item in range(100)]
            got = [station.values(future) for future in futures]
        expect_equal(got, [[item**2, (item + 1) ** 2] for item in range(100)], "the results of 100 tasks")

    def test_each_task_runs_once_and_its_future_ends_once(self) -> None:
        endings: Counter[int] = Counter()
        with self.switchboard(holding=False) as switchboard, self.station(switchboard.function()) as station:
            futures = [station.submit(item) for item in range(40)]
            for item, future in enumerate(futures):
                future.add_done_callback(partial(_count, endings, item))
            got = [station.values(future) for future in futures]
            station.close(abandon=False)
            runs = Counter(switchboard.started())
        once = dict.fromkeys(range(40), 1)
        expect_equal(got, [[item] for item in range(40)], "the results")
        expect_equal(dict(runs), once, "how often each task ran")
        expect_equal(dict(endings), once, "how often each future called back")

    def test_tasks_are_taken_from_several_threads(self) -> None:
        with self.station(samples.square) as station:
            got = self.in_threads(partial(self._submit_ten, station, first) for first in range(0, 40, 10))
        wanted = [[[item**2] for item in range(first, first + 10)] for first in range(0, 40, 10)]
        expect_equal(got, wanted, "the results of tasks from four threads")

    def test_a_slow_task_holds_up_no_other(self) -> None:
        applies_if(self.capacity() > 1, ONE_AT_A_TIME)
        with self.switchboard() as switchboard, self.station(switchboard.function(1)) as station:
            slow = station.submit(1)
            switchboard.expect(1)
            for item in range(2, 12):
                expect_equal(station.values(station.submit(item)), [item], "a task beside one that takes long")
            expect(not slow.done(), "a task has an answer before its function has returned")
            switchboard.let_go(1)
            expect_equal(station.values(slow), [1], "the slow task")

    def test_a_task_that_its_worker_cannot_load_ends_its_future(self) -> None:
        applies_if(not self.traits.shares_memory, "memory is shared: tasks are not sent anywhere")
        with self.station(samples.square) as station:
            task = station.task(1)
            task.__class__ = _Foreign
            future = station.backend.submit(task)
            station.wait(future)
            expect(future.exception() is not None, f"a task that cannot be loaded brought {future}")

    def test_copies_of_one_instance_do_not_share_what_they_opened(self) -> None:
        candidate = self.make_backend()
        expect(type(candidate.fresh()) is type(candidate), f"fresh() returned {candidate.fresh()!r}")
        with (
            self.station(samples.square, candidate=candidate) as first,
            self.station(samples.double, candidate=candidate) as second,
        ):
            expect_equal(first.values(first.submit(5)), [25], "the first copy's results")
            expect_equal(second.values(second.submit(5)), [10], "the second copy's results")
            first.close()
            expect_equal(second.values(second.submit(6)), [12], "the second copy's results, with the first one closed")

    def test_it_can_be_opened_again_and_again(self) -> None:
        for item in range(5):
            with self.station(samples.square) as station:
                expect_equal(station.values(station.submit(item)), [item**2], f"opened {item + 1} times")
                station.close(abandon=False)

    def test_it_can_be_closed_with_nothing_done(self) -> None:
        for abandon in (False, True):
            with self.station(samples.square) as station:
                station.close(abandon=abandon)

    def _submit_ten(self, station: Station, first: int) -> list[list[int]]:
        return [station.values(station.submit(item)) for item in range(first, first + 10)]


def _count(endings: Counter[int], item: int, _: object) -> None:
    endings[item] += 1
