"""On a live ``concurrent.futures.Executor`` of the user's."""

from __future__ import annotations

import pickle
import signal
from concurrent.futures import BrokenExecutor, CancelledError
from functools import partial
from multiprocessing import connection
from typing import TYPE_CHECKING, Any, ClassVar

from anymap import _worker
from anymap._local.lent import OnLent, packed, refuse_own_threads
from anymap._local.pooled import describe
from anymap.backends.base import ChunkLost, Task, Traits

if TYPE_CHECKING:
    from collections.abc import Callable
    from concurrent.futures import Future

    from anymap._worker import Answer

__all__ = ["AnyExecutor", "ProcessExecutor", "ThreadExecutor"]

_TO_DIE = 1.0
"""Seconds between the moment when the pipe of a dead process is closed and that when its exit code can be read."""


class AnyExecutor(OnLent):
    """One of which no more is known than that it takes functions: nothing reaches its workers but bytes."""

    name: ClassVar[str] = "executor"
    traits = Traits(remote=True, sees_death=False, borrowed=True)

    def _size(self) -> int | None:
        size = getattr(self._engine, "_max_workers", None)
        return size if isinstance(size, int) and size > 0 else None

    def _send(self, task: Task, future: Future[Answer]) -> Callable[[], object]:
        job = self._job(task)
        # Not in a lock: one that has been done by now calls back at once.
        job.add_done_callback(lambda done: self._land(future, partial(self._outcome, done)))
        cancel: Callable[[], object] = job.cancel
        return cancel

    def _job(self, task: Task) -> Any:
        return self._engine.submit(_worker.run_packed, _worker.dialect(), packed(task))

    def _outcome(self, job: Any) -> Answer:
        try:
            result = job.result()
        except BrokenExecutor as exc:
            raise self._loss(exc) from exc
        except CancelledError as exc:
            raise ChunkLost(f"the {type(self._engine).__name__} cancelled the task") from exc
        return self._answer(result)

    def _answer(self, result: Any) -> Answer:
        answer: Answer = pickle.loads(result)
        return answer

    def _loss(self, exc: BrokenExecutor) -> ChunkLost:
        return ChunkLost(f"the {type(self._engine).__name__} broke: {exc}")


class ThreadExecutor(AnyExecutor):
    """The standard library's, on threads of this process."""

    name: ClassVar[str] = "ThreadPoolExecutor"
    traits = Traits(shares_memory=True, borrowed=True)

    def open(self, workers: int | None) -> None:
        refuse_own_threads(self._engine, self._engine._threads)
        super().open(workers)

    def _job(self, task: Task) -> Any:
        return self._engine.submit(task)

    def _answer(self, result: Any) -> Answer:
        answer: Answer = result
        return answer


class ProcessExecutor(AnyExecutor):
    """The standard library's or loky's, on processes of this host. It breaks as a whole when one of them dies."""

    name: ClassVar[str] = "ProcessPoolExecutor"
    traits = Traits(breaks=True, borrowed=True)

    def open(self, workers: int | None) -> None:
        super().open(workers)
        context = getattr(self._engine, "_mp_context", None) or getattr(self._engine, "_context", None)
        forks = context is not None and context.get_start_method() == "fork"
        self.traits = Traits(breaks=True, borrowed=True, forks=forks)
        self._dead: dict[int, int | None] | None = None

    def _loss(self, exc: BrokenExecutor) -> ChunkLost:
        if self._dead is None:
            self._dead = _dead(self._engine)
        how = describe(self._dead) or str(exc)
        return ChunkLost(f"{how}, which broke the {type(self._engine).__name__}", self._dead or None)


def _dead(executor: Any) -> dict[int, int | None]:
    """Return those that died, with their exit codes. Those that did not are terminated, but not before we are told."""
    workers = list((executor._processes or {}).values())
    ended = connection.wait([worker.sentinel for worker in workers], 0)
    dead = [worker for worker in workers if worker.sentinel in ended]
    for worker in dead:
        worker.join(_TO_DIE)
    return {worker.pid: worker.exitcode for worker in dead if worker.exitcode != -signal.SIGTERM}
