from __future__ import annotations

import os
import pickle
import sys
from concurrent.futures import Future, ThreadPoolExecutor
from multiprocessing.connection import Connection, Pipe
from queue import SimpleQueue
from subprocess import Popen
from typing import Any

from anymap.backends import Backend, ChunkLost, Task, Traits

WORK = """
import pickle, sys
from multiprocessing.connection import Connection
line = Connection(int(sys.argv[1]))
while True:
    line.send_bytes(pickle.dumps(pickle.loads(line.recv_bytes())()))
"""


class Toy(Backend):
    """Interpreters of its own for each map."""

    name = "toy"
    traits = Traits(kills=True)

    def open(self, workers: int | None) -> None:
        self.workers = workers or os.cpu_count() or 1
        self._threads = ThreadPoolExecutor(self.workers)
        self._idle: SimpleQueue[Popen[bytes]] = SimpleQueue()
        self._lines: dict[Popen[bytes], Connection] = {}
        for _ in range(self.workers):
            self._start()

    def submit(self, task: Task) -> Future[Any]:
        return self._threads.submit(self._run, task)

    def kill(self, pid: int) -> None:
        for process in list(self._lines):
            if process.pid == pid:
                process.kill()

    def close(self, *, abandon: bool) -> None:
        self._threads.shutdown(wait=False, cancel_futures=True)
        for process in list(self._lines):
            process.kill()
        self._threads.shutdown()
        for process, line in self._lines.items():
            process.kill()  # one that took a dead one's place meanwhile
            process.wait()
            line.close()

    def _run(self, task: Task) -> Any:
        process = self._idle.get()
        try:
            self._lines[process].send_bytes(pickle.dumps(task))
            answer = pickle.loads(self._lines[process].recv_bytes())
        except (OSError, EOFError):
            self._start()
            raise ChunkLost("its process ended", {process.pid: process.wait()}) from None
        self._idle.put(process)
        return answer

    def _start(self) -> None:
        ours, theirs = Pipe()
        command = [sys.executable, "-c", WORK, str(theirs.fileno())]
        environment = {**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)}
        process = Popen(command, pass_fds=[theirs.fileno()], env=environment)
        theirs.close()
        self._lines[process] = ours
        self._idle.put(process)
