"""On whatever the user has joblib run on: loky, threads, ``multiprocessing``, dask, an engine of a third party.

``joblib.Parallel`` pulls its input itself, which here is the map's to do. So it is used only to read the user's
configuration and to set up the joblib backend that is active; tasks are handed to that directly.
"""

from __future__ import annotations

import concurrent.futures
import copy
import functools
import multiprocessing
import os
import signal
import sys
import threading
import time
import weakref
from concurrent.futures import CancelledError, Future
from contextlib import suppress
from multiprocessing import connection
from multiprocessing import resource_tracker as standard_tracker
from typing import TYPE_CHECKING, Any, ClassVar, Self

from joblib.externals.loky import reusable_executor
from joblib.externals.loky.backend import resource_tracker as loky_tracker
from joblib.externals.loky.backend.utils import kill_process_tree
from joblib.externals.loky.process_executor import BrokenProcessPool, ShutdownExecutorError, TerminatedWorkerError
from joblib.parallel import (
    BatchedCalls,
    LokyBackend,
    MultiprocessingBackend,
    Parallel,
    ParallelBackendBase,
    ThreadingBackend,
    get_active_backend,
)

from anymap._errors import BackendConnectionError
from anymap._host import leaving, lifecycle, start_state, streams
from anymap._host.interrupts import interrupts_held_back
from anymap._worker import import_rules, interpreter
from anymap.backends._shared import pool_deaths
from anymap.backends.base import Backend, ChunkLost, Task, Traits
from anymap.backends.serial import Serial

if TYPE_CHECKING:
    from contextlib import AbstractContextManager

    from anymap._worker.protocol import Answer

__all__ = ["Joblib"]

_TO_NOTICE = 0.2
"""Seconds that workers get to notice that the map is over."""
_TO_DIE = 1.0
"""Seconds that joblib gets to notice that its workers are dead."""


class Joblib(Backend):
    """The joblib backend that is active where the map is called: see :func:`joblib.parallel_config`.

    Without one that is loky, whose workers joblib keeps for its next call. Whatever joblib's rules make one job of runs
    in the caller's own thread, as with joblib itself.
    """

    name: ClassVar[str] = "joblib"

    def __init__(self) -> None:
        # The configuration of a block is that of the maps called in it, wherever a lazy one is iterated.
        self._parallel = _configured()
        self._engine = _choose_engine(self._parallel)
        self._unflushable: tuple[str, ...] = ()
        """The standard streams that engines would trip over."""
        self.traits = self._engine.traits

    def fresh(self) -> Self:
        return type(self)()

    def open(self, workers: int | None) -> None:
        if workers is not None:
            self._parallel.n_jobs = workers
        if self._is_sequential():
            self._engine = Serial()
        self._unflushable = streams.unflushable()
        with streams.replaced(self._unflushable):
            self._engine.open(workers)
        self.traits, self.workers = self._engine.traits, self._engine.workers

    def _is_sequential(self) -> bool:
        return not isinstance(self._engine, _Dask) and self._parallel._effective_n_jobs() == 1

    def expected_traits(self, workers: int | None) -> Traits:
        is_sequential = (
            self._is_sequential() if workers is None else workers == 1 and not isinstance(self._engine, _Dask)
        )
        return Serial.traits if is_sequential else self.traits

    def expected_workers(self, workers: int | None) -> int | None:
        if isinstance(self._engine, _Dask):
            return None
        if isinstance(self._engine, Serial):
            return 1
        n_jobs = self._parallel.n_jobs if workers is None else workers
        return max(int(self._parallel._backend.effective_n_jobs(n_jobs)), 1)

    def submit(self, task: Task) -> Future[Answer]:
        if not self._unflushable:
            return self._engine.submit(task)
        # loky and multiprocessing flush them before they start a worker.
        with streams.replaced(self._unflushable):
            return self._engine.submit(task)

    def poll(self) -> None:
        self._engine.poll()

    def capacity(self) -> int:
        return self._engine.capacity()

    def kill(self, pid: int) -> None:
        self._engine.kill(pid)

    def abandon(self, future: Future[Answer]) -> None:
        self._engine.abandon(future)

    def waiting(self) -> AbstractContextManager[object]:
        return self._engine.waiting()

    def close(self, *, abandon: bool) -> None:
        self._engine.close(abandon=abandon)


def _configured() -> Any:
    """Return a ``Parallel`` as the user would get it here, on a backend of its own."""
    backend, n_jobs = get_active_backend()
    return Parallel(n_jobs=-1 if n_jobs is None else n_jobs, backend=_own(backend))


def _own(backend: Any) -> Any:
    """Copy a joblib backend: it holds the state of one call, and several maps may run in the same block."""
    if not _is_dask(backend):
        return copy.copy(backend)
    options = {"wait_for_workers_timeout": backend.wait_for_workers_timeout, **backend.submit_kwargs}
    own = sys.modules["joblib._dask"].DaskDistributedBackend(client=backend.client, **options)
    own.nesting_level = backend.nesting_level
    return own


def _is_dask(backend: Any) -> bool:
    # Without the module there is no such backend; to import it takes half a second.
    module = sys.modules.get("joblib._dask")
    return module is not None and isinstance(backend, module.DaskDistributedBackend)


def _choose_engine(parallel: Any) -> Backend:
    backend = parallel._backend
    if parallel.n_jobs == 1:
        return Serial()
    if _is_dask(backend):
        return _Dask(parallel)
    if isinstance(backend, LokyBackend):
        return _Loky(parallel)
    if isinstance(backend, ThreadingBackend):
        return _Threads(parallel)
    # Those derived from it have pools of other families.
    return _Pool(parallel) if type(backend) is MultiprocessingBackend else _Other(parallel)


class _Engine(Backend):
    """What all joblib backends have in common."""

    name: ClassVar[str] = Joblib.name

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
            return submit(calls, callback=functools.partial(self._land, future))
        job = submit(calls, callback=_ignore)
        retrieve = functools.partial(pool_deaths.settle, future, lambda: _only(self._retrieve(job)))
        threading.Thread(target=retrieve, name="anymap-joblib", daemon=True).start()
        return job

    def _land(self, future: Future[Answer], out: Any) -> None:
        pool_deaths.settle(future, lambda: _only(self._backend.retrieve_result_callback(out)))

    def _retrieve(self, job: Any) -> Any:
        retrieve = getattr(self._backend, "retrieve_result", None)
        return retrieve(job) if retrieve is not None else job.get()

    def _abort(self) -> None:
        self._backend.abort_everything(ensure_ready=False)


class _Other(_Engine):
    """One of a third party, of which no more is known than joblib asks of it."""

    def __init__(self, parallel: Any) -> None:
        super().__init__(parallel)
        shares_memory = getattr(self._backend, "supports_sharedmem", False)
        self.traits = Traits(shares_memory=shares_memory, remote=not shares_memory, sees_death=False)


class _Threads(_Engine):
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

    def _land(self, future: Future[Answer], out: Any) -> None:
        super()._land(future, out)
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
                thread.join(_TO_NOTICE)


class _Loky(_Engine):
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
        _start_trackers(standard_tracker, loky_tracker)
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
        _start_trackers(standard_tracker, loky_tracker)
        with interrupts_held_back():
            return super()._send(task, future)

    def _land(self, future: Future[Answer], out: Any) -> None:
        if self._is_open:
            pool_deaths.settle(future, lambda: self._outcome(out))

    def _outcome(self, job: Future[list[Answer]]) -> Answer:
        try:
            return _only(job.result())
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
        if concurrent.futures.wait(jobs, _TO_NOTICE).not_done and not _serves_others(executor, jobs):
            for worker in list(executor._processes.values()):
                kill_process_tree(worker)
            concurrent.futures.wait(jobs, _TO_DIE)
            queue = executor._call_queue
            super()._abort()
            _let_feeder_end(queue)


def _start_trackers(*trackers: Any) -> None:
    """Start what removes semaphores and files that a program leaves, before anything else does: that lets interrupts in."""
    interpreter.checked(sys.executable, "Set sys.executable to the path of one")
    with import_rules.for_multiprocessing():
        for tracker in trackers:
            tracker.ensure_running()


_open_on_loky: set[_Loky] = set()


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


class _Pool(pool_deaths.OnPool, _Engine):
    """A ``multiprocessing`` pool for this map."""

    traits = Traits(kills=True, forks=True)

    def open(self, workers: int | None) -> None:
        self._folders: list[Any] = []
        self._keeper = pool_deaths.PoolKeeper(
            self._make_pool, lambda _, task, future: self._send(task, future), ChunkLost
        )
        super().open(workers)
        self.traits = Traits(kills=True, forks=self._backend._pool._ctx.get_start_method() == "fork")

    def close(self, *, abandon: bool) -> None:
        super().close(abandon=abandon)
        # joblib would first terminate the pool.
        self._backend._pool = None
        for manager in self._folders:
            manager._clean_temporary_resources()
        _Engine.close(self, abandon=False)

    def _configure(self) -> None:
        self.workers = self._backend.effective_n_jobs(self._parallel.n_jobs)
        self._keeper.start()

    def _make_pool(self) -> Any:
        backend = self._backend
        options = getattr(backend, "backend_kwargs", {})  # joblib has them since 1.5
        arguments = pool_deaths.worker_arguments(options.get("initializer"), options.get("initargs", ()))
        backend.configure = functools.partial(type(backend).configure, backend, **arguments)
        _start_trackers(loky_tracker)
        # Before joblib 1.5 it was called _backend_args.
        settings = getattr(self._parallel, "_backend_kwargs", None) or self._parallel._backend_args
        given = settings.get("context") or multiprocessing.get_context()
        settings["context"] = pool_deaths.remembering(getattr(given, "given", given))
        if given.get_start_method() != "fork":
            import_rules.require_folder()
        with interrupts_held_back(), import_rules.for_multiprocessing():
            self._parallel.__enter__()
        self._folders.append(backend._pool._temp_folder_manager)
        return backend._pool


class _Dask(_Engine):
    """The dask client of the user's configuration."""

    traits = Traits(remote=True)

    def poll(self) -> None:
        if not self._is_connected():
            gone = BackendConnectionError(f"the dask scheduler is gone: {self._backend.client!r}")
            for future in list(self._jobs):
                pool_deaths.fail(future, gone)

    def _is_connected(self) -> bool:
        return bool(self._backend.client.status == "running")

    def _configure(self) -> None:
        wanted = self._parallel.n_jobs
        try:
            super()._configure()
        except TimeoutError as exc:
            raise BackendConnectionError(str(exc)) from exc
        if wanted > 0:
            self.workers = min(self.workers, wanted)

    def _send(self, task: Task, future: Future[Answer]) -> Any:
        job = super()._send(task, future)
        # The callback is called for a result only.
        job.add_done_callback(functools.partial(self._complete_error, future))
        return job

    def _land(self, future: Future[Answer], out: Any) -> None:
        if isinstance(out, CancelledError):
            pool_deaths.fail(future, ChunkLost("dask cancelled the task"))
        else:
            super()._land(future, out)

    def _complete_error(self, future: Future[Answer], job: Future[Any]) -> None:
        try:
            exc = self._error_of(job)
        except BaseException as fault:  # noqa: BLE001 - else the task would never end
            exc = fault
        if exc is not None:
            pool_deaths.fail(future, exc)

    def _error_of(self, job: Future[Any]) -> BaseException | None:
        from distributed import KilledWorker  # noqa: PLC0415 - loaded already, where there is a dask backend

        exc = job.exception()
        return ChunkLost("each dask worker that ran it died") if isinstance(exc, KilledWorker) else exc

    def _abort(self) -> None:
        jobs, results = set(self._jobs.values()), self._backend._results
        mine = [running for running, job in list(results.items()) if job in jobs]
        super()._abort()
        for running in mine:
            results.pop(running, None)
            self._backend._callbacks.pop(running, None)
        if self._is_connected():
            self._backend.client.cancel(mine, force=True)


def _only(answers: list[Answer]) -> Answer:
    [answer] = answers
    return answer


def _ignore(*_: object) -> None:
    pass
