"""The part of the exam on traits: what is declared is so, and what is so is declared."""

from __future__ import annotations

import contextlib
import os
import tempfile
import threading
from typing import TYPE_CHECKING

from anymap._errors import AnymapError, ItemTimeout, UnsupportedOption, WorkerLost
from anymap._serialize.failures import failure
from anymap.testing import _samples as samples
from anymap.testing._exam import ONE_AT_A_TIME, Exam, promises
from anymap.testing._verdicts import applies_if, expect, expect_equal, expect_raises

if TYPE_CHECKING:
    from collections.abc import Iterator

_SECONDS = 1.0
"""The deadline of an item that is stuck."""


@promises
class Declarations(Exam):
    """The traits, one by one."""

    def test_memory_is_shared_if_and_only_if_declared(self) -> None:
        item = [1, 2]
        (result,) = self.map(samples.identity, [item])
        expect_equal(result, item, "the result")
        if self.traits.shares_memory:
            expect(result is item, "shares_memory is declared, and a result is a copy of the item")
            expect(self.place().pid == os.getpid(), "shares_memory is declared, and tasks run in another process")
        else:
            expect(result is not item, "shares_memory is not declared, and a result is the item itself")

    def test_tasks_run_in_the_callers_thread_if_and_only_if_declared(self) -> None:
        if self.traits.inline:
            with self.station(samples.where) as station:
                future = station.submit(0)
                expect(future.done(), "inline is declared, and submit() returned before the task had run")
                (place,) = station.values(future)
            here = os.getpid(), threading.get_ident()
            expect_equal((place.pid, place.thread), here, "inline is declared: process and thread")
        else:
            with self.switchboard() as switchboard, self.station(switchboard.function()) as station:
                future = station.submit(0)
                switchboard.expect(0)
                expect(not future.done(), "a task has an answer before its function has returned")
                switchboard.let_go(0)
                expect_equal(station.values(future), [0], "the results")

    def test_workers_are_forks_if_and_only_if_declared(self) -> None:
        place = self.place()
        is_fork = place.pid != os.getpid() and place.origin == os.getpid()
        expect(is_fork == self.traits.forks, f"forks is {self.traits.forks}, and a worker is a fork: {is_fork}")

    def test_workers_reach_the_files_of_this_host_unless_remote_is_declared(self) -> None:
        applies_if(not self.traits.remote, "remote is declared")
        with tempfile.TemporaryDirectory() as folder:
            path = os.path.join(folder, "note")
            with open(path, "x", encoding="utf-8") as file:
                file.write("read me")
            expect_equal(self.map(samples.read, [path]), ["read me"], "what a worker reads")

    def test_kill_ends_a_worker_and_its_task_is_lost(self) -> None:
        applies_if(self.traits.kills, "kills is not declared")
        with (
            self._deaths_made_good(),
            self.switchboard() as switchboard,
            self.station(switchboard.function(0)) as station,
        ):
            future = station.submit(0)
            (pid,) = switchboard.expect(0)
            expect(pid != os.getpid(), "kills is declared, and tasks run in the caller's process")
            station.backend.kill_task(future, pid)
            self._expect_loss(station.loss(future), pid)
            # It may have ended by itself just before: that is no error either.
            station.backend.kill_task(future, pid)
            expect_equal(station.values(station.submit(1)), [1], "the next task")

    def test_kill_is_not_blamed_on_other_tasks(self) -> None:
        applies_if(self.traits.kills, "kills is not declared")
        applies_if(self.capacity() > 1, ONE_AT_A_TIME)
        with (
            self._deaths_made_good(),
            self.switchboard() as switchboard,
            self.station(switchboard.function(0, 1)) as station,
        ):
            futures = [station.submit(0), station.submit(1)]
            victim, other = switchboard.expect(0, 1)
            station.backend.kill_task(futures[0], victim)
            self._expect_loss(station.loss(futures[0]), victim)
            switchboard.let_go(1)
            lost = station.loss(futures[1])
            blamed = getattr(lost, "dead", None) or {}
            expect(other not in blamed, f"worker {victim} was killed, and {other} was said to have died: {blamed}")

    def test_a_task_whose_worker_dies_is_lost(self) -> None:
        self._applies_to_deaths()
        with self._deaths_made_good(), self.station(samples.Die(0)) as station:
            self._expect_loss(station.loss(station.submit(0)), None)
            if self.traits.breaks:
                return
            next_one = station.submit(1)
            while self.traits.remote and station.loss(next_one) is not None:
                # A cluster may give what has killed one worker to another, before it learns that no client wants it.
                next_one = station.submit(1)
            expect_equal(station.values(next_one), [1], "the next task")

    def test_a_death_costs_the_item_that_ran_and_no_other(self) -> None:
        self._applies_to_deaths()
        applies_if(not self.traits.breaks, "breaks is declared: a death is the end of the engine")
        with self._deaths_made_good():
            got = self.map(samples.Die(7), range(20), on_error="return")
        wanted = [WorkerLost if x == 7 else x for x in range(20)]
        expect_equal([type(value) if isinstance(value, Exception) else value for value in got], wanted, "the results")
        found = failure(got[7])
        expect(found is not None and found.index == 7, f"failure() does not say that it is item 7: {found}")

    def test_a_death_that_breaks_the_engine_ends_the_map_and_is_told_by_its_item(self) -> None:
        applies_if(self.traits.breaks, "breaks is not declared")
        error = expect_raises(AnymapError, lambda: self.map(samples.Die(7), range(20), on_error="return"))
        notes = getattr(error, "__notes__", [])
        expect(any("item 7" in note for note in notes), f"no note names the item that broke the engine: {notes}")

    def test_an_item_that_is_stuck_ends_at_its_deadline(self) -> None:
        traits = self.traits
        applies_if(not traits.inline, "tasks run in the caller's thread: nothing can end them")
        applies_if(
            traits.live or not traits.remote, "remote is declared and live is not: nothing tells when an item began"
        )
        applies_if(
            traits.kills or traits.shares_memory or traits.live or traits.borrowed,
            "workers can be neither killed nor left alone",
        )
        with self.switchboard() as switchboard:
            function = switchboard.function(3)
            got = self.map(function, range(8), timeout=_SECONDS, on_error="return")
        wanted = [ItemTimeout if x == 3 else x for x in range(8)]
        expect_equal([type(value) if isinstance(value, Exception) else value for value in got], wanted, "the results")

    def test_a_timeout_that_cannot_be_kept_is_refused(self) -> None:
        applies_if(
            self.traits.remote and not self.traits.live,
            "it can be kept, or is warned of: remote without live is not declared",
        )
        expect_raises(UnsupportedOption, lambda: self.map(samples.identity, [0], timeout=_SECONDS))

    def test_where_tasks_run_is_declared_before_open(self) -> None:
        before = self.make_backend().fresh().traits
        for trait in ("shares_memory", "inline"):
            was, is_now = getattr(before, trait), getattr(self.traits, trait)
            expect(was == is_now, f"{trait} is {was} before open and {is_now} after it: set it on the class")

    @contextlib.contextmanager
    def _deaths_made_good(self) -> Iterator[None]:
        """Hold a backend that kills workers to replacing them; the next test wants all of them, too."""
        if not self.traits.kills:
            yield
            return
        before = self.capacity()
        yield
        self.eventually(
            lambda: self.capacity() >= before, lambda: f"a worker died, and there are fewer than the {before} before"
        )

    def _applies_to_deaths(self) -> None:
        applies_if(self.traits.sees_death, "sees_death is not declared")
        applies_if(self.place().pid != os.getpid(), "tasks run in the caller's process, which lives")

    def _expect_loss(self, lost: BaseException | None, pid: int | None) -> None:
        expect(lost is not None, "the worker of a task is dead, and the task has an answer")
        dead = getattr(lost, "dead", None)
        expect(dead is None or pid is None or pid in dead, f"process {pid} died; the loss names {dead}")
