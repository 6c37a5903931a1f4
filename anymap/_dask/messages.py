"""Tasks as messages that a scheduler passes on unread."""

from __future__ import annotations

import os
import pickle
import threading
from typing import TYPE_CHECKING, Any

import dask.config

from anymap import _worker
from anymap._payload import Parcel
from anymap._worker import Task

if TYPE_CHECKING:
    from collections.abc import Callable

    from distributed import Client
    from distributed import Future as DaskFuture

    from anymap._shipping import Shipment

    Key = tuple[str, int]

_LARGE = 32 * 1024
"""A function of more bytes travels once to each worker instead of with each task; other messages as frames."""


class Call:
    """Pickles to the call of a function: who loads it gets what the function returns."""

    def __init__(self, func: Callable[..., Any], *arguments: Any) -> None:
        self._reduced = func, arguments

    def __reduce__(self) -> tuple[Any, ...]:
        return self._reduced


def pack(task: Task, shipment: Shipment | None) -> tuple[bytes, list[pickle.PickleBuffer]]:
    """Pickle a call that runs ``task``; apart from it what is large and the same for all tasks of its map."""
    parcel = task.spec.function
    apart: list[pickle.PickleBuffer] = []
    function = None
    if isinstance(parcel, Parcel) and parcel.nbytes() > _LARGE:
        task = Task(task.spec._replace(function=None), task.rows, task.count, task.slot, task.budget, task.classes)
        function = parcel._replace(
            data=pickle.PickleBuffer(parcel.data), buffers=[pickle.PickleBuffer(buffer) for buffer in parcel.buffers]
        )
    if shipment is not None:
        shipment = shipment._replace(archive=pickle.PickleBuffer(shipment.archive))  # type: ignore[arg-type]
    call = Call(_worker.run_apart, _worker.dialect(), task, function, shipment)
    return pickle.dumps(call, 5, buffer_callback=apart.append), apart


_config_lock = threading.Lock()


def _renew_lock() -> None:
    # In a forked child: the thread that held it, if one did, is not there any more.
    global _config_lock  # noqa: PLW0603
    _config_lock = threading.Lock()


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_renew_lock)


class _Frame:
    """Bytes that dask carries as they are instead of pickling them again at each station of their way."""

    def __init__(self, data: bytes) -> None:
        self._data = data

    def __reduce__(self) -> tuple[Any, ...]:
        return pickle.PickleBuffer, (pickle.PickleBuffer(self._data),)


def submit(client: Client, message: bytes, key: Key, **buffers: DaskFuture) -> DaskFuture:
    """Have a worker load ``message``.

    All that the scheduler gets to load is of the standard library, so it need have neither anymap nor the caller's
    modules: the message is a pickle that calls a function when it is loaded.
    """
    if len(message) < _LARGE:
        return client.submit(pickle.loads, message, **buffers, key=key, pure=False)
    # Without dask's advice to the author of a large graph: he has written none.
    with _config_lock, dask.config.set({"distributed.admin.large-graph-warning-threshold": 2**62}):
        return client.submit(pickle.loads, _Frame(message), **buffers, key=key, pure=False)
