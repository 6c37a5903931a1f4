"""A dask cluster of our own, seen from inside: one process with the scheduler, one for each worker.

Neither knows the caller's ``__main__``. The scheduler's process starts the workers, replaces those that die, and ends
all of it when the caller closes its standard input or is gone.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import logging
import os
import signal
import sys
from typing import TYPE_CHECKING, Any, TypedDict

from anymap import _spool, _watch

if TYPE_CHECKING:
    from collections.abc import Callable

    from distributed import Scheduler

HOST = "127.0.0.1"
_INTERVAL = 0.2
"""Seconds between two looks at whether the caller is still there."""
_FALSE_STARTS = 3
"""So many workers in a row that die before they are ready: no further one will do better."""


class Job(TypedDict):
    """What the caller tells a process of the cluster, as a line of JSON on its standard input."""

    role: str
    command: list[str]
    """How to start a process of this cluster."""
    path: list[str]
    """The caller's ``sys.path``."""
    workers: int
    report: int
    """The file descriptor on which to tell the caller how the start goes."""
    parent: int
    folder: str


def main(job: Job) -> None:
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    stdin = _take_stdin()
    if job["role"] == "worker":
        _watch.end_at_once()
        _watch.end_with(job["parent"])
        asyncio.run(_work(job, stdin))
    else:
        asyncio.run(_Cluster(job, stdin).serve())


def _take_stdin() -> int:
    """Move the line to the parent out of the way of what the user's functions start."""
    taken = os.dup(0)
    null = os.open(os.devnull, os.O_RDONLY)
    os.dup2(null, 0)
    os.close(null)
    return taken


async def _work(job: Job, stdin: int) -> None:
    # Imported here, while the scheduler's process does the same.
    from distributed import Security, Worker  # noqa: PLC0415

    _silence()
    with open(stdin) as lines:
        address = lines.readline().strip()
        if not address:
            return
        worker = Worker(
            address,
            host=HOST,
            nthreads=1,
            memory_limit=0,
            local_directory=job["folder"],
            dashboard=False,
            dashboard_address=f"{HOST}:0",
            security=Security(require_encryption=False),
        )
        await worker
        await worker.finished()


class _Cluster:
    def __init__(self, job: Job, stdin: int) -> None:
        self._job = job
        self._stdin = stdin
        self._folder = _spool.make_folder()
        self._over = asyncio.Event()
        self._workers: dict[int, asyncio.subprocess.Process] = {}
        self._address = ""

    async def serve(self) -> None:
        asyncio.get_running_loop().add_reader(self._stdin, self._over.set)
        try:
            await self._start()
            while not self._over.is_set() and os.getppid() == self._job["parent"]:
                with contextlib.suppress(TimeoutError):
                    await asyncio.wait_for(self._over.wait(), _INTERVAL)
        except Exception as exc:  # noqa: BLE001 - the caller has to hear of it
            self._report(error=f"{type(exc).__name__}: {exc}")
        finally:
            await self._end()

    async def _start(self) -> None:
        # The workers first: they import what they need while this process does.
        for number in range(self._job["workers"]):
            self._workers[number] = await self._start_worker()
        scheduler = await _start_scheduler()
        self._address = scheduler.address
        self._report(address=self._address)
        self._keepers = [asyncio.create_task(self._keep(number)) for number in self._workers]
        while len(scheduler.workers) < self._job["workers"] and not self._over.is_set():
            await asyncio.sleep(0.01)
        self._report(ready=True)

    async def _start_worker(self) -> asyncio.subprocess.Process:
        process = await asyncio.create_subprocess_exec(*self._job["command"], stdin=asyncio.subprocess.PIPE)
        job = {**self._job, "role": "worker", "parent": os.getpid(), "folder": self._folder}
        _stdin_of(process).write(json.dumps(job).encode() + b"\n")
        return process

    async def _keep(self, number: int) -> None:
        """Have a worker, and another when that one dies."""
        false_starts = 0
        while not self._over.is_set():
            process = self._workers[number]
            _stdin_of(process).write(self._address.encode() + b"\n")
            await process.wait()
            self._workers[number] = await self._start_worker()


async def _start_scheduler() -> Scheduler:
    from distributed import Scheduler, Security  # noqa: PLC0415 - takes half a second

    _silence()
    scheduler = Scheduler(
        host=HOST,
        port=0,
        allowed_failures=0,
        dashboard=False,
        dashboard_address=f"{HOST}:0",
        security=Security(require_encryption=False),
    )
    return await scheduler
