"""What joblib's engines have in common, its threads, and engines of third parties."""

from __future__ import annotations

import functools
import sys
import threading
from concurrent.futures import Future
from typing import TYPE_CHECKING, Any, ClassVar

from joblib.parallel import (
    BatchedCalls,
    ParallelBackendBase,
)

from anymap._worker import import_rules, interpreter
from anymap.backends._shared import pool_deaths
from anymap.backends.base import Backend, Task, Traits

if TYPE_CHECKING:
    from contextlib import AbstractContextManager

    from anymap._worker.protocol import Answer


TO_NOTICE = 0.2
"""Seconds that workers get to notice that the map is over."""


class Engine(Backend):
    """What all joblib backends have in common."""

    name: ClassVar[str] = "joblib"

    def __init__(self, parallel: Any) -> None:
        self._parallel = parallel
        self._lock = threading.RLock()
        self._jobs: dict[Future[Answer], Any] = {}
        self._is_open = False

    def open(self, workers: int | None) -> None:  # noqa: ARG002 - the Parallel object knows
        self._configure()
        self._is_open = True
        self._backend.start_call()
        self._nested = self._backend.get_nested_backend()

    def submit(self, task: Task) -> Future[Answer]:
        future: Future[Answer] = Future()
        with self._lock:
            if not self._is_open:
                raise RuntimeError("the map is over")
            self._jobs[future] = self._send(task, future)
        future.add_done_callback(self._jobs.pop)
        return future

    def waiting(self) -> AbstractContextManager[object]:
        waiting: AbstractContextManager[object] = self._backend.retrieval_context()
        return waiting

    def close(self, *, abandon: bool) -> None:
        with self._lock:
            was_open, self._is_open = self._is_open, False
        if not was_open:
            return
        if abandon:
            self._abort()
        self._backend.stop_call()
        self._backend.terminate()
        for future in list(self._jobs):
            future.cancel()

    @property
    def _backend(self) -> Any:
        return self._parallel._backend

    def _configure(self) -> None:
        self._parallel.__enter__()
        self.workers = self._backend.effective_n_jobs(self._parallel.n_jobs)

    def _send(self, task: Task, future: Future[Answer]) -> Any:
        backend = self._backend
        calls = BatchedCalls([(task, (), {})], self._nested)
        # Before joblib 1.5 it was called apply_async; there are backends that know it by this name only.
        known = getattr(type(backend), "submit", None) is not getattr(ParallelBackendBase, "submit", None)
        submit = backend.submit if known else backend.apply_async
        if backend.supports_retrieve_callback:
            return submit(calls, callback=functools.partial(self._complete, future))
        job = submit(calls, callback=ignore)
        retrieve = functools.partial(pool_deaths.settle, future, lambda: only(self._retrieve(job)))
        threading.Thread(target=retrieve, name="anymap-joblib", daemon=True).start()
        return job

    def _complete(self, future: Future[Answer], out: Any) -> None:
        pool_deaths.settle(future, lambda: only(self._backend.retrieve_result_callback(out)))

    def _retrieve(self, job: Any) -> Any:
        retrieve = getattr(self._backend, "retrieve_result", None)
        return retrieve(job) if retrieve is not None else job.get()

    def _abort(self) -> None:
        self._backend.abort_everything(ensure_ready=False)


class Other(Engine):
    """One of a third party, of which no more is known than joblib asks of it."""

    def __init__(self, parallel: Any) -> None:
        super().__init__(parallel)
        shares_memory = getattr(self._backend, "supports_sharedmem", False)
        self.traits = Traits(shares_memory=shares_memory, remote=not shares_memory, sees_death=False)


class Threads(Engine):
    """joblib's threads."""

    traits = Traits(shares_memory=True)

    def __init__(self, parallel: Any) -> None:
        super().__init__(parallel)
        self._given_up: set[Future[Answer]] = set()

    def abandon(self, future: Future[Answer]) -> None:
        with self._lock:
            if future.cancel():
                self._given_up.add(future)
                pool = self._backend._get_pool()
                pool._processes += 1
                pool._join_exited_workers(pool._pool)  # else one that has just ended counts as one that is there
                pool._repopulate_pool()

    def _complete(self, future: Future[Answer], out: Any) -> None:
        super()._complete(future, out)
        with self._lock:
            if future in self._given_up and (pool := self._backend._pool) is not None:
                # There is a thread too many now: the one that takes this ends.
                pool._processes -= 1
                pool._inqueue.put(None)

    def close(self, *, abandon: bool) -> None:
        pool = self._backend._pool
        super().close(abandon=abandon)
        if pool is not None and not abandon:
            for thread in pool._pool:
                # One may be stuck in an item that was given up; it is a daemon.
                thread.join(TO_NOTICE)


def start_trackers(*trackers: Any) -> None:
    """Start what removes semaphores and files that a program leaves, before anything else does: that lets interrupts in."""
    interpreter.checked(sys.executable, "Set sys.executable to the path of one")
    with import_rules.for_multiprocessing():
        for tracker in trackers:
            tracker.ensure_running()


def only(answers: list[Answer]) -> Answer:
    [answer] = answers
    return answer


def ignore(*_: object) -> None:
    pass
