from __future__ import annotations

import os
import sys
import threading
from concurrent.futures import Future, ThreadPoolExecutor
from multiprocessing.connection import Connection, Pipe
from subprocess import Popen
from typing import Any

from anymap.backends import Backend, ChunkLost, Task, Traits

WORK = """
import sys
from multiprocessing.connection import Connection
line = Connection(int(sys.argv[1]))
while True:
    line.send(line.recv()())
"""


class Toy(Backend):
    """Interpreters of its own for each map, which do one task after another."""

    name = "toy"
    traits = Traits(kills=True)

    def open(self, workers: int | None) -> None:
        self.workers = workers or os.cpu_count() or 1
        self._threads = ThreadPoolExecutor(self.workers)
        self._lines: dict[Popen[bytes], Connection] = {}
        self._idle: list[Popen[bytes]] = []
        self._lock = threading.Lock()
        self._closed = False

    def submit(self, task: Task) -> Future[Any]:
        return self._threads.submit(self._run, task)

    def kill(self, pid: int) -> None:
        for process in list(self._lines):
            if process.pid == pid:
                process.kill()

    def close(self, *, abandon: bool) -> None:
        with self._lock:
            self._closed = True
            for process in self._lines:
                process.kill()
        self._threads.shutdown(cancel_futures=True)
        for process, line in self._lines.items():
            process.wait()
            line.close()

    def _run(self, task: Task) -> Any:
        with self._lock:
            process = self._idle.pop() if self._idle else self._start()
        try:
            self._lines[process].send(task)
            answer = self._lines[process].recv()
        except (OSError, EOFError):
            raise ChunkLost("its process ended", {process.pid: process.wait()}) from None
        self._idle.append(process)
        return answer

    def _start(self) -> Popen[bytes]:
        if self._closed:
            raise ChunkLost("the map is over")
        ours, theirs = Pipe()
        command = [sys.executable, "-c", WORK, str(theirs.fileno())]
        environment = {**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)}
        process = Popen(command, pass_fds=[theirs.fileno()], env=environment)
        theirs.close()
        self._lines[process] = ours
        return process
