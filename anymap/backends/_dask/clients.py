"""Dask clients: those that are there, and those we make."""

from __future__ import annotations

import asyncio
import json
import threading
import time
from pathlib import Path
from typing import TYPE_CHECKING

from distributed import Client, Security, Worker, get_client
from distributed.comm import connect as open_comm

from anymap._errors import BackendConnectionError, UnsupportedOption
from anymap._host import forks
from anymap._host.futures import InterruptibleFuture
from anymap._host.handlers import let_in
from anymap.backends._dask import in_task

if TYPE_CHECKING:
    from concurrent.futures import Future


def make(address: str, security: Security | None, timeout: float) -> Client:
    """Return a client for ourselves: not the process's default, and closed when its scheduler is gone."""
    client = Client(address, security=security, timeout=timeout, set_as_default=False)
    # It would try for the whole timeout to find the scheduler again, and tell the log that it did not.
    client._reconnect = client._close
    return client


def close(client: Client) -> None:
    """Close a client of ours and end its thread, which stays where the client has closed itself."""
    client.close(timeout=2)
    client._loop_runner.stop()


def connect(address: str, security: Security | None, timeout: float) -> Client:
    """Connect to a scheduler, or say why not within ``timeout`` seconds."""
    try:
        # A client that fails to connect leaves a thread behind, and a traceback at exit.
        _probe(address, security or Security(), timeout)
        return make(address, security, timeout)
    except TypeError as exc:
        hint = "a tls:// address needs security=, a distributed.Security" if address.startswith("tls:") else str(exc)
        raise BackendConnectionError(f"cannot connect to the dask scheduler at {address}: {hint}") from exc
    except (OSError, ValueError, ImportError) as exc:
        reason = str(exc) or f"no answer within {timeout:g} s"
        raise BackendConnectionError(f"cannot connect to the dask scheduler at {address}: {reason}") from exc


def _probe(address: str, security: Security, timeout: float) -> None:
    """Connect and hang up. In a thread, as this one may be running an event loop."""
    outcome: Future[None] = InterruptibleFuture()
    connection = security.get_connection_args("client")

    async def connect_once() -> None:
        comm = await open_comm(address, timeout=timeout, **connection)
        await comm.close()

    def probe() -> None:
        try:
            outcome.set_result(asyncio.run(connect_once()))
        except BaseException as exc:  # noqa: BLE001 - the caller has to hear of it
            outcome.set_exception(exc)

    threading.Thread(target=probe, name="anymap-probe", daemon=True).start()
    let_in(outcome.result, timeout + 0.2)


def read_address(scheduler_file: str, timeout: float) -> str:
    end = time.monotonic() + timeout
    while True:
        try:
            return str(json.loads(Path(scheduler_file).read_text())["address"])
        except (OSError, ValueError, KeyError) as exc:
            if time.monotonic() > end:
                message = f"the file {scheduler_file} does not tell a dask scheduler's address: {exc}"
                raise BackendConnectionError(message) from exc
        let_in(time.sleep, 0.05)


def in_scope(timeout: float) -> Client | None:
    """Return the client that dask itself would use here."""
    if in_task.running() is not None:
        return _of_this_worker(timeout)
    try:
        client = Client.current()
    except ValueError:
        return None
    # In a thread or a fork beside a dask task: its map would wait for the place that the task has in the worker.
    return None if client in Worker._initialized_clients else client


def _of_this_worker(timeout: float) -> Client:
    """Return the worker's client, connected. Of several threads that ask for it at once, dask lets all but one have it before."""
    with _asking:
        client = get_client(timeout=timeout)
    give_up = time.monotonic() + timeout
    while client.status in {"newly-created", "connecting"} and time.monotonic() < give_up:
        time.sleep(0.01)
    return client


_asking = forks.Lock()


def usable(client: Client) -> Client:
    """Return a client of the user's, or say why it cannot be used here."""
    if client.asynchronous:
        raise UnsupportedOption(
            "this thread runs the event loop of the dask client, so it cannot wait for it: call the map in another "
            "thread (await asyncio.to_thread(...)), or use backend 'processes'"
        )
    if client.status != "running":
        raise BackendConnectionError(f"the dask client {client.id} is {client.status}")
    return client
