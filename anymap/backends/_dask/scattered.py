"""What many tasks need, kept on the cluster: each worker that runs one of them fetches it once."""

from __future__ import annotations

import itertools
import pickle
import threading
from typing import TYPE_CHECKING, Any, NamedTuple

from anymap._serialize import packing
from anymap.backends._dask import submission

if TYPE_CHECKING:
    from collections.abc import Iterable

    from distributed import Client
    from distributed import Future as DaskFuture

    from anymap._serialize.packing import Payload
    from anymap._serialize.share import Packed, Shared

_GONE = {"error", "cancelled", "lost"}
_numbers = itertools.count()


class Carried(NamedTuple):
    """What is shared between maps, and is on a cluster."""

    packed: Packed
    """Without its data."""
    parts: DaskFuture
    """The list of them."""

    @property
    def payload(self) -> Payload:
        assert isinstance(self.packed.payload, packing.Payload)  # noqa: S101 - so it was packed for us
        return self.packed.payload


class Store:
    """One map's: what belongs to the map goes with it, what is shared stays for as long as its handle and the client."""

    def __init__(self, client: Client, map_name: str) -> None:
        self._client = client
        self._map = map_name
        self._lock = threading.Lock()
        self._held: dict[str, DaskFuture] = {}

    def hold(self, name: str, *parts: Any) -> DaskFuture:
        """Have something of the map's on the cluster, under a name, until the map is over."""
        with self._lock:
            held = self._held.get(name)
            if held is None or held.status in _GONE:
                held = self._held[name] = self._put(f"{self._map}-{name}", parts)
            return held

    def carry(self, handle: Shared[Any]) -> Carried:
        """Have what a handle stands for on the cluster, until the handle is closed."""
        with handle.lock:
            carried: Carried | None = handle.copies.get(self._client)
            if carried is None or carried.parts.status in _GONE:
                packed = handle.for_engine()
                payload = packed.payload
                assert isinstance(payload, packing.Payload)  # noqa: S101 - as above
                parts = self._put(f"anymap-share-{handle.key}", (payload.data, *payload.buffers))
                carried = Carried(packed._replace(payload=payload._replace(data=b"", buffers=())), parts)
                handle.carried(self._client, carried)
            return carried

    def carry_all(self, handles: Iterable[Shared[Any]]) -> dict[str, Carried]:
        """Have on the cluster what the handles stand for, and those inside of that; return it by their keys."""
        found: dict[str, Carried] = {}
        waiting = list(handles)
        while waiting:
            handle = waiting.pop()
            if handle.key not in found:
                found[handle.key] = carried = self.carry(handle)
                waiting += carried.payload.left_out
        return found

    def _put(self, name: str, parts: Iterable[Any]) -> DaskFuture:
        """Put it there as the result of a task: that can be had again after a death."""
        # Read-only they are pickled as bytes, which dask sends from worker to worker as they are.
        frames = [pickle.PickleBuffer(packing._raw(part).toreadonly()) for part in parts]
        return submission.submit(self._client, pickle.dumps(frames, 5), (name, next(_numbers)))

    def close(self) -> None:
        for held in self._held.values():
            held.release()
