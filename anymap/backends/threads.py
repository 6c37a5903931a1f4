"""In threads of this process: for functions that wait, or that release the interpreter lock."""

from __future__ import annotations

import threading
from concurrent.futures import Future
from queue import SimpleQueue
from typing import TYPE_CHECKING, ClassVar

from anymap._host import cpus, endings, inner_threads
from anymap.backends.base import Backend, Task, Traits

if TYPE_CHECKING:
    from anymap._worker.protocol import Answer

    _Job = tuple[Future["Answer"], Task]

__all__ = ["Threads"]


class Threads(Backend):
    """Daemon threads, so that one that is stuck never keeps the program from exiting."""

    name: ClassVar[str] = "threads"
    traits = Traits(shares_memory=True)

    def open(self, workers: int | None) -> None:
        self.workers = self.expected_workers(workers)
        self._jobs: SimpleQueue[_Job | None] = SimpleQueue()
        self._threads: list[threading.Thread] = []
        """Those that take tasks; one that is stuck in an item that was given up is to take no more."""
        self._running: dict[threading.Thread, Future[Answer]] = {}
        self._lock = threading.Lock()
        self._unfinished = 0
        self._limit = inner_threads.limit(self.workers, self.inner_threads)

    def expected_workers(self, workers: int | None) -> int:
        return workers or cpus.available()

    def submit(self, task: Task) -> Future[Answer]:
        future: Future[Answer] = Future()
        self._jobs.put((future, task))
        with self._lock:
            self._unfinished += 1
            if len(self._threads) < min(self._unfinished, self.workers):
                self._start_another_thread()
        return future

    def abandon(self, future: Future[Answer]) -> None:
        if future.cancel():
            return
        with self._lock:
            if future.done():  # its thread goes on with other tasks
                return
            self._start_thread()
            [stuck] = [thread for thread, running in tuple(self._running.items()) if running is future]
            self._threads.remove(stuck)

    def close(self, *, abandon: bool) -> None:
        # Before they are told to end: then they may be about to close it, and have nothing that is not closed to show.
        is_to_close = not abandon and endings.is_due()
        for _ in self._threads:
            self._jobs.put(None)
        inner_threads.lift(self._limit)
        if is_to_close:
            # What they close is closed when the map is over.
            for thread in self._threads:
                thread.join()

    def _start_another_thread(self) -> None:
        try:
            self._start_thread()
        except RuntimeError:
            # While the interpreter ends, which waits for what an Executor has left, no more threads can be started.
            if not self._threads:
                raise

    def _start_thread(self) -> None:
        thread = threading.Thread(target=self._work, name="anymap-thread", daemon=True)
        thread.start()
        self._threads.append(thread)

    def _work(self) -> None:
        thread = threading.current_thread()
        while (job := self._jobs.get()) is not None:
            future, task = job
            self._running[thread] = future
            if future.set_running_or_notify_cancel():
                _fulfil(future, task)
            with self._lock:
                self._unfinished -= 1
                takes_more = thread in self._threads
            # The future refers to the map, and that to this backend: a reference to it keeps all of them.
            del self._running[thread], job, future, task
            if not takes_more:
                break
        endings.end_this_thread()


def _fulfil(future: Future[Answer], task: Task) -> None:
    try:
        answer = task()
    except BaseException as exc:  # noqa: BLE001 - a fault of ours must reach the map, not end the thread
        future.set_exception(exc)
    else:
        future.set_result(answer)
