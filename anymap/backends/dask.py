"""On a dask cluster: one that is there, or one of our own on this host."""

from __future__ import annotations

import asyncio
import contextlib
import itertools
import os
import threading
import uuid
from collections.abc import Mapping
from concurrent.futures import CancelledError, Future, InvalidStateError
from functools import partial
from typing import TYPE_CHECKING, Any, ClassVar, NamedTuple

import dask.config
from distributed import Client, KilledWorker, Security
from distributed.comm import CommClosedError

from anymap._errors import BackendConnectionError, ConfigError
from anymap._host import cpus, lifecycle
from anymap._serialize import modules
from anymap.backends._dask import (
    clients,
    connection,
    in_task,
    local_cluster,
    messages,
    mismatch,
    scattered,
    submission,
    worker_slots,
)
from anymap.backends.base import Backend, Channel, ChunkLost, Task, Traits
from anymap.backends.codec import TaskCodec

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator

    from distributed import Future as DaskFuture

    from anymap._worker.protocol import Answer
    from anymap.backends._dask.connection import News
    from anymap.backends._dask.submission import Key

__all__ = ["Dask"]

_NO_MEMORY = "a dask worker had no memory left to answer with"


class Dask(Backend):
    """The client given, else the scheduler at ``address`` or named in ``scheduler_file``.

    Where none of the three is given, the client in scope: inside of a dask task that of its worker, elsewhere the
    process's default client; else the ``scheduler-address`` of dask's configuration. Where there is none of these, a
    cluster of our own: a scheduler and one process per worker on this host, which need no ``if __name__ ==
    "__main__"`` in the caller's script, are kept for later maps, and end by :func:`anymap.shutdown`, at exit, or after
    a minute without a map. As with a ``LocalCluster``, other users of this host can reach its ports.

    ``security`` goes with an address: a ``distributed.Security``, or its arguments by name, such as ``tls_ca_file``.
    ``timeout`` is how many seconds it may take to connect. A client that was given or found is left as it was.
    ``ship_modules`` names modules and packages of the caller's that the workers have not: their files are sent along,
    once to each worker, and go before what the workers have by these names.

    On a cluster of our own a death costs the item that ran, and the worker of an item that is out of time is ended.
    Items that a map leaves running when it ends early have their worker ended, too, as soon as it has nothing else to do.
    Elsewhere, when a worker dies, any of the tasks that dask had sent it may have been the one that ran, so their items
    are suspects alike; dask may also run them again by itself, if a worker is idle before we hear of the death, which
    takes some hundredths of a second. An item that is out of time, or of a map that has ended, is left alone there,
    as others share its worker, and its place in the worker is given to others.

    >>> from anymap import pmap
    >>> from anymap.backends import Dask
    >>> pmap(abs, [-1, 2], backend=Dask(ship_modules=["json"]), workers=1)
    [1, 2]
    """

    name: ClassVar[str] = "dask"
    traits = Traits(remote=True, live=True, carries=True)

    def __init__(
        self,
        *,
        address: str | None = None,
        scheduler_file: str | None = None,
        client: Client | None = None,
        security: Security | Mapping[str, Any] | None = None,
        timeout: float = 8.0,
        ship_modules: Iterable[str] = (),
    ) -> None:
        if sum(option is not None for option in (address, scheduler_file, client)) > 1:
            raise ConfigError("Dask takes one of address, scheduler_file and client, not several")
        if security is not None and address is None and scheduler_file is None:
            raise ConfigError("Dask takes security only together with an address or a scheduler_file")
        for option, value in (("address", address), ("scheduler_file", scheduler_file)):
            if not isinstance(value, str | os.PathLike | None):
                raise ConfigError(f"Dask takes the name of its {option} as a string, not {value!r}")
        if not isinstance(client, Client | None):
            raise ConfigError(f"Dask takes a distributed.Client as its client, not {client!r}")
        if not isinstance(security, Security | Mapping | None):
            raise ConfigError(
                f"Dask takes a distributed.Security, or its arguments by name, as security, not {security!r}"
            )
        if isinstance(timeout, bool) or not isinstance(timeout, int | float) or not timeout > 0:
            raise ConfigError(f"Dask takes its timeout as a number of seconds above 0, not {timeout!r}")
        self._address = address
        self._scheduler_file = scheduler_file
        self._given = client
        self._security = Security(**security) if isinstance(security, Mapping) else security
        self._timeout = timeout
        self._ship_modules = modules.check_names(ship_modules)

    def open(self, workers: int | None) -> None:
        self._exit = contextlib.ExitStack()
        self._task = in_task.running()
        """The one that this map is called in."""
        self._seceded: int | None = None
        self._map = f"anymap-{uuid.uuid4().hex}"
        self._numbers = itertools.count()
        self._in_flight: dict[Key, _InFlight] = {}
        self._own: local_cluster.Cluster | None = None
        self._most = workers
        self._codec = TaskCodec(self, self._ship_modules)
        self._client = self._find_client(workers)
        self._where = self._client.scheduler.address
        self._cluster = self._exit.enter_context(connection.watched(self._client, self._timeout, self._hear))
        self._store = scattered.Store(self._client, self._map)
        self._places = worker_slots.of(self._client) if self.traits.remote else None
        self.workers = self.capacity()

    def expected_workers(self, workers: int | None) -> int | None:
        elsewhere = (self._address, self._scheduler_file, self._given, dask.config.get("scheduler-address", None))
        if any(place is not None for place in elsewhere) or clients.in_scope(self._timeout) is not None:
            return None
        return workers or cpus.available()

    def _find_client(self, workers: int | None) -> Client:
        address = self._address
        if self._scheduler_file is not None:
            address = clients.read_address(self._scheduler_file, self._timeout)
        if address is None:
            found = self._given or clients.in_scope(self._timeout)
            if found is not None and in_task.runs_here(found.loop):
                return clients.usable(found)
            if found is not None:  # from before this process was forked
                return self._connect(found.scheduler.address, found.security)
            address = dask.config.get("scheduler-address", None)
        if address is not None:
            return self._connect(address, self._security)
        self._most = workers or cpus.available()
        self._own = local_cluster.lease(workers, self.inner_threads, self.idle_timeout)
        self._exit.callback(self._own.give_back, workers)
        self.traits = Traits(kills=True)
        self.starts_anew = True
        return self._own.client

    def _connect(self, address: str, security: Security | None) -> Client:
        client = clients.connect(address, security, self._timeout)
        self._exit.callback(clients.close, client)
        return client

    def submit(self, task: Task) -> Future[Answer]:
        key = self._map, next(self._numbers)
        try:
            message, apart = messages.pack(task, self._codec.shipment, self._places, self._store)
            buffers = {"buffers": apart} if apart else {}
            submitted = _InFlight(Future(), submission.submit(self._client, message, key, **buffers))
        except Exception as exc:
            if (gone := self._what_became_of_us()) is not None:
                raise gone from exc
            raise
        self._in_flight[key] = submitted
        submitted.future.add_done_callback(partial(self._forget, key))
        self._client.loop.add_callback(self._follow, submitted)
        return submitted.future

    def _forget(self, key: Key, _: object) -> None:
        submitted = self._in_flight.pop(key, None)
        if submitted is not None:
            submitted.remote.release()

    async def _follow(self, submitted: _InFlight) -> None:
        """See a task to its end; runs in the client's event loop."""
        with _ending([submitted]):
            outcome = await self._outcome(submitted)
            if isinstance(outcome, BaseException):
                submitted.end(outcome)
            else:
                submitted.complete(outcome)

    async def _outcome(self, submitted: _InFlight) -> Answer | BaseException:
        """Return a task's answer, or the exception that its future is to end with."""
        try:
            answer = self._codec.decode(await self._fetch(submitted.remote))
        except KilledWorker as exc:
            worker = exc.last_worker.address
            return _loss(worker, await self._own.death(worker) if self._own is not None else None)
        except (asyncio.CancelledError, CancelledError) as exc:
            return self._what_became_of_us() or ChunkLost(f"dask gave the task up: {exc!r}")
        except MemoryError:
            return ChunkLost(_NO_MEMORY)
        except Exception as exc:  # noqa: BLE001 - whatever it is, the map must hear of it
            return self._translate(exc)
        if answer.broken is not None and answer.broken.type_name == "MemoryError":
            return ChunkLost(_NO_MEMORY)
        return answer

    async def _fetch(self, remote: DaskFuture) -> bytes:
        await remote.exception()
        if remote.status == "finished":
            # "skip" keeps the client from telling the log of results that were lost with their worker.
            for answer in await self._client.gather([remote], errors="skip"):
                return bytes(answer)
        return bytes(await remote.result())

    def _what_became_of_us(self, exc: Exception | None = None) -> Exception | None:
        """Return what to tell the map if the scheduler is gone; by ``exc`` that may be known before the client knows."""
        if self._own is not None and self._own.closed:
            return lifecycle.during_a_map()
        if self._client.status == "running" and not isinstance(exc, CommClosedError):
            return None
        return BackendConnectionError(f"the dask scheduler at {self._where} was lost while the map was running")

    def _translate(self, exc: Exception) -> Exception:
        return self._what_became_of_us(exc) or mismatch.mismatch(exc, f"a worker of {self._where}") or exc

    def _hear(self, news: News) -> None:
        """Take in what the scheduler tells all clients. A worker that leaves as planned has its tasks moved."""
        with _ending(list(self._in_flight.values())):
            self._take_in(news)

    def _take_in(self, news: News) -> None:
        if news.get("action") == "remove-worker" and not news.get("expected"):
            keys = (*news.get("processing-tasks", ()), *news.get("lost-computed-tasks", ()))
            in_flight = [submitted for key in keys if (submitted := self._in_flight.get(key)) is not None]
            worker = str(news.get("worker"))
            if self._own is None:
                # At once: until dask learns that no client wants it, it may give what has killed one worker to another.
                _end(in_flight, _loss(worker))
            else:
                self._client.loop.add_callback(self._end_when_told, self._own, in_flight, worker)

    async def _end_when_told(self, cluster: local_cluster.Cluster, in_flight: list[_InFlight], worker: str) -> None:
        with _ending(in_flight):
            _end(in_flight, _loss(worker, await cluster.death(worker)))

    def kill(self, pid: int) -> None:
        assert self._own is not None  # noqa: S101 - on others' clusters the trait is not declared
        self._own.kill(pid)

    def channel(self, receive: Callable[[bytes], object]) -> Channel:
        self._exit.callback(self._cluster.close_channel, self._map)
        return self._cluster.open_channel(self._map, receive)

    def capacity(self) -> int:
        threads = self._cluster.threads
        return threads if self._most is None else min(threads, self._most)

    def poll(self) -> None:
        self._cluster.check_interval()
        if self._task is not None and not self._task.is_wanted():
            raise BackendConnectionError("the dask task that this map was called in is no longer waited for")
        if (gone := self._what_became_of_us()) is not None:
            self._end_all(gone)

    @contextlib.contextmanager
    def waiting(self) -> Iterator[None]:
        # To come back takes until another task of that worker has ended: not before the map has.
        if self._task is not None and in_task.leave_place():
            self._seceded = threading.get_ident()
        yield

    def close(self, *, abandon: bool) -> None:  # noqa: ARG002 - what is still in flight is dropped in any case
        self._end_all(ChunkLost("the map is over"))
        if hasattr(self, "_store"):
            self._store.close()
        self._exit.close()
        if self._task is not None and self._seceded == threading.get_ident() and self._task.is_wanted():
            in_task.come_back()

    def _end_all(self, exc: Exception) -> None:
        _end(list(self._in_flight.values()), exc)


class _InFlight(NamedTuple):
    """A task on its way: what the engine waits for, and what we wait for."""

    future: Future[Answer]
    remote: DaskFuture

    def complete(self, answer: Answer) -> None:
        # It may have been cancelled, or given up when its worker died.
        with contextlib.suppress(InvalidStateError):
            self.future.set_result(answer)

    def end(self, exc: BaseException) -> None:
        with contextlib.suppress(InvalidStateError):
            self.future.set_exception(exc)


@contextlib.contextmanager
def _ending(in_flight: list[_InFlight]) -> Iterator[None]:
    """End tasks with whatever is raised in here: nothing else would end them."""
    try:
        yield
    except BaseException as exc:  # noqa: BLE001 - dask would log it, and the map wait for ever
        _end(in_flight, exc)


def _end(in_flight: list[_InFlight], exc: BaseException) -> None:
    for submitted in in_flight:
        submitted.end(exc)


def _loss(worker: str, dead: dict[int, int] | None = None) -> ChunkLost:
    """Say that a worker died; of one of our own, how."""
    return ChunkLost(f"dask worker {worker} died", dead or None)
