"""Starting worker processes: fresh interpreters, or forks."""

from __future__ import annotations

import os
import signal
import subprocess
from contextlib import suppress
from typing import TYPE_CHECKING, Protocol

from anymap._host import inner_threads
from anymap._host.interrupts import interrupts_held_back
from anymap._worker import import_rules, process

if TYPE_CHECKING:
    import socket

    from anymap._worker.spec import WorkerSpec


class Process(Protocol):
    """What the pool needs of a process: ``subprocess.Popen`` has it."""

    pid: int

    def poll(self) -> int | None: ...

    def wait(self) -> int: ...

    def kill(self) -> None: ...


def start_interpreter(wanted: WorkerSpec, line: socket.socket) -> Process:
    """Start a fresh interpreter that serves ``line``. It never sees the caller's ``__main__``."""
    code = f"{import_rules.statement(wanted.path)}; from anymap._worker.process import main; main({line.fileno()})"
    inherited = [line.fileno(), *([wanted.tracker] if wanted.tracker is not None else [])]
    with interrupts_held_back():
        return subprocess.Popen(
            [*wanted.command, "-c", code],
            stdin=subprocess.DEVNULL,
            env=dict(wanted.environment),
            pass_fds=inherited,
        )


class _Fork:
    """A forked child."""

    def __init__(self, pid: int) -> None:
        self.pid = pid
        self._exitcode: int | None = None

    def poll(self) -> int | None:
        return self._wait(os.WNOHANG)

    def wait(self) -> int:
        exitcode = self._wait(0)
        return 0 if exitcode is None else exitcode

    def kill(self) -> None:
        if self._exitcode is None:
            with suppress(ProcessLookupError):
                os.kill(self.pid, signal.SIGKILL)

    def _wait(self, options: int) -> int | None:
        if self._exitcode is None:
            try:
                pid, status = os.waitpid(self.pid, options)
            except ChildProcessError:
                # The program has its children reaped, by a handler or by ignoring SIGCHLD: how it ended is not known.
                pid, status = self.pid, 0
            if pid:
                self._exitcode = os.waitstatus_to_exitcode(status)
        return self._exitcode


def start_fork(line: socket.socket, workers: int, max_items: int | None, threads: int | None) -> Process:
    """Fork this process; the child serves ``line`` and does nothing else of what this process would."""
    # What the caller has printed and not yet written would be in the buffers of each fork, and be written by all.
    process.flush_standard_streams()
    with interrupts_held_back():
        parent = os.getpid()
        pid = os.fork()
        if not pid:
            try:
                process.forget_exit_hooks()
                inner_threads.limit(workers, threads)
                process.serve(line.fileno(), parent, max_items)
            finally:
                process.leave()
    return _Fork(pid)
