"""What backends have in common whose engine is the user's: it is given tasks, and otherwise left as it is."""

from __future__ import annotations

import abc
import contextlib
import threading
from collections import deque
from concurrent.futures import Future, InvalidStateError, wait
from typing import TYPE_CHECKING, Any

from anymap._errors import BackendConnectionError, UnsupportedOption
from anymap._host import cpus
from anymap.backends.base import Backend, ChunkLost

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable

    from anymap._worker.protocol import Answer
    from anymap._worker.task import Task

_TO_TELL = 5.0
"""Seconds that an engine which has just broken gets to end the futures that it has."""


class Sent:
    """A task that the engine has."""

    __slots__ = ("cancel", "task")

    def __init__(self, task: Task) -> None:
        self.task = task
        self.cancel: Callable[[], object] = _nothing
        """Have the engine forget it, if that can be done."""


class ExternalEngine(Backend):
    """Hands tasks to an engine, but never more at a time than workers were asked for.

    No lock of ours is held while the engine is called: it may hold one of its own while it calls back.
    """

    def __init__(self, engine: Any) -> None:
        self._engine = engine

    @abc.abstractmethod
    def _size(self) -> int | None:
        """Return how many tasks the engine runs at once; ``None``: it does not say."""

    @abc.abstractmethod
    def _send(self, task: Task, future: Future[Answer]) -> Callable[[], object]:
        """Give the engine a task, which :meth:`_complete` is to be called for; return what cancels it."""

    def open(self, workers: int | None) -> None:
        size = self._size()
        self.workers = self.expected_workers(workers)
        self._spare = 0 if size is None else size - self.workers
        self._most = self.workers if workers is not None and size != self.workers else None
        self._lock = threading.Lock()
        self._queued: deque[tuple[Task, Future[Answer]]] = deque()
        self._sent: dict[Future[Answer], Sent] = {}
        self._stuck: dict[Future[Answer], Sent] = {}

    def expected_workers(self, workers: int | None) -> int:
        size = self._size()
        return min(workers or size or cpus.available(), size or workers or cpus.available())

    def submit(self, task: Task) -> Future[Answer]:
        future: Future[Answer] = Future()
        with self._lock:
            may_go = self._most is None or len(self._sent) < self._most
            if may_go:
                sent = self._sent[future] = Sent(task)
            else:
                self._queued.append((task, future))
        if may_go:
            self._start(sent, future)
        return future

    def capacity(self) -> int:
        # An item that was given up keeps its worker until it ends; there may be others that were not asked for.
        return self.workers - max(len(self._stuck) - self._spare, 0)

    def abandon(self, future: Future[Answer]) -> None:
        with self._lock:
            if (sent := self._sent.pop(future, None)) is None:
                return
            self._stuck[future] = sent
        self._start_next()

    def close(self, *, abandon: bool) -> None:  # noqa: ARG002 - what still runs is not ours to end
        if not hasattr(self, "_sent"):
            return
        with self._lock:
            futures = [*(future for _, future in self._queued), *self._sent]
            left = list(self._sent.values())
            self._queued.clear()
        for future in futures:
            fail(future, ChunkLost("the map is over"))
        _cancel_all(left)

    def _start(self, sent: Sent, future: Future[Answer]) -> None:
        try:
            sent.cancel = self._send(sent.task, future)
        except Exception as exc:
            self._forget(future)
            # The map is about to end, and what else the engine has lost should be known by then.
            wait(list(self._sent), _TO_TELL)
            raise self._refusal(exc) from exc

    def _refusal(self, exc: Exception) -> BackendConnectionError:
        kind, why = type(self._engine).__name__, str(exc).partition("\n")[0] or type(exc).__name__
        if not self.traits.borrowed:
            return BackendConnectionError(f"the {kind} takes no tasks any more: {why}")
        return BackendConnectionError(
            f"the {kind} given as backend= takes no tasks any more, and as it is yours, another one is for you to make: {why}"
        )

    def _complete(self, future: Future[Answer], outcome: Callable[[], Answer]) -> None:
        """End a task's future with what ``outcome`` returns or raises. Called on a thread of the engine's."""
        with self._lock:
            sent = self._sent.pop(future, None)
            self._stuck.pop(future, None)
        try:
            answer = outcome()
        except BaseException as exc:  # noqa: BLE001 - whatever it is, a map waits for it
            # An engine that has lost a task may be about to lose all, and may not be called from here: these are submitted anew.
            try:
                self._drop_queued()
            finally:
                fail(future, exc)
        else:
            try:
                if sent is not None:  # else another one has been started in its place
                    self._start_next()
            finally:
                with contextlib.suppress(InvalidStateError):
                    future.set_result(answer)

    def _start_next(self) -> None:
        with self._lock:
            if not self._queued:
                return
            task, future = self._queued.popleft()
            sent = self._sent[future] = Sent(task)
        try:
            self._start(sent, future)
        except BaseException as exc:  # noqa: BLE001 - there is no caller to tell
            fail(future, exc)

    def _drop_queued(self) -> None:
        with self._lock:
            dropped = [future for _, future in self._queued]
            self._queued.clear()
        for future in dropped:
            fail(future, ChunkLost("another task was lost before this one had begun"))

    def _forget(self, future: Future[Answer]) -> Sent | None:
        """Take a task off the books; return it, unless it was not there any more."""
        with self._lock:
            return self._sent.pop(future, None)


def _cancel_all(left: Iterable[Sent]) -> None:
    """Have the engine forget tasks; raise the first error once all have been tried."""
    errors = []
    for sent in left:
        try:
            sent.cancel()
        except NotImplementedError:  # not every executor can: what it has begun, it ends
            continue
        except Exception as exc:  # noqa: BLE001 - the others are to be cancelled all the same
            errors.append(exc)
    if errors:
        raise errors[0]


_here = threading.local()
"""On what engine this thread runs a task."""


def run_on(engine: Any, task: Task) -> Answer:
    """Run a task in this thread of the engine's."""
    before, _here.engine = getattr(_here, "engine", None), engine
    try:
        return task()
    finally:
        _here.engine = before


def refuse_own_threads(engine: Any, threads: Iterable[object]) -> None:
    """Refuse to run a map of an item that has one of the engine's own threads: all of them might wait like this one."""
    # A thread that has just been started may not be among the engine's yet, but runs a task of ours.
    if getattr(_here, "engine", None) is engine or threading.current_thread() in threads:
        raise UnsupportedOption(
            f"this map is called in a thread of the {type(engine).__name__} that it is to run on, and so may wait for itself "
            "for ever: name another backend for maps inside of maps"
        )


def fail(future: Future[Answer], exc: BaseException) -> None:
    with contextlib.suppress(InvalidStateError):
        future.set_exception(exc)


def _nothing() -> None:
    pass
