"""A dask cluster of our own from inside: a process with the scheduler, and below it one for each worker.

All are started as the workers of the other local backends are, so none knows the caller's ``__main__``. The scheduler's
process replaces workers that die, and ends all of it when the caller hangs up or is gone.
"""

from __future__ import annotations

import asyncio
import gc
import logging
import pickle
import socket
import sys
import time
from contextlib import suppress
from functools import partial
from typing import TYPE_CHECKING, Any, NamedTuple

from anymap._host import descendants, endings, framing, spill
from anymap._host.descriptors import Descriptor
from anymap._worker import process as child
from anymap._worker.start import Process, start_interpreter

if TYPE_CHECKING:
    from collections.abc import Callable

    from anymap._worker.spec import WorkerSpec

_HOST = "127.0.0.1"
_GRACE_PERIOD = 3.0
"""Seconds that workers have to close what they have made for themselves, when the cluster ends."""
_GRACE = 0.2
"""Seconds, to twice as many, that items which no map waits for have to end by themselves."""
_TICK = 0.1
"""Seconds between two looks at whether a worker has ended."""
_STUCK = b"stuck"
"""What a worker says that runs nothing but items which no map waits for."""
_FALSE_STARTS = 3
"""So many workers in a row that end before they are ready: another one would do no better."""


class Address(NamedTuple):
    """Report: the scheduler listens here."""

    address: str


class Joined(NamedTuple):
    """Report: a worker is ready."""

    address: str
    pid: int


class Complete(NamedTuple):
    """Report: all workers have been ready once."""


class Died(NamedTuple):
    """Report: a worker that was ready has ended, by its exit code as ``subprocess`` tells it."""

    address: str
    pid: int
    exitcode: int


class ClusterProcess(NamedTuple):
    """A process that was started, and our end of the line to it."""

    process: Process
    line: socket.socket
    descriptor: Descriptor

    def has_its_line(self) -> bool:
        """Tell whether the program has not closed our descriptors, as programs do that become daemons."""
        return self.descriptor.is_ours()

    def hang_up(self) -> None:
        """Let it know that it is to end by itself."""
        if self.has_its_line():
            with suppress(OSError):  # it has
                self.line.shutdown(socket.SHUT_WR)

    def wait(self, until: float) -> None:
        while self.process.poll() is None and time.monotonic() < until:
            time.sleep(0.005)

    def end(self) -> int:
        """See to it that it is gone, and what it has started; return its exit code."""
        if self.process.poll() is None:
            descendants.end(self.process.pid)
        exitcode = self.process.wait()
        self.line.detach()
        self.descriptor.close()
        return exitcode


def start(wanted: WorkerSpec, run: Callable[..., None], *arguments: Any) -> ClusterProcess:
    """Start a process that calls ``run(line, *arguments)``, ``line`` being the file descriptor of its end."""
    ours, theirs = socket.socketpair()
    with theirs:
        process = start_interpreter(wanted, theirs)
        framing.send(ours.fileno(), pickle.dumps(wanted.preparation()))
        framing.send(ours.fileno(), pickle.dumps(partial(run, theirs.fileno(), *arguments)))
    return ClusterProcess(process, ours, Descriptor(ours.fileno()))


def run_scheduler(line: int, wanted: WorkerSpec, workers: int) -> None:
    """Be the cluster. Reports on ``line`` what becomes of it."""
    if sys.version_info < (3, 12, 7):
        # Their collector crashes on a connection that broke while something was read: https://github.com/python/cpython/issues/77894
        gc.disable()
    try:
        asyncio.run(_Cluster(line, wanted, workers).serve())
    except Exception as exc:  # noqa: BLE001 - the caller must hear of it
        _report(line, RuntimeError(f"{type(exc).__name__}: {exc}"))
    spill.remove_own()
    child.leave()


def _report(line: int, report: Address | Joined | Complete | Died | Exception) -> None:
    framing.send(line, pickle.dumps(report))


class _Cluster:
    def __init__(self, line: int, wanted: WorkerSpec, workers: int) -> None:
        self._line = line
        self._wanted = wanted
        self._count = workers
        self._folder = spill.make_folder()
        self._workers: set[ClusterProcess] = set()
        self._ready: dict[ClusterProcess, str] = {}
        """The addresses of those that are ready."""
        self._retiring: list[asyncio.Future[None]] = []
        """Held: the loop alone would not keep them."""
        self._complete = False
        self._false_starts = 0
        self._address = ""
        self._end: asyncio.Future[None]

    async def serve(self) -> None:
        self._end = asyncio.get_running_loop().create_future()
        try:
            # The workers first: they import what they need while this process does.
            for _ in range(self._count):
                self._start_worker()
            await self._start_scheduler()
            asyncio.get_running_loop().add_reader(self._line, self._hear_caller)
            watching = asyncio.ensure_future(self._watch_workers())
            ended, _ = await asyncio.wait([self._end, watching], return_when=asyncio.FIRST_COMPLETED)
            watching.cancel()
            for task in ended:
                task.result()  # a fault ends the cluster, and its maps with that
        finally:
            for worker in self._workers:
                worker.hang_up()
            give_up = time.monotonic() + _GRACE_PERIOD
            for worker in self._workers:
                worker.wait(give_up)
                worker.end()

    async def _start_scheduler(self) -> None:
        from distributed import Scheduler, Security  # noqa: PLC0415 - takes half a second

        _silence()
        self._scheduler = await Scheduler(
            host=_HOST,
            port=0,
            protocol="tcp",
            # The engine decides what is to run again, and dask must not: an item may have done half its work.
            allowed_failures=0,
            dashboard=False,
            dashboard_address=f"{_HOST}:0",
            security=Security(require_encryption=False),
        )
        self._address = self._scheduler.address
        for worker in self._workers:
            self._tell_address(worker)
        _report(self._line, Address(self._address))

    def _start_worker(self) -> None:
        worker = start(self._wanted, run_worker, self._folder)
        self._workers.add(worker)
        asyncio.get_running_loop().add_reader(worker.line, self._hear, worker)
        if self._address:
            self._tell_address(worker)

    def _tell_address(self, worker: ClusterProcess) -> None:
        framing.send(worker.line.fileno(), self._address.encode())

    def _hear(self, worker: ClusterProcess) -> None:
        said = framing.receive(worker.line.fileno())
        if said is None:
            self._replace(worker)
            return
        if said == _STUCK:
            self._retiring.append(asyncio.ensure_future(self._retire(worker)))
            return
        self._ready[worker] = said.decode()
        self._false_starts = 0
        _report(self._line, Joined(self._ready[worker], worker.process.pid))
        if len(self._ready) == self._count and not self._complete:
            self._complete = True
            _report(self._line, Complete())

    async def _watch_workers(self) -> None:
        """Find workers that have ended though a child of theirs keeps their connections open."""
        while True:
            await asyncio.sleep(_TICK)
            for worker in [worker for worker in self._workers if worker.process.poll() is not None]:
                if worker in self._ready:
                    await self._scheduler.remove_worker(self._ready[worker], stimulus_id="anymap-dead", close=False)
                if worker in self._workers:  # its line may have told us meanwhile
                    self._replace(worker)

    async def _retire(self, worker: ClusterProcess) -> None:
        # As planned: what dask has sent it meanwhile goes to others, and no client is told that anything was lost.
        await self._scheduler.remove_worker(
            self._ready[worker], stimulus_id="anymap-retire", expected=True, close=False
        )
        descendants.end(worker.process.pid)

    def _replace(self, worker: ClusterProcess) -> None:
        asyncio.get_running_loop().remove_reader(worker.line)
        self._workers.remove(worker)
        exitcode = worker.end()
        if worker in self._ready:
            _report(self._line, Died(self._ready.pop(worker), worker.process.pid, exitcode))
        else:
            self._false_starts += 1
        if self._false_starts < _FALSE_STARTS:
            self._start_worker()
        elif not self._end.done():
            self._end.set_exception(RuntimeError("dask workers end while they start"))

    def _hear_caller(self) -> None:
        said = framing.receive(self._line)
        if said is not None:
            self._grow(int(said))
        elif not self._end.done():
            self._end.set_result(None)

    def _grow(self, count: int) -> None:
        """Have so many workers from now on, if that is more than before."""
        for _ in range(self._count, count):
            self._start_worker()
        self._count = max(self._count, count)


def run_worker(line: int, folder: str) -> None:
    """Be a worker of the scheduler whose address comes on ``line``; report when it is ready."""
    from distributed import Security, Worker  # noqa: PLC0415 - takes half a second

    _silence()
    address = framing.receive(line)
    if address is not None:
        worker = partial(
            Worker,
            address.decode(),
            host=_HOST,
            nthreads=1,
            memory_limit=0,
            local_directory=folder,
            dashboard_address=f"{_HOST}:0",
            security=Security(require_encryption=False),
        )
        asyncio.run(_work(line, worker))
    child.leave()


async def _work(line: int, make: Callable[[], Any]) -> None:
    worker = await make()
    hung_up = asyncio.Event()
    loop = asyncio.get_running_loop()
    loop.add_reader(line, hung_up.set)
    framing.send(line, worker.address.encode())
    watching = asyncio.ensure_future(_ask_for_its_end_when_stuck(line, worker))
    ends = [asyncio.ensure_future(end) for end in (worker.finished(), hung_up.wait())]
    await asyncio.wait(ends, return_when=asyncio.FIRST_COMPLETED)
    watching.cancel()
    if hung_up.is_set():
        loop.remove_reader(line)
        # In the thread that keeps it, when that has nothing else to do.
        await loop.run_in_executor(worker.executors["default"], endings.end_this_thread)
        child.leave()


async def _ask_for_its_end_when_stuck(line: int, worker: Any) -> None:
    """Have this process ended if it is of no use but to items that no map waits for: a thread alone cannot be."""
    from distributed.core import Status  # noqa: PLC0415 - takes half a second

    stuck: set[Any] = set()
    while True:
        await asyncio.sleep(_GRACE)
        unwanted = _unwanted(worker.state)
        if unwanted & stuck:
            worker.status = Status.paused  # begins nothing any more
            framing.send(line, _STUCK)
            return
        stuck = unwanted


def _unwanted(state: Any) -> set[Any]:
    """Return what a worker runs, if no map waits for any of it, nor for anything else that the worker has."""
    from anymap.backends._dask import in_task  # noqa: PLC0415 - imports what this module must not

    under_way: set[Any] = state.executing | state.long_running
    needed = state.actors or any(task.state == "memory" for task in state.tasks.values())
    return under_way if not needed and all(map(in_task.is_cancelled, under_way)) else set()


def _silence() -> None:
    """Keep quiet what dask says of connections that break: deaths are the engine's to tell."""
    for name in ("distributed", "tornado", "asyncio", *logging.root.manager.loggerDict):
        if name.partition(".")[0] in {"distributed", "tornado", "asyncio"}:
            logging.getLogger(name).setLevel(logging.CRITICAL + 1)
