"""What a pool of the ``multiprocessing`` family lacks: it says which worker died, and it can be ended in any state.

Such a pool replaces a dead worker in silence and never answers the task that the worker had. A worker may also die with
a lock of the pool's queues in its hands; from then on the other workers starve, and ``terminate`` waits for ever, at the
interpreter's exit too. So a pool that lost a worker is given up as a whole: its workers are killed, its threads stopped
one by one, and all its tasks are lost.
"""

from __future__ import annotations

import atexit
import contextlib
import copy
import os
import threading
import time
from concurrent.futures import Future, InvalidStateError
from multiprocessing.pool import TERMINATE
from typing import TYPE_CHECKING, Any

from anymap._errors import describe_exit
from anymap._host import descendants, parent_watch
from anymap._host.interrupts import ignore_interrupts, interrupts_held_back
from anymap._worker.set_up import set_up_process
from anymap.backends.base import Backend

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Mapping

    from anymap._worker.protocol import Answer
    from anymap._worker.task import Task

_LIMIT = 1.0
"""Seconds that a process or thread gets to end by itself."""


class PoolKeeper:
    """Keeps one pool of workers, and puts a new one in the place of one that lost a worker.

    ``make`` returns a new pool, ``send`` gives one a task and has the future settled; ``lost`` makes the exception that
    ends the futures of a lost pool, from a text and the exit codes of those that died.
    """

    def __init__(
        self,
        make: Callable[[], Any],
        send: Callable[[Any, Task, Future[Answer]], object],
        lost: Callable[[str, Mapping[int, int | None]], Exception],
    ) -> None:
        self._make = make
        self._send = send
        self._lost = lost
        self._lock = threading.RLock()
        self._pool: _Pool | None = None
        self._over = False
        self._owner = os.getpid()
        atexit.register(self._end_at_exit)

    def start(self) -> _Pool:
        with self._lock:
            if self._over:
                raise RuntimeError("the map is over")
            if self._pool is None:
                with interrupts_held_back():
                    self._pool = _Pool(self._make())
            return self._pool

    def submit(self, task: Task) -> Future[Answer]:
        future: Future[Answer] = Future()
        with self._lock:
            pool = self.start()
            pool.enter(future)
            self._send(pool.pool, task, future)
        return future

    def poll(self) -> None:
        """Give the pool up if one of its workers has died."""
        pool = self._pool
        if pool is None:
            return
        dead = pool.dead()
        if not dead and (ended := pool.ended_thread()) is None:
            return
        with self._lock:
            self._pool = None
        # Its other workers first: what they run will be started again elsewhere.
        pool.end()
        if dead:
            pool.give_up(self._lost(describe(dead), dead))
        else:
            pool.give_up(
                RuntimeError(f"the pool's thread {ended} has ended by an error, so no answer is read any more")
            )

    def kill(self, pid: int) -> None:
        # Without the lock: the caller may hold one that a thread in submit() waits for.
        pool = self._pool
        if pool is not None:
            pool.kill(pid)

    def close(self, *, abandon: bool) -> None:
        atexit.unregister(self._end_at_exit)
        pool = self._take()
        if pool is None:
            return
        if abandon:
            pool.end()
            pool.give_up(self._lost("the map was left", {}))
        else:
            pool.close()

    def _take(self) -> _Pool | None:
        with self._lock:
            self._over = True
            pool, self._pool = self._pool, None
        return pool

    def _end_at_exit(self) -> None:
        # Not in a fork of the owner. The futures stay as they are: a thread that waits for one has nothing more to say now.
        if os.getpid() == self._owner and (pool := self._take()) is not None:
            pool.end()


class OnPool(Backend):
    """What backends have in common whose tasks run on such a pool. ``open`` is theirs, and sets the keeper."""

    _keeper: PoolKeeper

    def submit(self, task: Task) -> Future[Answer]:
        return self._keeper.submit(task)

    def poll(self) -> None:
        self._keeper.poll()

    def kill(self, pid: int) -> None:
        self._keeper.kill(pid)

    def close(self, *, abandon: bool) -> None:
        self._keeper.close(abandon=abandon)


class _Pool:
    """One pool with its workers and the futures of its tasks."""

    def __init__(self, pool: Any) -> None:
        self.pool = pool
        self._end_lock = threading.Lock()
        self._ended = False
        # Our own references: the pool forgets a dead worker before anybody can ask for its exit code.
        self._made: list[Any] = getattr(pool._ctx, "made", pool._pool[:])
        self._futures: set[Future[Answer]] = set()
        # What the pool itself would do at exit, or when it is collected, may wait for ever.
        pool._terminate.cancel()

    @property
    def _workers(self) -> list[Any]:
        return [worker for worker in self._made[:] if worker.pid is not None]

    def enter(self, future: Future[Answer]) -> None:
        self._futures.add(future)
        future.add_done_callback(self._futures.discard)

    def give_up(self, exc: Exception) -> None:
        for future in list(self._futures):
            fail(future, exc)

    def dead(self) -> dict[int, int | None]:
        return {worker.pid: worker.exitcode for worker in self._workers if worker.exitcode is not None}

    def ended_thread(self) -> str | None:
        """Return the name of a thread that the pool cannot do without and that has ended."""
        pool = self.pool
        threads = (pool._worker_handler, pool._task_handler, pool._result_handler)
        return next((thread.name for thread in threads if not thread.is_alive()), None)

    def kill(self, pid: int) -> None:
        for worker in self._workers:
            if worker.pid == pid and worker.exitcode is None:
                descendants.end(pid)

    def close(self) -> None:
        """Let the workers, which have nothing left to do, end by themselves."""
        if self.dead() or not self._ends_by_itself():
            self.end()
        else:
            self._release()

    def _ends_by_itself(self) -> bool:
        pool, deadline = self.pool, time.monotonic() + _LIMIT
        pool.close()
        members = [pool._worker_handler, pool._task_handler, pool._result_handler]
        for thread in members:
            thread.join(max(deadline - time.monotonic(), 0.0))
        # Now that it puts no more of them in the place of dead ones.
        members += [*self._workers, *pool._pool]
        for member in members:
            member.join(max(deadline - time.monotonic(), 0.0))
        return not any(member.is_alive() for member in members)

    def end(self) -> None:
        """Kill the workers and stop the pool's threads, in whatever state they are."""
        with self._end_lock:
            if not self._ended:
                self._end()
                self._ended = True

    def _end(self) -> None:
        pool = self.pool
        pool._state = TERMINATE
        for thread in (pool._worker_handler, pool._task_handler, pool._result_handler):
            thread._state = TERMINATE
        # The lock of this queue may have died with a worker, and no process reads it any more.
        pool._outqueue.put = _drop
        self._kill_all()
        pool._change_notifier.put(None)
        pool._worker_handler.join(_LIMIT)
        # Those that the pool put in the place of dead ones meanwhile.
        self._kill_all()
        self._stop_task_handler()
        self._stop_result_handler()
        self._release()

    def _release(self) -> None:
        """Close the files now: the pool and its unanswered tasks refer to each other, and are collected some time."""
        pool = self.pool
        pool._cache.clear()
        if pool._task_handler.is_alive() or pool._result_handler.is_alive():
            return
        for queue in (pool._inqueue, pool._outqueue, pool._change_notifier):
            queue._reader.close()
            queue._writer.close()
        for worker in {*self._workers, *pool._pool}:
            with contextlib.suppress(ValueError):  # it is still there
                worker.close()

    def _kill_all(self) -> None:
        workers = [*self._workers, *self.pool._pool]
        descendants.end(*(worker.pid for worker in workers if worker.exitcode is None))
        for worker in workers:
            worker.join(_LIMIT)

    def _stop_task_handler(self) -> None:
        """It may be in the middle of a message that no worker will read: read it here, as the bytes it is."""
        pool, deadline = self.pool, time.monotonic() + _LIMIT
        pool._taskqueue.put(None)
        # If the pool was being closed already, it waits for the lock that died with a worker.
        with contextlib.suppress(ValueError):
            pool._outqueue._wlock.release()
        reader = pool._inqueue._reader
        while pool._task_handler.is_alive() and time.monotonic() < deadline:
            if reader.poll():
                os.read(reader.fileno(), 65536)
            pool._task_handler.join(0.001)

    def _stop_result_handler(self) -> None:
        """It waits for a message, or for the end of one whose writer is dead: give it one, and an end."""
        queue = self.pool._outqueue
        if not queue._reader.poll():
            queue._writer.send(None)
        queue._writer.close()
        self.pool._result_handler.join(_LIMIT)


def settle(future: Future[Answer], outcome: Callable[[], Answer]) -> None:
    """End ``future`` with what ``outcome`` returns or raises, unless it has ended already."""
    try:
        answer = outcome()
    except BaseException as exc:  # noqa: BLE001 - whatever it is, a map waits for it
        fail(future, exc)
    else:
        with contextlib.suppress(InvalidStateError):
            future.set_result(answer)


def fail(future: Future[Answer], exc: BaseException) -> None:
    with contextlib.suppress(InvalidStateError):
        future.set_exception(exc)


def remembering(context: Any) -> Any:
    """Return a multiprocessing context that remembers what it has made: a pool replaces a worker that dies at once."""
    own = copy.copy(context)
    own.given, own.made = context, []

    def make(*args: Any, **options: Any) -> Any:
        own.made.append(context.Process(*args, **options))
        return own.made[-1]

    own.Process = make
    return own


def worker_arguments(initializer: Callable[..., object] | None = None, initargs: Iterable[Any] = ()) -> dict[str, Any]:
    """Return what a pool has to be made with, so that its workers ignore Ctrl-C and end with this process.

    Make it with interrupts held back. The arguments are an initializer of the user's own, to be called too.
    """
    # The kernel takes the end of the forking thread for the end of the parent; only this one lasts as long.
    at_once = threading.current_thread() is threading.main_thread()
    return {"initializer": start_worker, "initargs": (os.getpid(), at_once, initializer, tuple(initargs))}


def start_worker(
    parent: int, at_once: bool, initializer: Callable[..., object] | None, initargs: tuple[Any, ...]
) -> None:
    """Be a pool's initializer: see :func:`worker_arguments`."""
    ignore_interrupts()
    set_up_process(parent)
    if at_once:
        _end_at_once_with(parent)
    if initializer is not None:
        initializer(*initargs)


def _end_at_once_with(parent: int) -> None:
    is_child = os.getppid() == parent  # and not one of a fork server
    parent_watch._ask_the_kernel()
    # It says nothing of a parent that was gone by then.
    if (is_child and os.getppid() != parent) or not parent_watch._exists(parent):
        os._exit(1)


def describe(dead: Mapping[int, int | None]) -> str:
    return ", ".join(f"worker {pid} ended: {describe_exit(exitcode)}" for pid, exitcode in dead.items())


def _drop(_: object) -> None:
    pass
