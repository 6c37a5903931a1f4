"""Maps on loky: a pool of processes for each map, and a new one when a process dies."""

from __future__ import annotations

import contextlib
import os
import signal
import threading
from concurrent.futures import CancelledError, Future, InvalidStateError
from typing import Any

from loky import ProcessPoolExecutor, cpu_count
from loky.process_executor import BrokenProcessPool, ShutdownExecutorError

from anymap.backends import Backend, ChunkLost, Task, Traits


class Loky(Backend):
    """Processes that loky starts, which run none of the caller's ``__main__``."""

    name = "loky"
    traits = Traits(kills=True)

    def open(self, workers: int | None) -> None:
        self.workers = workers or cpu_count()
        self._lock = threading.Lock()
        self._executor = ProcessPoolExecutor(self.workers)

    def submit(self, task: Task) -> Future[Any]:
        future: Future[Any] = Future()
        with self._lock:
            try:
                job = self._executor.submit(task)
            except BrokenProcessPool:  # a process has died: all futures of that pool have ended, and it takes no more
                self._executor = ProcessPoolExecutor(self.workers)
                job = self._executor.submit(task)
        job.add_done_callback(lambda done: land(done, future))
        return future

    def kill(self, pid: int) -> None:
        with contextlib.suppress(ProcessLookupError):  # it has just ended by itself
            os.kill(pid, signal.SIGKILL)

    def close(self, *, abandon: bool) -> None:
        if hasattr(self, "_executor"):  # else open() has failed
            self._executor.shutdown(kill_workers=abandon)


def land(job: Future[Any], future: Future[Any]) -> None:
    """End a task's future with its answer, or say that the task was lost."""
    with contextlib.suppress(InvalidStateError):
        try:
            future.set_result(job.result())
        except (BrokenProcessPool, ShutdownExecutorError, CancelledError) as exc:
            future.set_exception(ChunkLost(str(exc)))
        except Exception as exc:  # noqa: BLE001 - loky itself has failed, and the map has to hear of it
            future.set_exception(exc)
