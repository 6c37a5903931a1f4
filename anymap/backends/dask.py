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
import weakref
from concurrent.futures import CancelledError, Future, InvalidStateError
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar, NamedTuple

import dask.config
from distributed import Client, KilledWorker, Security, get_client, get_worker, rejoin, secede
from distributed.comm import connect

from anymap import _cpus, _worker
from anymap._errors import BackendConnectionError, BackendUnavailable, ConfigError, UnsupportedOption
from anymap._local import dask_cluster
from anymap.backends.base import Backend, ChunkLost, Task, Traits

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from distributed import Future as DaskFuture

    from anymap._payload import Parcel
    from anymap._worker import Answer

    _Key = tuple[str, int]
    _News = dict[str, Any]

__all__ = ["Dask"]

_LARGE = 32 * 1024
"""A function of more bytes travels once to each worker instead of with each task; other messages as frames."""
_GLANCE = 1.0
"""Seconds between two looks at how many threads the workers have."""
_TOPIC = "all"
"""Where the scheduler says what happens to its workers."""
_INSTALL = "pip install 'anypmap[dask]' on the workers"


class Dask(Backend):
    """The client given, else the scheduler at ``address`` or named in ``scheduler_file``.

    Where none of the three is given, the client in scope: inside of a dask task that of its worker, elsewhere the
    process's default client; else the ``scheduler-address`` of dask's configuration. Where there is none of these, a
    cluster of our own: a scheduler and one process per worker on this host, which need no ``if __name__ ==
    "__main__"`` in the caller's script, are kept for later maps, and end by :func:`anymap.shutdown`, at exit, or after
    a minute without a map. As with a ``LocalCluster``, other users of this host can reach its ports.

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
        address = self._address
        if self._scheduler_file is not None:
            address = _read_address(self._scheduler_file, self._timeout)
        if address is None:
            found = self._given or _client_in_scope(self._timeout)
            if found is not None:
                return _usable(found)
            address = dask.config.get("scheduler-address", None)
        if address is not None:
            client = _connect(address, self._security, self._timeout)
            self._exit.callback(client.close, timeout=2)
            return client
        cluster = dask_cluster.lease(workers or _cpus.available())
        self._exit.callback(cluster.give_back)
        return cluster.client

    def submit(self, task: Task) -> Future[Answer]:
        key = self._map, next(self._numbers)
        message, function = _pack(task)
        try:
            held = {"buffers": self._hold(function)} if function else {}
            flight = _Flight(Future(), _submit(self._client, message, key, **held))
        except Exception as exc:
            if (gone := self._what_became_of_us()) is not None:
                raise gone from exc
            raise
        self._flights[key] = flight
        flight.future.add_done_callback(partial(self._forget, key))
        self._client.loop.add_callback(self._follow, flight)
        return flight.future

    def _hold(self, buffers: list[pickle.PickleBuffer]) -> DaskFuture:
        """Have the function's parts on the cluster, as the result of a task: that can be had again after a death."""
        with self._function_lock:
            if self._function is None or self._function.status in {"error", "cancelled", "lost"}:
                message = pickle.dumps([bytes(buffer) for buffer in buffers], 5)
                key = f"{self._map}-function", next(self._numbers)
                self._function = _submit(self._client, message, key)
            return self._function

    def _forget(self, key: _Key, _: object) -> None:
        flight = self._flights.pop(key, None)
        if flight is not None:
            flight.remote.release()

    async def _follow(self, flight: _Flight) -> None:
        """See a task to its end; runs in the client's event loop."""
        try:
            answer: Answer = pickle.loads(await self._fetch(flight.remote))
        except (asyncio.CancelledError, CancelledError, KilledWorker) as exc:
            flight.end(self._what_became_of_us() or ChunkLost(f"dask gave the task up: {exc or type(exc).__name__}"))
        except Exception as exc:  # noqa: BLE001 - whatever it is, the map must hear of it
            flight.end(self._translate(exc))
        else:
            flight.land(answer)

    async def _fetch(self, remote: DaskFuture) -> bytes:
        await remote.exception()
        if remote.status == "finished":
            # "skip" keeps the client from telling the log of results that were lost with their worker.
            for answer in await self._client.gather([remote], errors="skip"):
                return bytes(answer)
        return bytes(await remote.result())

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
        if self._function is not None:
            self._function.release()
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


class _Frame:
    """Bytes that dask carries as they are instead of pickling them again at each station of their way."""

    def __init__(self, data: bytes) -> None:
        self._data = data

    def __reduce__(self) -> tuple[Any, ...]:
        return pickle.PickleBuffer, (pickle.PickleBuffer(self._data),)


def _submit(client: Client, message: bytes, key: _Key, **buffers: DaskFuture) -> DaskFuture:
    """Have a worker load ``message``.

    All that the scheduler gets to load is of the standard library, so it need have neither anymap nor the caller's
    modules: the message is a pickle that calls a function when it is loaded.
    """
    if len(message) < _LARGE:
        return client.submit(pickle.loads, message, **buffers, key=key, pure=False)
    # Without dask's advice to the author of a large graph: he has written none.
    with _config_lock, dask.config.set({"distributed.admin.large-graph-warning-threshold": 2**62}):
        return client.submit(pickle.loads, _Frame(message), **buffers, key=key, pure=False)


_config_lock = threading.Lock()


# --- clients ------------------------------------------------------------------------------------------------------


def _connect(address: str, security: Security | None, timeout: float) -> Client:
    try:
        # A client that fails to connect leaves a thread behind, and a traceback at exit.
        _probe(address, security or Security(), timeout)
        return dask_cluster.connect(address, security, timeout)
    except TypeError as exc:
        hint = "a tls:// address needs security=, a distributed.Security" if address.startswith("tls:") else str(exc)
        raise BackendConnectionError(f"cannot connect to the dask scheduler at {address}: {hint}") from exc
    except (OSError, ValueError, ImportError) as exc:
        reason = str(exc) or f"no answer within {timeout:g} s"
        raise BackendConnectionError(f"cannot connect to the dask scheduler at {address}: {reason}") from exc


def _probe(address: str, security: Security, timeout: float) -> None:
    """Connect and hang up. In a thread, as this one may be running an event loop."""
    outcome: Future[None] = Future()
    connection = security.get_connection_args("client")

    async def connect_once() -> None:
        comm = await connect(address, timeout=timeout, **connection)
        await comm.close()

    def probe() -> None:
        try:
            outcome.set_result(asyncio.run(connect_once()))
        except BaseException as exc:  # noqa: BLE001 - the caller has to hear of it
            outcome.set_exception(exc)

    threading.Thread(target=probe, name="anymap-probe", daemon=True).start()
    outcome.result(timeout + 0.2)


def _read_address(scheduler_file: str, timeout: float) -> str:
    end = time.monotonic() + timeout
    while True:
        try:
            return str(json.loads(Path(scheduler_file).read_text())["address"])
        except (OSError, ValueError, KeyError) as exc:
            if time.monotonic() > end:
                message = f"the file {scheduler_file} does not tell a dask scheduler's address: {exc}"
                raise BackendConnectionError(message) from exc
        time.sleep(0.05)


def _client_in_scope(timeout: float) -> Client | None:
    if _is_in_task():
        return get_client(timeout=timeout)
    try:
        return Client.current()
    except ValueError:
        return None


def _is_in_task() -> bool:
    try:
        get_worker()
    except ValueError:
        return False
    return True


def _usable(client: Client) -> Client:
    if client.asynchronous:
        raise UnsupportedOption(
            "this thread runs the event loop of the dask client, so it cannot wait for it: call the map in another "
            "thread (await asyncio.to_thread(...)), or use backend 'processes'"
        )
    if client.status != "running":
        raise BackendConnectionError(f"the dask client {client.id} is {client.status}")
    return client


def _secede() -> bool:
    """Leave this worker's slot to other tasks, maybe those that are waited for."""
    try:
        secede()
    except (KeyError, AttributeError):  # it has left before; it is not one of the worker's own threads
        return False
    return True


# --- what the maps of one client share ----------------------------------------------------------------------------


class _Cluster:
    """What is known of a cluster: how many threads its workers have, and the news that its scheduler spreads."""

    def __init__(self, client: Client) -> None:
        self.threads = 0
        self.listeners: list[Callable[[_News], None]] = []
        self._client = client
        self._looked = time.monotonic()
        self._listen()

    def _listen(self) -> None:
        # A client has one handler per topic. There may be one of the user's, or he may set one while the map lasts.
        handler = self._client._event_handlers.get(_TOPIC, _ignore)
        if handler != self._pass_on:
            self._former = handler
            self._client.subscribe_topic(_TOPIC, self._pass_on)

    def leave(self) -> None:
        handlers = self._client._event_handlers
        if handlers.get(_TOPIC) != self._pass_on:
            return
        # One must stay: the client complains of news that it has no handler for.
        handlers[_TOPIC] = self._former
        if self._former is _ignore:
            with contextlib.suppress(Exception):  # what a closed client raises has no type of its own
                self._client.unsubscribe_topic(_TOPIC)

    def _pass_on(self, event: tuple[float, Any]) -> Any:
        news = event[1]
        if isinstance(news, dict):
            for listener in tuple(self.listeners):
                listener(news)
            if news.get("action") in {"add-worker", "remove-worker"}:
                self._client.loop.add_callback(self._count)
        return self._former(event)

    def glance(self) -> None:
        """Count the threads anew if it is time to. The count is there a little later."""
        if time.monotonic() - self._looked > _GLANCE:
            self._looked = time.monotonic()
            self._listen()
            self._client.loop.add_callback(self._count)

    async def _count(self) -> None:
        with contextlib.suppress(OSError):  # the client finds out too
            self.threads = sum((await self._client.scheduler.ncores_running()).values())

    def inspect(self, timeout: float) -> None:
        """Count the threads now, and see whether all workers can run what we send them."""
        where = self._client.scheduler.address
        try:
            answers = self._client.sync(self._inspect, timeout)
        except (OSError, TimeoutError) as exc:
            raise BackendConnectionError(f"the dask scheduler at {where} does not answer: {exc}") from exc
        for worker, answer in answers.items():
            if (misfit := _misfit(answer, f"dask worker {worker}")) is not None:
                raise misfit

    async def _inspect(self, limit: float) -> dict[str, Any]:
        running = await asyncio.wait_for(self._client.scheduler.ncores_running(), limit)
        self.threads = sum(running.values())
        greeted = _greeted.setdefault(self._client, set())
        strangers = [worker for worker in running if worker not in greeted]
        if not strangers:
            return {}
        greeting = pickle.dumps(_Call(_worker.dialect))
        answers: dict[str, Any] = {}
        # One that is too busy to answer will be asked by its first task.
        with contextlib.suppress(TimeoutError):
            answering = self._client.run(pickle.loads, greeting, workers=strangers, on_error="return")
            answers = await asyncio.wait_for(answering, limit)
        greeted.update(worker for worker, answer in answers.items() if answer == _worker.dialect())
        return answers


def _ignore(_: object) -> None:
    pass


def _misfit(answer: Any, where: str) -> Exception | None:
    """Say what is wrong with a worker, by how it answered; ``None`` if it is nothing that concerns us."""
    if isinstance(answer, ModuleNotFoundError) and (answer.name or "").partition(".")[0] in {"anymap", "cloudpickle"}:
        return BackendUnavailable("dask", f"{where} has no module {answer.name!r}", _INSTALL)
    if isinstance(answer, AttributeError) and "anymap" in str(answer):
        return BackendConnectionError(f"{where} has another version of anymap: {answer}")
    if isinstance(answer, tuple) and answer != _worker.dialect():
        return BackendConnectionError(f"{where} does not fit: {_worker.describe_misfit(_worker.dialect(), answer)}")
    return None


_greeted: weakref.WeakKeyDictionary[Client, set[str]] = weakref.WeakKeyDictionary()
_clusters: dict[Client, _Cluster] = {}
_clusters_lock = threading.Lock()


@contextlib.contextmanager
def _watched(client: Client, timeout: float, listener: Callable[[_News], None]) -> Iterator[_Cluster]:
    """Share the watch over a client's cluster for as long as a map lasts."""
    with _clusters_lock:
        if client not in _clusters:
            _clusters[client] = _Cluster(client)
        cluster = _clusters[client]
        cluster.listeners.append(listener)
    try:
        cluster.inspect(timeout)
        yield cluster
    finally:
        with _clusters_lock:
            cluster.listeners.remove(listener)
            if not cluster.listeners:
                del _clusters[client]
                cluster.leave()
