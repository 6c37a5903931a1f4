"""On executors: a live one of the user's, or one that a backend starts."""

from __future__ import annotations

import contextlib
import os
import signal
import threading
from concurrent.futures import BrokenExecutor, CancelledError
from functools import partial
from multiprocessing import connection
from typing import TYPE_CHECKING, Any, ClassVar

from anymap._errors import ConfigError
from anymap._serialize import modules
from anymap._worker.task import run_task
from anymap.backends._shared.external import ExternalEngine, refuse_own_threads, run_on
from anymap.backends._shared.pool_deaths import describe
from anymap.backends.base import ChunkLost, Task, Traits
from anymap.backends.codec import TaskCodec

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable
    from concurrent.futures import Future

    from anymap._worker.protocol import Answer

__all__ = ["ExecutorBackend", "ProcessExecutor", "ThreadExecutor"]

_TO_DIE = 1.0
"""Seconds between the moment when the pipe of a dead process is closed and that when its exit code can be read."""


class ExecutorBackend(ExternalEngine):
    """Runs tasks on an executor: any object whose ``submit(function, *arguments)`` returns a ``concurrent.futures.Future``.

    Given an executor of the user's, it uses that and leaves it as it was. ``ship_modules`` names modules and packages of
    the caller's that the workers have not, as for :class:`Dask`::

        pmap(score, rows, backend=ExecutorBackend(executor, ship_modules=["helpers"]))

    A backend for one kind of executor is a subclass that overrides :meth:`start`, declares its ``traits``, and names in
    ``worker_lost`` what that executor's futures raise when a worker has died.

    Workers get bytes alone (see :class:`TaskCodec`). An executor that refuses a task with one of ``worker_lost`` is
    replaced by what ``start`` returns then, unless it is the user's.

    Attributes:
        worker_lost: Exceptions of the executor's futures by which a task was lost, not failed: its worker died, or the
            executor dropped it. Its items are run again elsewhere.
    """

    name: ClassVar[str] = "executor"
    traits = Traits(remote=True, sees_death=False, borrowed=True)
    worker_lost: ClassVar[tuple[type[BaseException], ...]] = (BrokenExecutor,)

    def __init__(self, executor: Any = None, *, ship_modules: Iterable[str] = ()) -> None:
        super().__init__(executor)
        self._ship_modules = modules.check_names(ship_modules)

    # --- what a subclass may override -----------------------------------------------------------------------------

    def start(self, workers: int | None) -> Any:  # noqa: ARG002 - for those that start one
        """Return the executor for a map: a new one, or one that is kept. By default, the one that was given.

        ``workers`` is how many tasks shall run at once; ``None``: as many as is right.
        """
        if self._engine is None:
            raise ConfigError(f"{type(self).__name__} needs an executor to run on: {type(self).__name__}(executor)")
        return self._engine

    def stop(self, executor: Any, *, abandon: bool) -> None:
        """Take back an executor that ``start`` returned. By default it is shut down, unless it is the user's.

        With ``abandon``, it still has tasks whose answers are not wanted: return promptly. Where executors are kept
        between maps, override this to do nothing, and end them by :func:`at_shutdown`.
        """
        if not self.traits.borrowed:
            executor.shutdown(wait=not abandon, cancel_futures=True)

    def size(self, executor: Any) -> int | None:
        """Return how many tasks the executor runs at once; ``None``: it does not say."""
        size = getattr(executor, "_max_workers", None)
        return size if isinstance(size, int) and size > 0 else None

    def is_worker_lost(self, exc: BaseException) -> bool:
        """Tell whether ``exc``, raised by one of the executor's futures, means that a task was lost.

        By default it does if it is one of ``worker_lost``. Override this where the class alone does not tell.
        """
        return isinstance(exc, self.worker_lost)

    def kill_job(self, job: Any, pid: int) -> None:  # noqa: ARG002 - for executors that end jobs
        """End the worker that runs a job: what ``submit`` of the executor returned. Only called where ``traits.kills``.

        By default the process ``pid`` of this host is killed. Override it where workers may be elsewhere.
        """
        with contextlib.suppress(ProcessLookupError):  # it has just ended by itself
            os.kill(pid, signal.SIGKILL)

    # --- the contract ---------------------------------------------------------------------------------------------

    def open(self, workers: int | None) -> None:
        self._replacing = threading.Lock()
        self._jobs: dict[Future[Answer], Any] = {}
        self._engine = self.start(workers)
        self._codec = TaskCodec(self, self._ship_modules)
        super().open(workers)

    def close(self, *, abandon: bool) -> None:
        try:
            super().close(abandon=abandon)
        finally:
            if self._engine is not None:
                self.stop(self._engine, abandon=abandon)

    def kill_task(self, future: Future[Answer], pid: int) -> None:
        if (job := self._jobs.get(future)) is not None:  # else it has just ended
            self.kill_job(job, pid)

    def _size(self) -> int | None:
        return self.size(self._engine)

    def _send(self, task: Task, future: Future[Answer]) -> Callable[[], object]:
        executor = self._engine
        try:
            job = self._job(executor, task)
        except Exception as exc:
            if self.traits.borrowed or not self.is_worker_lost(exc):
                raise
            job = self._job(self._replaced(executor), task)
        self._jobs[future] = job
        future.add_done_callback(self._jobs.pop)
        # Not in a lock: one that has been done by now calls back at once.
        job.add_done_callback(lambda done: self._complete(future, partial(self._outcome, done)))
        cancel: Callable[[], object] = job.cancel
        return cancel

    def _replaced(self, broken: Any) -> Any:
        """Return the executor that takes the place of a broken one."""
        with self._replacing:
            is_replaced_here = self._engine is broken
            if is_replaced_here:
                self._engine = self.start(self.workers)
        if is_replaced_here:
            self.stop(broken, abandon=True)
        return self._engine

    def _job(self, executor: Any, task: Task) -> Any:
        if self.traits.shares_memory:
            return executor.submit(run_on, executor, task)
        return executor.submit(run_task, self._codec.encode(task))

    def _outcome(self, job: Any) -> Answer:
        try:
            result = job.result()
        except CancelledError as exc:
            raise ChunkLost(f"the {type(self._engine).__name__} cancelled the task") from exc
        except Exception as exc:
            if self.is_worker_lost(exc):
                raise self._loss(exc) from exc
            raise
        return result if self.traits.shares_memory else self._codec.decode(result)

    def _loss(self, exc: BaseException) -> ChunkLost:
        return ChunkLost(f"the {type(self._engine).__name__} lost a worker: {exc}")


class ThreadExecutor(ExecutorBackend):
    """The standard library's, on threads of this process."""

    name: ClassVar[str] = "ThreadPoolExecutor"
    traits = Traits(shares_memory=True, borrowed=True)

    def open(self, workers: int | None) -> None:
        refuse_own_threads(self._engine, self._engine._threads)
        super().open(workers)


class ProcessExecutor(ExecutorBackend):
    """The standard library's or loky's, on processes of this host. It breaks as a whole when one of them dies."""

    name: ClassVar[str] = "ProcessPoolExecutor"
    traits = Traits(breaks=True, borrowed=True)

    def open(self, workers: int | None) -> None:
        super().open(workers)
        context = getattr(self._engine, "_mp_context", None) or getattr(self._engine, "_context", None)
        forks = context is not None and context.get_start_method() == "fork"
        self.traits = Traits(breaks=True, borrowed=True, forks=forks)
        self._dead: dict[int, int | None] | None = None

    def _loss(self, exc: BaseException) -> ChunkLost:
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
