"""Tasks as messages that a scheduler passes on unread."""

from __future__ import annotations

import pickle
from typing import TYPE_CHECKING, Any

from anymap._serialize.packing import Payload, SpilledPayload
from anymap._worker.protocol import dialect
from anymap.backends._dask import in_task

if TYPE_CHECKING:
    from collections.abc import Callable

    from distributed import Future as DaskFuture

    from anymap._serialize.modules import Shipment
    from anymap._worker.task import Task
    from anymap.backends._dask.scattered import Store
    from anymap.backends._dask.worker_slots import WorkerSlots

_LARGE = 32 * 1024
"""A function of more bytes travels once to each worker instead of with each task."""


class Call:
    """Pickles to the call of a function: loading it gives what the function returns."""

    def __init__(self, func: Callable[..., Any], *arguments: Any) -> None:
        self._reduced = func, arguments

    def __reduce__(self) -> tuple[Any, ...]:
        return self._reduced


def pack(
    task: Task, shipment: Shipment | None, places: WorkerSlots | None, store: Store
) -> tuple[bytes, list[DaskFuture]]:
    """Pickle a call that runs ``task``; return with it what is apart from it: the results that it is to be loaded with.

    ``places`` is by what workers on other hosts find out which of them has which number.
    """
    spec = task.spec if places is None else task.spec._replace(places=places)
    references = {*_left_out(spec.function), *_left_out(task.rows)}
    spec = spec._replace(function=_alone(spec.function))
    apart: list[DaskFuture] = []
    # What fills the gaps comes in the order in which they are pickled: that of the call's arguments.
    function = None
    if isinstance(spec.function, Payload) and spec.function.nbytes() > _LARGE:
        apart.append(store.hold("function", spec.function.data, *spec.function.buffers))
        function, spec = spec.function._replace(data=_gap(), buffers=()), spec._replace(function=None)
    if shipment is not None:
        apart.append(store.hold("modules", shipment.archive))
        shipment = shipment._replace(archive=_gap())
    shared = {}
    for key, carried in store.carry_all(references).items():
        apart.append(carried.parts)
        shared[key] = carried.packed._replace(payload=carried.payload._replace(data=_gap(), left_out=()))
    task = task.replaced(spec, _alone(task.rows))
    call = Call(in_task.run_apart, dialect(), task, function, shipment, shared)
    return pickle.dumps(call, 5, buffer_callback=_leave_out), apart


def _left_out(payload: Payload | SpilledPayload) -> tuple[Any, ...]:
    return payload.left_out if isinstance(payload, Payload) else ()


def _alone(payload: Payload | SpilledPayload) -> Payload | SpilledPayload:
    """Return the payload without what it left out, which is not to be pickled with it."""
    return payload._replace(left_out=()) if isinstance(payload, Payload) and payload.left_out else payload


def _gap() -> Any:
    """Return what stands in a pickle for an object that the loading process has: it need be no buffer there."""
    return pickle.PickleBuffer(bytearray(1))


def _leave_out(_: pickle.PickleBuffer) -> None:
    pass
