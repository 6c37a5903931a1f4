"""On a live pool of the user's, of ``multiprocessing`` or its relatives."""

from __future__ import annotations

import math
import mmap
import os
import time
from typing import TYPE_CHECKING, Any, ClassVar, NoReturn

from anymap._errors import BackendConnectionError
from anymap._host import parent_watch, status_board
from anymap._worker.task import run_task
from anymap.backends._shared.external import ExternalEngine, fail, refuse_own_threads, run_on
from anymap.backends._shared.pool_deaths import describe
from anymap.backends.base import ChunkLost, Task, Traits
from anymap.backends.codec import TaskCodec

if TYPE_CHECKING:
    from collections.abc import Callable
    from concurrent.futures import Future

    from anymap._host.status_board import Mark
    from anymap._worker.protocol import Answer

__all__ = ["PathosProcessPool", "PathosThreadPool", "ProcessPool", "ThreadPool"]

_ON_ITS_WAY = 1.0
"""Seconds that the last answer of a worker which has ended may take through the pool's pipe."""
_TO_LOAD = 5.0
"""Seconds that a worker may take over a task before it says that it has it."""
_STANDSTILL = 30.0
"""Seconds without any sign of life, after a death, until a pool is given up."""


class ThreadPool(ExternalEngine):
    """Threads of this process."""

    name: ClassVar[str] = "ThreadPool"
    traits = Traits(shares_memory=True, borrowed=True)

    def open(self, workers: int | None) -> None:
        refuse_own_threads(self._engine, self._engine._pool)
        super().open(workers)

    def _size(self) -> int:
        size: int = self._engine._processes
        return size

    def _send(self, task: Task, future: Future[Answer]) -> Callable[[], object]:
        return self._apply(run_on, (self._engine, task), future, _as_it_is)

    def _apply(
        self,
        func: Callable[..., Any],
        arguments: tuple[Any, ...],
        future: Future[Answer],
        load: Callable[[Any], Answer],
    ) -> Callable[[], object]:
        pool = self._engine
        job = pool.apply_async(
            func,
            arguments,
            callback=lambda result: self._complete(future, lambda: load(result)),
            error_callback=lambda exc: self._complete(future, lambda: _raise(exc)),
        )
        # A task whose turn comes when its map is over sees that it is. But while a pool expects the answer of a task
        # that was lost, it can be neither closed nor joined.
        return lambda: pool._cache.pop(job._job, None)


class ProcessPool(ThreadPool):
    """Processes of this host.

    Such a pool puts another worker in the place of a dead one, says nothing, and never answers the task that it had. So
    the workers are watched here, and the board says which task the dead one was at. One that died before it could say
    so on the board is found out by a call that is sent after it: the worker that answers it has taken it from a queue where
    nothing is before it any more.
    """

    name: ClassVar[str] = "Pool"
    traits = Traits(borrowed=True)

    def open(self, workers: int | None) -> None:
        super().open(workers)
        self.traits = Traits(borrowed=True, forks=self._engine._ctx.get_start_method() == "fork")
        # As bytes: a worker that cannot load what it is sent dies of it.
        self._codec = TaskCodec(self)
        self._board: status_board.Buffer | None = None
        self._living: dict[int, Any] = {}
        self._ended: dict[int, int | None] = {}
        self._due: dict[Future[Answer], float] = {}
        self._worried = self._probing = False
        self._last_sign: tuple[float, object] = time.monotonic(), None
        self._tick()

    def poll(self) -> None:
        # These first: a process in a slot by now is among those that live, or has died.
        marks = [(future, sent.task, self._mark(sent.task)) for future, sent in list(self._sent.items())]
        self._tick()
        for future, task, mark in marks:
            if time.monotonic() >= self._lost_at(future, task, mark):
                self._lose(future, mark.pid)
        for future, sent in list(self._stuck.items()):
            if self._is_gone(self._mark(sent.task).pid) and self._stuck.pop(future, None) is not None:
                sent.cancel()
        if self._worried and not self._probing:
            self._probe([future for future, _, mark in marks if not mark.pid])
        self._give_up_if_it_stands_still([mark for _, _, mark in marks])

    def close(self, *, abandon: bool) -> None:
        super().close(abandon=abandon)
        if isinstance(board := getattr(self, "_board", None), mmap.mmap):
            board.close()

    def _send(self, task: Task, future: Future[Answer]) -> Callable[[], object]:
        return self._apply(run_task, (self._codec.encode(task),), future, self._codec.decode)

    def _mark(self, task: Task) -> Mark:
        if self._board is None:
            self._board = status_board.attach(task.spec.board)
        return status_board.read(self._board, task.slot)

    def _tick(self) -> None:
        """See which workers live. The pool forgets the dead before their exit codes can be asked for."""
        known = {**self._living, **{worker.pid: worker for worker in self._engine._pool[:]}}
        ended = {pid: worker.exitcode for pid, worker in known.items() if worker.exitcode is not None}
        self._living = {pid: worker for pid, worker in known.items() if pid not in ended}
        self._ended.update(ended)
        self._worried |= any(ended.values())

    def _is_gone(self, pid: int) -> bool:
        # One that has just been started may not be in the pool's list yet.
        return pid != 0 and pid not in self._living and (pid in self._ended or not parent_watch._exists(pid))

    def _lost_at(self, future: Future[Answer], task: Task, mark: Mark) -> float:
        """Return when to take a task for lost."""
        if not mark.pid:
            return self._due.get(future, math.inf)
        if not self._is_gone(mark.pid):
            return math.inf
        if mark.position < task.count:
            return 0.0
        return self._due.setdefault(future, time.monotonic() + _ON_ITS_WAY)

    def _lose(self, future: Future[Answer], pid: int) -> None:
        self._due.pop(future, None)
        if (sent := self._forget(future)) is None:
            return
        sent.cancel()
        dead = {pid: self._ended.get(pid)} if pid else {}
        fail(future, ChunkLost(describe(dead) or "the worker that had taken it died", dead))
        self._start_next()

    def _probe(self, untaken: list[Future[Answer]]) -> None:
        """After a death, find the tasks that no worker has recorded, though they have left the queue."""
        if not untaken:
            return
        self._worried, self._probing = False, True
        try:
            self._engine.apply_async(os.getpid, callback=lambda _: self._suspect(untaken))
        except ValueError:  # it has been closed, or terminated
            self._suspect(untaken)

    def _suspect(self, untaken: list[Future[Answer]]) -> None:
        self._probing = False
        self._due.update(dict.fromkeys(untaken, time.monotonic() + _TO_LOAD))

    def _give_up_if_it_stands_still(self, marks: list[Mark]) -> None:
        """Give up a pool whose queue's lock died with an idle worker: no other ever gets it."""
        now, (since, before) = time.monotonic(), self._last_sign
        if not self._probing or marks != before or any(mark.pid in self._living for mark in marks):
            self._last_sign = now, marks
        elif now > since + _STANDSTILL:
            killed = {pid: exitcode for pid, exitcode in self._ended.items() if exitcode}
            gone = BackendConnectionError(
                f"the {type(self._engine).__name__} given as backend= has lost a worker ({describe(killed)}) and "
                "begins nothing any more: it is yours, so it is for you to terminate it and to make another"
            )
            for future in list(self._sent):
                self._forget(future)
                fail(future, gone)
            self._drop_queued()


class PathosThreadPool(ThreadPool):
    """A pool of pathos, which starts its workers when it is first asked for them: here its threads."""

    def _size(self) -> int:
        # Once it serves, the engine is the pool inside of it.
        size: int = getattr(self._engine, "ncpus", None) or super()._size()
        return size

    def open(self, workers: int | None) -> None:
        self._engine = self._engine._serve()
        super().open(workers)


class PathosProcessPool(PathosThreadPool, ProcessPool):
    """A pool of pathos on processes."""


def _as_it_is(answer: Answer) -> Answer:
    return answer


def _raise(exc: BaseException) -> NoReturn:
    raise exc
