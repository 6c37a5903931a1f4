"""A dask cluster of our own on this host: started when a map needs it, shared, kept warm, and closed."""

from __future__ import annotations

import asyncio
import pickle
import selectors
import threading
import time
from concurrent.futures import Future
from contextlib import suppress
from typing import TYPE_CHECKING, Any

from distributed import Security

from anymap._errors import BackendConnectionError
from anymap._host import cpus, descendants, forks, framing, lifecycle
from anymap._host.descriptors import Selector
from anymap._host.futures import InterruptibleFuture
from anymap._host.handlers import let_in
from anymap._worker import spec
from anymap.backends._dask import clients, cluster_process

if TYPE_CHECKING:
    from distributed import Client

    from anymap._worker.spec import WorkerSpec

_START = 60.0
"""Seconds that a cluster has to start; a host that is very busy takes its time."""
_END = 5.0
"""Seconds that it has to end its workers; then it is killed, and they with it."""
_LAST_WORD = 1.0
"""Seconds within which we hear how a worker ended that dask has lost: both see its connections break."""
_TICK = 1.0


class Cluster:
    """The caller's side: the line to the cluster, a client, and the thread that looks after both."""

    client: Client

    def __init__(self, wanted: WorkerSpec, workers: int) -> None:
        self._asked: list[int] = []
        """The numbers of workers that maps ask for which have a lease."""
        self._not_asked = 0
        """How many maps have one that ask for no number: together they have as many workers as the cluster began with."""
        self.idle_timeout = 0.0
        """Seconds after which an unused cluster ends."""
        self._wanted = wanted
        self._workers = self._most = workers
        self._idle_since = time.monotonic()
        self.closed = False
        """It has been told to end."""
        self._address: Future[str] = InterruptibleFuture()
        self._ready: Future[None] = InterruptibleFuture()
        self._pids: dict[str, int] = {}
        """Of the workers that live, by their addresses."""
        self._deaths: dict[str, Future[dict[int, int]]] = {}
        # The process is tied to the thread that starts it: that must not be one of the caller's, which may end sooner.
        self._thread = threading.Thread(target=self._work, name="anymap-dask", daemon=True)
        self._thread.start()

    def connect(self) -> None:
        """Wait until it has started, and connect the client."""
        try:
            address = let_in(self._address.result, _START)
            self.client = clients.make(address, Security(require_encryption=False), _START)
            let_in(self._ready.result, _START)
        except (RuntimeError, OSError, TimeoutError) as exc:
            raise BackendConnectionError(f"a dask cluster of our own could not be started: {exc}") from exc

    @property
    def alive(self) -> bool:
        return self._cluster_process.has_its_line() and self._thread.is_alive() and self.client.status == "running"

    @property
    def leases(self) -> int:
        """How many maps run on it."""
        return len(self._asked) + self._not_asked

    def grant(self, asked: int | None) -> None:
        """Enter a map that asks for so many workers, and start those that are missing."""
        if asked is None:
            self._not_asked += 1
        else:
            self._asked.append(asked)
        wanted = sum(self._asked) + (self._workers if self._not_asked else 0)
        if wanted > self._most:
            self._most = wanted
            with suppress(OSError):  # it has ended, which the map will find out
                framing.send(self._cluster_process.line.fileno(), str(wanted).encode())

    def is_idle(self, seconds: float = 0.0) -> bool:
        """No map has had a lease for so many seconds."""
        return not self.leases and time.monotonic() - self._idle_since >= seconds

    def give_back(self, asked: int | None) -> None:
        with _lock:
            self._idle_since = time.monotonic()
            if asked is None:
                self._not_asked -= 1
            else:
                self._asked.remove(asked)

    def kill(self, pid: int) -> None:
        """End one of the workers; another will take its place."""
        if pid in self._pids.values():
            descendants.end(pid)

    async def death(self, address: str) -> dict[int, int]:
        """Return the process id and exit code of a worker that dask has lost; nothing if that is not told soon."""
        told = asyncio.wrap_future(self._death(address))
        await asyncio.wait([told], timeout=_LAST_WORD)
        return told.result() if told.done() else {}

    def _death(self, address: str) -> Future[dict[int, int]]:
        return self._deaths.setdefault(address, Future())

    def close(self) -> None:
        """End it, busy or not; returns when it has ended."""
        self.closed = True
        if hasattr(self, "_cluster_process") and not self._cluster_process.has_its_line():
            _lost.append(self)
            self._cluster_process.process.kill()
            return
        if hasattr(self, "client"):
            clients.close(self.client)
        if hasattr(self, "_cluster_process"):
            self._cluster_process.hang_up()
        if self._thread is not threading.current_thread():
            self._thread.join(_END)
            if self._thread.is_alive():
                self._cluster_process.process.kill()
                self._thread.join()

    def _work(self) -> None:
        try:
            self._cluster_process = cluster_process.start(
                self._wanted, cluster_process.run_scheduler, self._wanted, self._workers
            )
            if self.closed:
                self._cluster_process.hang_up()
            self._listen()
        except BaseException as exc:  # noqa: BLE001 - the map that waits for the start must get it
            self._fail(exc)
        finally:
            self._fail(RuntimeError("it ended"))
            if hasattr(self, "_cluster_process"):
                self._cluster_process.end()

    def _listen(self) -> None:
        with Selector() as selector:
            selector.register(self._cluster_process.line, selectors.EVENT_READ)
            while True:
                ready = selector.select(_TICK)
                if not self._cluster_process.has_its_line():
                    raise RuntimeError("this program has closed its file descriptors")
                if not ready:
                    _close_if_idle(self)
                elif (data := framing.receive(self._cluster_process.line.fileno())) is not None:
                    self._hear(pickle.loads(data))
                else:
                    return

    def _hear(self, report: Any) -> None:
        match report:
            case cluster_process.Address(address):
                self._address.set_result(address)
            case cluster_process.Joined(address, pid):
                self._pids[address] = pid
            case cluster_process.Complete():
                self._ready.set_result(None)
            case cluster_process.Died(address, pid, exitcode):
                self._pids.pop(address, None)
                self._death(address).set_result({pid: exitcode})
            case _:
                self._fail(report)

    def _fail(self, exc: BaseException) -> None:
        for future in (self._address, self._ready):
            if not future.done():
                future.set_exception(exc)


_clusters: dict[tuple[WorkerSpec, int], Cluster] = {}
_lock = forks.Lock()
_lost: list[Cluster] = []
"""Those whose descriptors the program has closed. Their clients would wait for connections that are gone, and close what has
these numbers now when they are collected."""


def lease(asked: int | None, inner_threads: int | None, idle_timeout: float) -> Cluster:
    """Return a running cluster of processes like this one, with as many workers for a map as it asks for.

    ``None``: as many as there are CPUs, for all such maps together. Give it back when the map is over.
    """
    workers = asked or cpus.available()
    key = spec.current(workers, inner_threads=inner_threads), workers
    with _lock:
        cluster = _clusters.get(key)
        if cluster is None or not cluster.alive:
            cluster = _start(key)
        cluster.idle_timeout = idle_timeout
        cluster.grant(asked)
    return cluster


def _start(key: tuple[WorkerSpec, int]) -> Cluster:
    for other in [other for other, cluster in _clusters.items() if other == key or cluster.is_idle()]:
        _clusters.pop(other).close()
    cluster = Cluster(*key)
    try:
        cluster.connect()
    except BaseException:
        cluster.close()
        raise
    _clusters[key] = cluster
    lifecycle.at_shutdown(close_all)
    return cluster


def _close_if_idle(cluster: Cluster) -> None:
    # The holder of the lock may be waiting for the thread that this runs in. There will be another time.
    if not cluster.is_idle(cluster.idle_timeout) or not _lock.acquire(blocking=False):
        return
    try:
        for key in [
            key for key, other in _clusters.items() if other is cluster and cluster.is_idle(cluster.idle_timeout)
        ]:
            _clusters.pop(key).close()
    finally:
        _lock.release()


def close_all() -> None:
    """End all clusters of this process."""
    with _lock:
        clusters = list(_clusters.values())
        _clusters.clear()
    for cluster in clusters:
        cluster.close()


# In a forked child: the clusters are the parent's, and the threads that served them are not there.
forks.in_child(_clusters.clear)
