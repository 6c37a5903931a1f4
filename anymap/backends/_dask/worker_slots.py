"""Which number each worker of a cluster has. The client's side decides; workers ask the scheduler for what it decided."""

from __future__ import annotations

import time
import weakref
from typing import TYPE_CHECKING, Any, NamedTuple

from distributed import get_worker
from distributed.utils import sync

from anymap._errors import BackendConnectionError

if TYPE_CHECKING:
    from distributed import Client

    from anymap._in_worker.worker_index import Owners

    Table = dict[str, tuple[int, int]]
    """For each worker its first number and how many it has, by its address."""

_TOLD_WITHIN = 10.0
"""Seconds within which the client has heard of a new worker and told the scheduler its number."""
_ASK_AGAIN = 0.05


class WorkerSlots(NamedTuple):
    """By what workers find out which number they have. Travels with the tasks."""

    name: str

    def find(self) -> tuple[int, Owners]:
        return find(self.name)


def of(client: Client) -> WorkerSlots:
    """Return where the workers find the table that this client makes."""
    return WorkerSlots(f"anymap-places-{client.id}")


# --- the client's side --------------------------------------------------------------------------------------------

_tables: weakref.WeakKeyDictionary[Client, Table] = weakref.WeakKeyDictionary()


async def publish(client: Client, running: dict[str, int]) -> None:
    """Give numbers to the workers that have none. Called in the client's event loop, when the workers are counted."""
    table = _tables.setdefault(client, {})
    if table.keys() == running.keys():
        return
    # One that is paused keeps its number.
    there: dict[str, int] = await client.scheduler.ncores()
    after = assign(table, there)
    if after != table:
        await client.scheduler.set_metadata(keys=[of(client).name], value=after)
        _tables[client] = after


def assign(table: Table, threads: dict[str, int]) -> Table:
    """Return the table without those that are gone, and with those that are new in the first places that are free."""
    after = {worker: place for worker, place in table.items() if worker in threads}
    for worker, count in threads.items():
        if worker not in after:
            after[worker] = _first_free(after, count), count
    return after


def _first_free(table: Table, count: int) -> int:
    first = 0
    for begin, taken in sorted(table.values()):
        if begin - first >= count:
            break
        first = begin + taken
    return first


# --- the worker's side --------------------------------------------------------------------------------------------

_found: dict[tuple[str, str], tuple[int, Owners]] = {}


def find(table: str) -> tuple[int, Owners]:
    """Return this worker's first number, and which of its threads has which of the following."""
    worker = get_worker()
    key = table, worker.address
    if key not in _found:
        first, count = _ask(worker, table)
        _found.setdefault(key, (first, [None] * count))
    return _found[key]


def _ask(worker: Any, table: str) -> tuple[int, int]:
    give_up = time.monotonic() + _TOLD_WITHIN
    while True:
        told: Table = sync(worker.loop, worker.scheduler.get_metadata, keys=[table], default={})
        if (found := told.get(worker.address)) is not None:
            return found[0], found[1]
        if time.monotonic() > give_up:
            raise BackendConnectionError(f"dask worker {worker.address} has not been told its number")
        time.sleep(_ASK_AGAIN)
