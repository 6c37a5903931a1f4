"""Hands messages to a dask scheduler."""

from __future__ import annotations

import pickle
from typing import TYPE_CHECKING, Any

import dask.config

from anymap._host import forks

if TYPE_CHECKING:
    from distributed import Client
    from distributed import Future as DaskFuture

    Key = tuple[str, int]

_LARGE = 32 * 1024
"""Messages of more bytes travel as frames."""
_config_lock = forks.Lock()


class _Frame:
    """Bytes that dask carries as they are instead of pickling them again at each station of their way."""

    def __init__(self, data: bytes) -> None:
        self._data = data

    def __reduce__(self) -> tuple[Any, ...]:
        return pickle.PickleBuffer, (pickle.PickleBuffer(self._data),)


def submit(client: Client, message: bytes, key: Key, **buffers: list[DaskFuture]) -> DaskFuture:
    """Have a worker load ``message``, with the results of other tasks in its gaps, if it has any.

    All that the scheduler gets to load is of the standard library, so it need have neither anymap nor the caller's
    modules: the message is a pickle that calls a function when it is loaded.
    """
    if len(message) < _LARGE:
        return client.submit(pickle.loads, message, **buffers, key=key, pure=False)
    # Without dask's advice to the author of a large graph: the user has written none.
    with _config_lock, dask.config.set({"distributed.admin.large-graph-warning-threshold": 2**62}):
        return client.submit(pickle.loads, _Frame(message), **buffers, key=key, pure=False)
