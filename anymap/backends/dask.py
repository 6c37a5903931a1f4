"""On a dask cluster: one that is there, or one of our own on this host."""

from __future__ import annotations

import asyncio
import contextlib
import itertools
import json
import pickle
import threading
import time
import uuid
from concurrent.futures import CancelledError, Future, InvalidStateError
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar, NamedTuple

import dask.config
from distributed import Client, KilledWorker, get_client, get_worker, rejoin, secede

from anymap import _cpus, _worker
from anymap._errors import BackendConnectionError, BackendUnavailable, ConfigError, UnsupportedOption
from anymap._local import dask_cluster
from anymap.backends.base import Backend, ChunkLost, Task, Traits

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from distributed import Future as DaskFuture
    from distributed import Security

    from anymap._payload import Parcel
    from anymap._worker import Answer

    _Key = tuple[str, int]
    _News = dict[str, Any]

_LARGE = 32 * 1024
"""A function of more bytes travels once to each worker instead of with each task."""
_BIG_MESSAGE = 1024 * 1024
_GLANCE = 1.0
"""Seconds between two looks at how many threads the workers have."""
_INSTALL = "pip install 'anypmap[dask]' on the workers"


class Dask(Backend):
    """The client given, else the scheduler at ``address`` or named in ``scheduler_file``.

    Where none of the three is given, the client in scope: inside of a dask task that of its worker, elsewhere the
    process's default client. Where there is none, a cluster of our own: a scheduler and one process per worker on
    this host, which need no ``if __name__ == "__main__"`` in the caller's script, are kept for later maps, and end by
    :func:`anymap.shutdown`, at exit, or after a minute without a map.

    ``security`` goes with an address. ``timeout`` is how many seconds it may take to connect. A client that was given
    or found is left as it was.

    When a worker dies, any of the tasks that dask had sent it may have been the one that ran, so their items are
    suspects alike. On a cluster of our own dask does not run them again by itself. On others it may, if a worker is
    idle just then: the news of a death takes some hundredths of a second.
    """

    name: ClassVar[str] = "dask"
    traits = Traits(remote=True)

    def __init__(
        self,
        *,
        address: str | None = None,
        scheduler_file: str | None = None,
        client: Client | None = None,
        security: Security | None = None,
        timeout: float = 10.0,
    ) -> None:
        if sum(option is not None for option in (address, scheduler_file, client)) > 1:
            raise ConfigError("Dask takes one of address, scheduler_file and client, not several")
        if security is not None and address is None and scheduler_file is None:
            raise ConfigError("Dask takes security only together with an address or a scheduler_file")
        self._address = address
        self._scheduler_file = scheduler_file
        self._given = client
        self._security = security
        self._timeout = timeout

    def open(self, workers: int | None) -> None:
        self._exit = contextlib.ExitStack()
        self._in_task = _is_in_task()
        self._seceded: int | None = None
        self._map = f"anymap-{uuid.uuid4().hex}"
        self._numbers = itertools.count()
        self._function: DaskFuture | None = None
        self._function_lock = threading.Lock()
        self._flights: dict[_Key, _Flight] = {}
        self._most = workers
        self._client = self._find_client(workers)
        self._where = self._client.scheduler.address
        self._cluster = self._exit.enter_context(_watched(self._client, self._timeout, self._hear))
        self.workers = self.capacity()

    def _find_client(self, workers: int | None) -> Client:
        if self._address is not None or self._scheduler_file is not None:
            client = _connect(self._address or _read_address(self._scheduler_file, self._timeout), self)
            self._exit.callback(client.close, timeout=2)
            return client
        found = self._given or _client_in_scope()
        if found is not None:
            return _usable(found)
        cluster = dask_cluster.lease(workers or _cpus.available())
        self._exit.callback(cluster.give_back)
        return cluster.client

    def submit(self, task: Task) -> Future[Answer]:
        key = self._map, next(self._numbers)
        message, function = _pack(task)
        try:
            # The scheduler loads what it passes on, and it need not have anymap: a pickle that calls it when it is
            # loaded says all in the words of the standard library.
            with _unwarned(len(message)):
                held = {"buffers": self._hold(function)} if function else {}
                flight = _Flight(Future(), self._client.submit(pickle.loads, message, **held, key=key, pure=False))
        except Exception as exc:
            raise self._translate(exc) from exc
        self._flights[key] = flight
        flight.future.add_done_callback(partial(self._forget, key))
        self._client.loop.add_callback(self._follow, flight)
        return flight.future

    def _hold(self, buffers: list[pickle.PickleBuffer]) -> DaskFuture:
        """Have the function's parts on the cluster, as the result of a task: that can be had again after a death."""
        with self._function_lock:
            if self._function is None or self._function.status in {"error", "cancelled", "lost"}:
                parts = [bytes(buffer) for buffer in buffers]
                key = f"{self._map}-function", next(self._numbers)
                with _unwarned(_BIG_MESSAGE):
                    self._function = self._client.submit(list, parts, key=key, pure=False)
            return self._function

    def _forget(self, key: _Key, _: object) -> None:
        flight = self._flights.pop(key, None)
        if flight is not None:
            flight.remote.release()

    async def _follow(self, flight: _Flight) -> None:
        """See a task to its end; runs in the client's event loop."""
        try:
            answer = await flight.remote.result()
        except (asyncio.CancelledError, CancelledError, KilledWorker) as exc:
            flight.end(self._what_became_of_us() or ChunkLost(f"dask gave the task up: {exc or type(exc).__name__}"))
        except Exception as exc:  # noqa: BLE001 - whatever it is, the map must hear of it
            flight.end(self._translate(exc))
        else:
            flight.land(answer)

    def _what_became_of_us(self) -> BackendConnectionError | None:
        """Return what to tell the map if the scheduler is gone."""
        if self._client.status == "running":
            return None
        return BackendConnectionError(f"the dask scheduler at {self._where} was lost while the map was running")

    def _translate(self, exc: Exception) -> Exception:
        return self._what_became_of_us() or _misfit(exc, f"a worker of {self._where}") or exc

    def _hear(self, news: _News) -> None:
        """Take in what the scheduler tells all clients. A worker that leaves as planned has its tasks moved."""
        if news.get("action") == "remove-worker" and not news.get("expected"):
            for key in (*news.get("processing-tasks", ()), *news.get("lost-computed-tasks", ())):
                if flight := self._flights.get(key):
                    flight.end(ChunkLost(f"dask worker {news.get('worker')} died"))

    def capacity(self) -> int:
        threads = self._cluster.threads
        return threads if self._most is None else min(threads, self._most)

    def poll(self) -> None:
        self._cluster.glance()
        if (gone := self._what_became_of_us()) is not None:
            self._end_all(gone)

    @contextlib.contextmanager
    def waiting(self) -> Iterator[None]:
        # Once for the whole map: to come back takes until another task of that worker has ended.
        if self._in_task and self._seceded is None:
            self._seceded = threading.get_ident() if _secede() else 0
        yield

    def close(self, *, abandon: bool) -> None:  # noqa: ARG002 - what is still in flight is dropped in any case
        self._end_all(ChunkLost("the map is over"))
        self._exit.close()
        if self._seceded == threading.get_ident():
            rejoin()

    def _end_all(self, exc: Exception) -> None:
        for flight in list(self._flights.values()):
            flight.end(exc)


class _Flight(NamedTuple):
    """A task on its way: what the engine waits for, and what we wait for."""

    future: Future[Answer]
    remote: DaskFuture

    def land(self, answer: Answer) -> None:
        # It may have been cancelled, or given up when its worker died.
        with contextlib.suppress(InvalidStateError):
            self.future.set_result(answer)

    def end(self, exc: Exception) -> None:
        with contextlib.suppress(InvalidStateError):
            self.future.set_exception(exc)


# --- messages -----------------------------------------------------------------------------------------------------


class _Call:
    """Pickles to the call of a function: who loads it gets what the function returns."""

    def __init__(self, func: Callable[..., Any], *arguments: Any) -> None:
        self._reduced = func, arguments

    def __reduce__(self) -> tuple[Any, ...]:
        return self._reduced


def _pack(task: Task) -> tuple[bytes, list[pickle.PickleBuffer]]:
    """Pickle a call that runs ``task``, the parts of its function apart if they are large."""
    parcel: Parcel = task.spec.function
    apart: list[pickle.PickleBuffer] = []
    function = None
    if parcel.nbytes() > _LARGE:
        task = Task(task.spec._replace(function=None), task.rows, task.count, task.slot, task.budget, task.classes)
        function = parcel._replace(
            data=pickle.PickleBuffer(parcel.data), buffers=[pickle.PickleBuffer(buffer) for buffer in parcel.buffers]
        )
    call = _Call(_worker.run_apart, _worker.dialect(), task, function)
    return pickle.dumps(call, 5, buffer_callback=apart.append), apart


_config_lock = threading.Lock()


@contextlib.contextmanager
def _unwarned(size: int) -> Iterator[None]:
    """Submit without dask's advice to the author of a large graph: he has written none."""
    if size < _BIG_MESSAGE:
        yield
        return
    with _config_lock, dask.config.set({"distributed.admin.large-graph-warning-threshold": 2**62}):
        yield


def _misfit(exc: BaseException, where: str) -> Exception | None:
    """Say what is wrong with a worker that could not even begin."""
    if isinstance(exc, ModuleNotFoundError) and (exc.name or "").partition(".")[0] in {"anymap", "cloudpickle"}:
        return BackendUnavailable("dask", f"{where} has no module {exc.name!r}", _INSTALL)
    return None


# --- clients ------------------------------------------------------------------------------------------------------


def _connect(address: str, options: Any) -> Client:
    try:
        return Client(address, security=options._security, timeout=options._timeout, set_as_default=False)
    except TypeError as exc:
        hint = "its address is tls://, so give security=, a distributed.Security" if address.startswith("tls") else exc
        raise BackendConnectionError(f"cannot connect to the dask scheduler at {address}: {hint}") from exc
    except (OSError, ValueError, RuntimeError, ImportError) as exc:
        raise BackendConnectionError(f"cannot connect to the dask scheduler at {address}: {exc}") from exc
