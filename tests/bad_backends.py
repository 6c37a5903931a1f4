"""A small backend that is good, and others that each break one promise. The exam must tell them apart.

As a test file it holds them all to the exam; it is not collected with the others, and `test_exam.py` runs it.
"""

from __future__ import annotations

import pickle
import threading
from concurrent.futures import Future, ThreadPoolExecutor
from typing import TYPE_CHECKING, Any, ClassVar, Self

from anymap.backends import Backend, Processes, Task, Traits
from anymap.testing import BackendSuite

if TYPE_CHECKING:
    from collections.abc import Callable

SOMETIMES = 20
"""Of so many tasks, one goes wrong: few maps have that many, so that the exam must send enough."""


class Good(Backend):
    name: ClassVar[str] = "good"
    traits = Traits(shares_memory=True)

    def open(self, workers: int | None) -> None:
        self.workers = workers or 2
        self._pool = ThreadPoolExecutor(self.workers)
        self._count = 0

    def submit(self, task: Task) -> Future[Any]:
        self._count += 1
        return self.send(task) if self._count % SOMETIMES else self.send_badly(task)

    def send(self, task: Callable[[], Any]) -> Future[Any]:
        return self._pool.submit(task)

    def send_badly(self, task: Task) -> Future[Any]:
        return self.send(task)

    def close(self, *, abandon: bool) -> None:
        self._pool.shutdown(wait=False, cancel_futures=True)


class Hangs(Good):
    def send_badly(self, task: Task) -> Future[Any]:
        return Future()


class LosesChunks(Good):
    def send_badly(self, task: Task) -> Future[Any]:
        def work() -> Any:
            answer = task()
            return answer._replace(values=[None] * answer.done)

        return self.send(work)


class RunsTwice(Good):
    def send_badly(self, task: Task) -> Future[Any]:
        return self.send(lambda: (task(), task())[1])


class DeliversTwice(Good):
    class Echo(Future[Any]):
        def add_done_callback(self, fn: Callable[[Future[Any]], object]) -> None:
            super().add_done_callback(fn)
            super().add_done_callback(fn)

    def send_badly(self, task: Task) -> Future[Any]:
        echo = self.Echo()
        self.send(lambda: echo.set_result(task()))
        return echo


class MixesUp(Good):
    _last: Future[Any]

    def send(self, task: Callable[[], Any]) -> Future[Any]:
        self._last = super().send(task)
        return self._last

    def send_badly(self, task: Task) -> Future[Any]:
        last = self._last
        self.send(task)
        return last


class LiesAboutMemory(Good):
    def send(self, task: Callable[[], Any]) -> Future[Any]:
        return super().send(lambda: pickle.loads(pickle.dumps(pickle.loads(pickle.dumps(task))())))


class LiesAboutInline(Good):
    traits = Traits(shares_memory=True, inline=True)


class HidesInline(Good):
    def send(self, task: Callable[[], Any]) -> Future[Any]:
        future: Future[Any] = Future()
        future.set_result(task())
        return future


class LiesAboutKills(Good):
    traits = Traits(kills=True)

    def kill(self, pid: int) -> None:
        pass


class KillsNothing(Processes):
    def kill(self, pid: int) -> None:
        pass


class HidesDeaths(Processes):
    def submit(self, task: Task) -> Future[Any]:
        outer: Future[Any] = Future()
        inner = super().submit(task)
        inner.add_done_callback(lambda done: None if done.exception() else outer.set_result(done.result()))
        return outer


class LiesAboutForks(Good):
    traits = Traits(shares_memory=True, forks=True)


class LiesAboutCapacity(Good):
    def open(self, workers: int | None) -> None:
        super().open(1)

    def capacity(self) -> int:
        return 2


class Clings(Good):
    def close(self, *, abandon: bool) -> None:
        self._pool.shutdown(wait=True)


class LeavesThreads(Good):
    def close(self, *, abandon: bool) -> None:
        # Kept: a pool that nobody refers to ends its threads.
        _left.append(self._pool)


_left: list[ThreadPoolExecutor] = []


class SharesItsState(Good):
    def fresh(self) -> Self:
        return self


class SharesMemoryOnceOpen(Good):
    traits = Traits()

    def open(self, workers: int | None) -> None:
        super().open(workers)
        self.traits = Traits(shares_memory=True)


class OneThreadOnly(Good):
    def open(self, workers: int | None) -> None:
        super().open(workers)
        self._owner = threading.get_ident()

    def send(self, task: Callable[[], Any]) -> Future[Any]:
        return super().send(task) if threading.get_ident() == self._owner else Future()


class Quick(BackendSuite):
    patience = 1.0
    startup = 2.0
    many = 500_000


class TestGood(Quick):
    backend = Good
    patience = 30.0


class TestHangs(Quick):
    backend = Hangs
    patience = 1.0


class TestLosesChunks(Quick):
    backend = LosesChunks


class TestRunsTwice(Quick):
    backend = RunsTwice


class TestDeliversTwice(Quick):
    backend = DeliversTwice


class TestMixesUp(Quick):
    backend = MixesUp


class TestLiesAboutMemory(Quick):
    backend = LiesAboutMemory


class TestLiesAboutInline(Quick):
    backend = LiesAboutInline


class TestHidesInline(Quick):
    backend = HidesInline


class TestLiesAboutKills(Quick):
    backend = LiesAboutKills


class TestKillsNothing(Quick):
    backend = KillsNothing


class TestHidesDeaths(Quick):
    backend = HidesDeaths


class TestLiesAboutForks(Quick):
    backend = LiesAboutForks


class TestLiesAboutCapacity(Quick):
    backend = LiesAboutCapacity


class TestClings(Quick):
    backend = Clings


class TestLeavesThreads(Quick):
    backend = LeavesThreads


class TestSharesItsState(Quick):
    backend = SharesItsState


class TestOneThreadOnly(Quick):
    backend = OneThreadOnly


class TestSharesMemoryOnceOpen(Quick):
    backend = SharesMemoryOnceOpen
