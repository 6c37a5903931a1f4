"""The exam in a process of its own: whatever a backend does to the process, each promise has its verdict."""

from __future__ import annotations

import functools
import os
import signal
import subprocess
import sys
import threading
import time
from concurrent.futures import Future, ThreadPoolExecutor
from typing import TYPE_CHECKING, Any, ClassVar

import cloudpickle
import pytest

from anymap import ConfigError
from anymap.backends import Backend, Task, Traits, _registry
from anymap.testing import _child, suite
from anymap.testing._child import Sitting
from anymap.testing._exam import promise_of

if TYPE_CHECKING:
    from anymap.testing import Outcome

# The process that examines cannot import this module.
cloudpickle.register_pickle_by_value(sys.modules[__name__])

pytestmark = pytest.mark.exam

FUTURES = "test_each_of_many_futures_brings_its_own_tasks_answer"
MEMORY = "test_memory_is_shared_if_and_only_if_declared"
LEFT = "test_nothing_is_left_after_shutdown"
PATIENCE = 20.0


class Good(Backend):
    name: ClassVar[str] = "good"
    traits = Traits(shares_memory=True)

    def open(self, workers: int | None) -> None:
        self.workers = workers or 2
        self.pool = ThreadPoolExecutor(self.workers)

    def submit(self, task: Task) -> Future[Any]:
        return self.pool.submit(task)

    def close(self, *, abandon: bool) -> None:
        self.pool.shutdown(wait=False, cancel_futures=True)


def outcomes(
    backend: type[Backend] | Backend, *tests: str, patience: float = PATIENCE, startup: float = 60.0
) -> list[Outcome]:
    return list(_child.outcomes(Sitting(backend, patience, startup), list(tests)))


def test_a_good_backend_keeps_its_promises() -> None:
    assert [outcome.verdict for outcome in outcomes(Good, FUTURES, MEMORY, LEFT)] == ["kept"] * 3


def test_an_instance_goes_with_its_options() -> None:
    class Asks(Good):
        def __init__(self, options: str) -> None:
            self.options = options

        def open(self, workers: int | None) -> None:
            assert self.options == "given"
            super().open(workers)

    assert [outcome.verdict for outcome in outcomes(Asks("given"), FUTURES)] == ["kept"]


def test_a_crash_breaks_the_promise_and_the_others_are_examined() -> None:
    class Crashes(Good):
        def submit(self, task: Task) -> Future[Any]:
            self.submitted = getattr(self, "submitted", 0) + 1
            if self.submitted == 20:  # as one of many
                os.kill(os.getpid(), signal.SIGSEGV)
            return super().submit(task)

    first, second = outcomes(Crashes, FUTURES, MEMORY)
    assert (first.verdict, first.detail) == ("broken", "its process was ended by SIGSEGV")
    assert second.verdict == "kept"


def test_a_backend_that_exits_breaks_the_promise() -> None:
    class Exits(Good):
        def open(self, workers: int | None) -> None:
            os._exit(3)

    details = {outcome.detail for outcome in outcomes(Exits, FUTURES, MEMORY)}
    assert details == {"its process ended by itself, with exit code 3"}


def test_what_raises_past_all_handlers_is_told() -> None:
    class Leaves(Good):
        def open(self, workers: int | None) -> None:
            raise SystemExit("enough")

    [outcome] = outcomes(Leaves, FUTURES)
    assert outcome.detail.startswith("SystemExit: enough")


def test_a_submit_that_returns_no_future_is_named() -> None:
    class Forgets(Good):
        def submit(self, task: Task) -> Future[Any]:  # type: ignore[return]
            super().submit(task)

    [outcome] = outcomes(Forgets, FUTURES)
    assert outcome.detail == "submit returned None, and no Future of concurrent.futures"


def test_a_class_without_a_name_is_told() -> None:
    class Nameless(Backend):
        traits = Traits(shares_memory=True)

        def open(self, workers: int | None) -> None: ...

        def submit(self, task: Task) -> Future[Any]:
            raise NotImplementedError

        def close(self, *, abandon: bool) -> None: ...

    [outcome] = outcomes(Nameless, FUTURES)
    assert "has no name: give the class one" in outcome.detail


@pytest.mark.full
def test_the_start_of_the_engine_is_not_counted() -> None:
    class StartsSlowly(Good):
        def open(self, workers: int | None) -> None:
            time.sleep(0.4)  # as an engine that starts
            super().open(workers)

    assert [outcome.verdict for outcome in outcomes(StartsSlowly, FUTURES, MEMORY, patience=0.2)] == ["kept"] * 2


@pytest.mark.full
def test_what_only_the_first_map_leaves_is_seen() -> None:
    class LeavesOne(Good):
        left: ClassVar[list[Any]] = []

        def open(self, workers: int | None) -> None:
            super().open(workers)
            if not self.left:
                self.left.append(subprocess.Popen([sys.executable, "-c", "input()"], stdin=subprocess.PIPE))

    _, outcome = outcomes(LeavesOne, FUTURES, LEFT, patience=3.0)
    assert (outcome.promise, outcome.verdict) == ("nothing is left after shutdown", "broken")
    assert "still there: process " in outcome.detail


def test_one_thread_owns_the_engine_for_the_whole_exam() -> None:
    class EndsWithItsThread(Good):
        owner: ClassVar[threading.Thread | None] = None

        def open(self, workers: int | None) -> None:
            cls = type(self)
            cls.owner = cls.owner or threading.current_thread()
            assert cls.owner.is_alive()
            super().open(workers)

    tests = ["test_a_map_gives_what_the_builtin_map_gives", FUTURES, LEFT]
    assert {outcome.verdict for outcome in outcomes(EndsWithItsThread, *tests)} == {"kept"}


@pytest.mark.long
def test_a_backend_that_hangs_is_told_where_and_the_exam_ends() -> None:
    class NeverCloses(Good):
        def close(self, *, abandon: bool) -> None:
            threading.Event().wait()

    found = outcomes(NeverCloses, FUTURES, MEMORY, LEFT, FUTURES, patience=0.5, startup=0.5)
    assert {outcome.verdict for outcome in found} == {"broken"}
    assert "it was stuck here" in found[0].detail
    assert "no end within 0.05 s" in found[-1].detail


@pytest.mark.full
def test_a_process_that_does_not_even_say_so_is_killed(monkeypatch: pytest.MonkeyPatch) -> None:
    class Stops(Good):
        def open(self, workers: int | None) -> None:
            os.kill(os.getpid(), signal.SIGSTOP)

    monkeypatch.setattr(_child, "_SPARE", 1.0)
    [outcome] = outcomes(Stops, FUTURES, patience=0.1, startup=0.1)
    assert outcome.detail.endswith("did not even say where it was stuck, and was killed")


def test_a_candidate_that_cannot_be_sent_or_loaded_is_refused() -> None:
    class HasALock(Good):
        def __init__(self) -> None:
            self.lock = threading.Lock()

    class CannotBeLoaded(Good):
        def __reduce__(self) -> Any:
            return functools.partial(int, "x"), ()

    with pytest.raises(ConfigError, match=r"cannot be sent to the process that examines it: .*Give its class"):
        outcomes(HasALock(), FUTURES)
    with pytest.raises(ConfigError, match=r"cannot be loaded in the process that examines it: ValueError"):
        outcomes(CannotBeLoaded(), FUTURES)


def test_a_name_that_only_this_process_knows_can_be_examined(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(_registry._registered, "only_here", Good)
    monkeypatch.setattr(suite, "_tests", lambda: [FUTURES])
    assert suite.examine("only_here").kept == [promise_of(FUTURES)]


def test_an_engine_that_this_process_is_part_of_is_examined_here(monkeypatch: pytest.MonkeyPatch) -> None:
    class IsHere(Good):
        here = os.getpid()

        def open(self, workers: int | None) -> None:
            assert os.getpid() == self.here
            super().open(workers)

    monkeypatch.setattr(suite, "_tests", lambda: [FUTURES])
    assert suite.examine(IsHere, own_process=False).kept == [promise_of(FUTURES)]
    assert suite.examine(IsHere).broken == [promise_of(FUTURES)]
