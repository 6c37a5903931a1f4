from __future__ import annotations

import os
import pickle
import sys
import threading
from concurrent.futures import Future, ThreadPoolExecutor
from subprocess import PIPE, Popen
from typing import Any

from anymap.backends import Backend, ChunkLost, Task, Traits

# The answer has standard output to itself: what the user's function prints goes to standard error.
WORK = """
import os, pickle, sys
answers = os.fdopen(os.dup(1), "wb")
os.dup2(2, 1)
pickle.dump(pickle.load(sys.stdin.buffer)(), answers)
"""


class Toy(Backend):
    """An interpreter of its own for each task."""

    name = "toy"
    traits = Traits(kills=True)

    def open(self, workers: int | None) -> None:
        self.workers = workers or os.cpu_count() or 1
        self._threads = ThreadPoolExecutor(self.workers)
        self._processes: dict[int, Popen[bytes]] = {}
        self._lock = threading.Lock()
        self._closed = False

    def submit(self, task: Task) -> Future[Any]:
        return self._threads.submit(self._run, pickle.dumps(task))

    def kill(self, pid: int) -> None:
        if process := self._processes.get(pid):
            process.kill()

    def close(self, *, abandon: bool) -> None:
        with self._lock:
            self._closed = True
        self._threads.shutdown(wait=False, cancel_futures=True)
        for pid in list(self._processes):
            self.kill(pid)

    def _run(self, task: bytes) -> Any:
        environment = {**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)}
        with self._lock:
            if self._closed:
                raise ChunkLost("the map is over")
            process = Popen([sys.executable, "-c", WORK], stdin=PIPE, stdout=PIPE, env=environment)
            self._processes[process.pid] = process
        answer, _ = process.communicate(task)
        del self._processes[process.pid]
        if process.returncode:
            raise ChunkLost(f"process {process.pid} ended", {process.pid: process.returncode})
        return pickle.loads(answer)
