"""In threads of this process: for functions that wait, or that release the interpreter lock."""

from __future__ import annotations

import threading
from concurrent.futures import Future
from queue import SimpleQueue
from typing import TYPE_CHECKING, ClassVar

from anymap import _cpus
from anymap.backends.base import Backend, Task, Traits

if TYPE_CHECKING:
    from anymap._worker import Answer

    _Job = tuple[Future["Answer"], Task]

__all__ = ["Threads"]


class Threads(Backend):
    """Daemon threads, so that one that is stuck never keeps the program from exiting."""

    name: ClassVar[str] = "threads"
    traits = Traits(shares_memory=True)

    def open(self, workers: int | None) -> None:
        self.workers = workers or _cpus.available()
        self._jobs: SimpleQueue[_Job | None] = SimpleQueue()
        self._threads = 0
        self._lock = threading.Lock()
        self._unfinished = 0

    def submit(self, task: Task) -> Future[Answer]:
        future: Future[Answer] = Future()
        self._jobs.put((future, task))
        with self._lock:
            self._unfinished += 1
            if self._threads < min(self._unfinished, self.workers):
                self._start_thread()
        return future

    def abandon(self, future: Future[Answer]) -> None:
        if not future.cancel():
            with self._lock:
                self._start_thread()

    def close(self, *, abandon: bool) -> None:  # noqa: ARG002 - the board stops those that run
        for _ in range(self._threads):
            self._jobs.put(None)

    def _start_thread(self) -> None:
        self._threads += 1
        threading.Thread(target=self._work, name="anymap-thread", daemon=True).start()

    def _work(self) -> None:
        while (job := self._jobs.get()) is not None:
            future, task = job
            if future.set_running_or_notify_cancel():
                _fulfil(future, task)
            with self._lock:
                self._unfinished -= 1


def _fulfil(future: Future[Answer], task: Task) -> None:
    try:
        answer = task()
    except BaseException as exc:  # noqa: BLE001 - a fault of ours must reach the map, not end the thread
        future.set_exception(exc)
    else:
        future.set_result(answer)
