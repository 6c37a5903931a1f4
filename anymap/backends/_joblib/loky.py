"""On loky: the executor that all users of joblib in this process share."""

from __future__ import annotations

import concurrent.futures
import functools
import os
import signal
import threading
import time
import weakref
from contextlib import suppress
from multiprocessing import connection
from multiprocessing import resource_tracker as standard_tracker
from typing import TYPE_CHECKING, Any

from joblib.externals.loky import reusable_executor
from joblib.externals.loky.backend import resource_tracker as loky_tracker
from joblib.externals.loky.backend.utils import kill_process_tree
from joblib.externals.loky.process_executor import BrokenProcessPool, ShutdownExecutorError, TerminatedWorkerError

from anymap._host import leaving, lifecycle, start_state
from anymap._host.interrupts import interrupts_held_back
from anymap._worker import import_rules
from anymap.backends._joblib.engine import TO_NOTICE, Engine, only, start_trackers
from anymap.backends._shared import pool_deaths
from anymap.backends.base import ChunkLost, Task, Traits

if TYPE_CHECKING:
    from concurrent.futures import Future

    from anymap._worker.protocol import Answer


_TO_DIE = 1.0
"""Seconds that joblib gets to notice that its workers are dead."""


class Loky(Engine):
    """The executor that all users of joblib in this process share."""

    traits = Traits(kills=True)

    def open(self, workers: int | None) -> None:
        super().open(workers)
        _open_on_loky.add(self)

    def close(self, *, abandon: bool) -> None:
        _open_on_loky.discard(self)
        super().close(abandon=abandon)

    def poll(self) -> None:
        _tell_deaths(self._backend._workers)

    def kill(self, pid: int) -> None:
        # Without the lock: the caller may hold one that a thread in submit() waits for.
        if pid in self._backend._workers._processes:
            with suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)

    def _configure(self) -> None:
        wanted = self._backend.effective_n_jobs(self._parallel.n_jobs)
        start_trackers(standard_tracker, loky_tracker)
        # The lock that others need to submit. To give a busy executor another size, loky waits until it is idle.
        with reusable_executor._executor_lock:
            _end_executor_of_another_state()
            given = _size_of_busy_executor() or wanted
            _give_size(given)
            if not _has_workers(given):
                import_rules.require_folder()
            self._parallel.n_jobs = given
            self._parallel.__enter__()
        self._parallel.n_jobs = wanted
        self.workers = min(given, wanted)
        lifecycle.at_shutdown(_end_idle_executor)
        executor = self._backend._workers
        _start_states.setdefault(executor, start_state.current())
        if not import_rules.is_set_for(executor):
            # Not by joblib's options: then the user's own calls would need another executor.
            given = executor._initializer, executor._initargs
            import_rules.for_loky(executor, pool_deaths.start_worker, os.getpid(), False, *given)

    def _send(self, task: Task, future: Future[Answer]) -> Any:
        try:
            job = self._send_starting_workers(task, future)
        except (BrokenProcessPool, ShutdownExecutorError):
            self._configure()
            job = self._send_starting_workers(task, future)
        _close_at_exit()
        return job

    def _send_starting_workers(self, task: Task, future: Future[Answer]) -> Any:
        start_trackers(standard_tracker, loky_tracker)
        with interrupts_held_back():
            return super()._send(task, future)

    def _complete(self, future: Future[Answer], out: Any) -> None:
        if self._is_open:
            pool_deaths.settle(future, lambda: self._outcome(out))

    def _outcome(self, job: Future[list[Answer]]) -> Answer:
        try:
            return only(job.result())
        except ShutdownExecutorError as exc:
            raise ChunkLost("joblib's executor was shut down") from exc
        except BrokenProcessPool as exc:
            _let_feeder_end(self._backend._workers._call_queue)
            # Those that did it have ended by now, and loky has not yet killed the others.
            workers = list(self._backend._workers._processes.values())
            dead = {worker.pid: worker.exitcode for worker in workers if worker.exitcode is not None}
            if not dead and not isinstance(exc, TerminatedWorkerError):
                raise
            raise ChunkLost(pool_deaths.describe(dead) or "a worker ended", dead or None) from exc

    def _abort(self) -> None:
        # They end by themselves, unless one is stuck. When told to abort, loky trips over futures that are cancelled
        # or still queued; the death of its workers it survives.
        executor, jobs = self._backend._workers, list(self._jobs.values())
        if concurrent.futures.wait(jobs, TO_NOTICE).not_done and not _serves_others(executor, jobs):
            for worker in list(executor._processes.values()):
                kill_process_tree(worker)
            concurrent.futures.wait(jobs, _TO_DIE)
            queue = executor._call_queue
            super()._abort()
            _let_feeder_end(queue)


_open_on_loky: set[Loky] = set()


@functools.cache
def _close_at_exit() -> None:
    """See to it that the interpreter does not wait at its exit for a map that was never closed."""
    # What is registered last is called first, and loky, which waits, has registered with its first task.
    threading._register_atexit(_close_all_on_loky)  # type: ignore[attr-defined]


def _close_all_on_loky() -> None:
    leaving.finish_all()
    for engine in list(_open_on_loky):
        # Its futures stay as they are: a thread that waits for one has nothing more to say now.
        engine._is_open = False
        engine._abort()


def _end_idle_executor() -> None:
    """End loky's workers with our own warm ones, unless they are in use; joblib starts others when it needs some."""
    executor = reusable_executor._executor
    if executor is not None and not executor._pending_work_items:
        executor.shutdown(kill_workers=True)
        # One that lost a worker keeps its pipes and semaphores for as long as it is referred to, and loky refers to it.
        reusable_executor._executor = None


_start_states: weakref.WeakKeyDictionary[Any, tuple[Any, ...]] = weakref.WeakKeyDictionary()
"""What executors have been started with."""


def _end_executor_of_another_state() -> None:
    """Have joblib make other workers where those it has are of another user, on other CPUs or the like, unless they are in use."""
    executor, now = reusable_executor._executor, start_state.current()
    if executor is not None and _start_states.get(executor, now) != now and not executor._pending_work_items:
        # Not killed: they may be of a user whose processes this one cannot signal.
        executor.shutdown(wait=True)
        reusable_executor._executor = None


def _forget_executor() -> None:
    # In a forked child: loky's workers, and the threads that serve them, are the parent's. A map on them would wait.
    reusable_executor._executor = None
    reusable_executor._executor_lock = threading.RLock()


os.register_at_fork(after_in_child=_forget_executor)


def _tell_deaths(executor: Any) -> None:
    """Let loky know of workers that have ended. It waits for a pipe to close, which a child of the worker may keep open."""
    workers = list(executor._processes.values())
    ended = [worker for worker in workers if worker.exitcode is not None]
    hidden = [worker for worker in ended if not connection.wait([worker.sentinel], 0)]
    for worker in hidden:
        closed, end = os.pipe()
        os.close(end)
        os.dup2(closed, worker.sentinel, inheritable=False)
        os.close(closed)
    if hidden:
        with executor._shutdown_lock:
            executor._executor_manager_thread_wakeup.wakeup()


def _serves_others(executor: Any, jobs: list[Any]) -> bool:
    items = list(executor._pending_work_items.values())
    return any(item.future not in jobs for item in items)


def _size_of_busy_executor() -> int:
    executor = reusable_executor._executor
    if executor is None or executor._flags.broken or executor._flags.shutdown or not executor._pending_work_items:
        return 0
    size: int = executor._max_workers
    return size


def _has_workers(size: int) -> bool:
    executor = reusable_executor._executor
    return executor is not None and not executor._flags.shutdown and _count_alive(executor) >= size


def _let_feeder_end(queue: Any) -> None:
    """Close our reading end of a lost executor's queue: the thread that writes to it would wait for ever for a reader."""
    if queue is not None:
        queue._reader.close()


def _give_size(size: int) -> None:
    """Give the executor, which is idle, this size, before loky does: it waits for ever if a worker is dead by then."""
    executor = reusable_executor._executor
    if executor is None or executor._flags.broken or executor._flags.shutdown:
        return
    if getattr(executor, "queue_size", size) < size:  # loky makes another one
        return
    with executor._submit_resize_lock:
        with executor._processes_management_lock:
            executor._max_workers = size
            for _ in range(size, _count_alive(executor)):
                executor._call_queue.put(None)
        # The next count must leave out those that are about to go.
        while _count_alive(executor) > size and not executor._flags.broken:
            time.sleep(0.001)


def _count_alive(executor: Any) -> int:
    return sum(worker.is_alive() for worker in list(executor._processes.values()))
