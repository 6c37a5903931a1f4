"""What runs out there: one chunk at a time, everything captured, one answer.

A task is a callable without arguments that pickles small and raises nothing of the user's. Whatever engine carries
it, in whatever process, calling it runs the chunk and returns the answer.
"""

from __future__ import annotations

import io
import os
import pickle
import time
from typing import TYPE_CHECKING, Any, NoReturn, Self

from anymap._errors import OUT_OF_MEMORY
from anymap._host import guarded, process_state, status_board
from anymap._serialize import exception_parts, exceptions, packing
from anymap._worker import maps, protocol
from anymap._worker.context import entered, task_context
from anymap._worker.items import run_rows
from anymap._worker.protocol import Answer, TaskData, describe_mismatch, dialect
from anymap._worker.set_up import set_up_process, worker_name

if TYPE_CHECKING:
    from anymap._serialize.modules import Shipment
    from anymap._serialize.object_table import ObjectTable
    from anymap._serialize.packing import Payload, Unpacked
    from anymap._serialize.share import Packed
    from anymap._worker.context import TaskContext
    from anymap._worker.items import Ran
    from anymap._worker.maps import KeptMap
    from anymap._worker.protocol import MapSpec

_WANT_OF_MEMORY = b"anymap: a worker ends because it has no memory left to answer with\n"


class Task(TaskData):
    """One chunk, ready to run anywhere."""

    __slots__ = ()

    def __call__(self) -> Answer:
        return run(self)

    def __reduce__(self) -> tuple[Any, ...]:
        # As bytes: engines that pickle with dill or cloudpickle would walk through the whole task.
        return load_task, (protocol.PROTOCOL, pickle.dumps((self.spec, self.rows, *self._rest()), 5))

    def replaced(self, spec: MapSpec, rows: Any) -> Self:
        """Return the same task with another spec and other rows."""
        return type(self)(spec, rows, *self._rest())

    def _rest(self) -> tuple[Any, ...]:
        return self.count, self.slot, self.budget, self.classes, self.start, self.may_fail


def load_task(spoken: int, data: bytes) -> Task:
    if spoken != protocol.PROTOCOL:
        message = (
            f"this worker speaks protocol {protocol.PROTOCOL}, the caller {spoken}: install the same anymap on both"
        )
        raise RuntimeError(message)
    return Task(*pickle.loads(data))


def run_apart(
    spoken: tuple[int, int, int],
    task: Task,
    function: Payload | None,
    shipment: Shipment | None,
    shared: dict[str, Packed],
) -> bytes:
    """Run a task that another host sent; return the pickled answer.

    What other tasks need too came apart from it: the modules, the function if it is large, what is shared between maps.
    In the place of the data of each is a list of its parts.
    """
    if spoken != dialect():
        raise RuntimeError(describe_mismatch(spoken, dialect()))
    if shipment is not None:
        from anymap._serialize import modules  # noqa: PLC0415 - as with heartbeat

        modules.install(shipment._replace(archive=shipment.archive[0]))  # type: ignore[arg-type]
    if function is not None:
        data, *buffers = function.data
        task.spec = task.spec._replace(function=function._replace(data=data, buffers=buffers))
    if not shared:
        return pickle.dumps(task(), 5)
    from anymap._serialize import share as _share  # noqa: PLC0415 - as with heartbeat

    with _share.present(shared):
        return pickle.dumps(task(), 5)


def run_task(data: bytes) -> bytes:
    """Run a task in a worker: one of an engine that takes no more than functions and bytes.

    ``data`` is what :meth:`anymap.backends.TaskCodec.encode` returned; its ``decode`` takes what this returns.
    """
    file = io.BytesIO(data)
    spoken, path, shipped = pickle.load(file)
    if spoken != dialect():
        raise RuntimeError(describe_mismatch(spoken, dialect()))
    if path or shipped:
        from anymap._serialize import modules  # noqa: PLC0415 - as with heartbeat

        modules.extend_path(path)
        if shipped:
            modules.install(modules.Shipment(*shipped))
    return pickle.dumps(pickle.load(file)(), 5)


def run(task: Task) -> Answer:
    spec = task.spec
    if spec.shares_memory:
        return _answer_in_memory(task)
    if spec.parent:
        set_up_process(spec.parent)
    try:
        if spec.process_state is not None and os.getpid() != spec.parent:
            process_state.take_over(spec.map_id, spec.process_state)
        with entered(task) as taken:
            if spec.tells is not None and spec.board is not None:
                # What is told while the function is loaded is to be waited for, too.
                taken.board, taken.offset = maps.attached(spec.board), status_board.item_offset(task.slot)
            if spec.environment is None:
                return _with_extras(_answer_or_broken(task), taken)
            spec.environment.settle()
            with spec.environment.over(taken):
                return _with_extras(_answer_or_broken(task), taken)
    except BaseException as exc:  # noqa: BLE001 - an engine may not survive an error
        return _broken(task, exc)


def _answer_or_broken(task: Task) -> Answer:
    # Here, as contextlib's managers set attributes of what passes through them, which its class may refuse.
    try:
        return _answer_or_end(task, maps.find(task))
    except BaseException as exc:  # noqa: BLE001 - loading runs the user's code
        return _broken(task, exc)


def _broken(task: Task, exc: BaseException) -> Answer:
    traceback = guarded.get(exc, "__traceback__")
    guarded.put(exc, "__traceback__", exceptions.users_part(traceback) or traceback)
    broken = exceptions.encode(exc, exception_parts.dumps)
    return Answer(0, None, [], 0.0, 0.0, 0.0, worker_name(task.spec), task.slot, broken)


def _with_extras(answer: Answer, taken: TaskContext) -> Answer:
    """Add to an answer what most are without."""
    if taken.outbox is None and not taken.durations and taken.kept is None:
        return answer
    told = taken.outbox and taken.outbox.empty()
    return answer._replace(told=told, durations=taken.durations or None, kept=taken.kept)


def _answer_in_memory(task: Task) -> Answer:
    with entered(task) as taken:
        ran = run_rows(task, task.spec.function, task.rows, task.spec.board, task.slot)
        return _with_extras(_made_of(task, ran, ran.values, ran.failures), taken)


def _made_of(task: Task, ran: Ran, values: Any, failures: list[tuple[int, Any, float]]) -> Answer:
    worker = worker_name(task.spec)
    return Answer(
        ran.done,
        values,
        failures,
        ran.seconds,
        ran.longest,
        ran.cpu,
        worker,
        task.slot,
        slowest=ran.slowest,
        queued=ran.queued,
    )


def _answer_or_end(task: Task, kept: KeptMap) -> Answer:
    """Answer. A worker that has no memory left for that ends, and is replaced."""
    try:
        answer = _answer_in_bytes(task, kept, _rows(task))
        packing.prove_memory_to_send(answer.values)
    except MemoryError:
        if task.spec.parent in {0, os.getpid()}:
            raise
        if task.count == 1 and kept.board is not None:
            # It did not run any more, but it is to blame.
            status_board.write_item(kept.board, status_board.item_offset(task.slot), 0, time.monotonic())
        end_for_want_of_memory()
    return answer


def end_for_want_of_memory() -> NoReturn:
    """End this process, in which nothing can be relied on any more, without needing memory for it."""
    os.write(2, _WANT_OF_MEMORY)
    os._exit(OUT_OF_MEMORY)


def _rows(task: Task) -> list[Any] | Unpacked | _NotLoaded:
    try:
        return packing.unpack(task.rows)
    except MemoryError as exc:
        if task.count > 1:  # the item that needs too much of it is found when they come one by one
            raise
        return _NotLoaded(exc)


class _NotLoaded:
    """Stands for the row of a chunk that could not be loaded."""

    def __init__(self, reason: MemoryError) -> None:
        self._reason = reason

    def __getitem__(self, position: int) -> NoReturn:
        raise self._reason


def _answer_in_bytes(task: Task, kept: KeptMap, rows: list[Any] | Unpacked | _NotLoaded) -> Answer:
    ran = _run_on_board(task, kept, rows)

    def dumps(value: Any) -> bytes:
        return packing.dumps(value, kept.classes)

    payload, refused = _pack_results(ran.values, kept.classes, to_file=task.spec.spool is not None)
    failures = [(position, exceptions.encode(exc, dumps), seconds) for position, exc, seconds in ran.failures]
    failures += [(position, exceptions.encode(exc, dumps), 0.0) for position, exc in refused.items()]
    values = packing.spill(payload, task.spec.spool)
    return _made_of(task, ran, values, failures)


def _run_on_board(task: Task, kept: KeptMap, rows: list[Any] | Unpacked | _NotLoaded) -> Ran:
    if kept.board is not None:
        return run_rows(task, kept.func, rows, kept.board, task.slot)
    board = bytearray(status_board.HEADER + status_board.SLOT)
    from anymap._worker import heartbeat  # noqa: PLC0415 - what workers of this host do without, they need not import

    with heartbeat.beating(task, board) as outbox:
        if outbox is not None and (taken := task_context.get()) is not None:
            earlier, taken.outbox = taken.outbox, outbox
            for message in earlier.empty() if earlier is not None else ():
                outbox.put(message)
        return run_rows(task, kept.func, rows, board, 0)


def _pack_results(values: list[Any], classes: ObjectTable, *, to_file: bool) -> tuple[Payload, dict[int, Exception]]:
    payload, refused = packing.pack(values, classes, to_file=to_file)
    return payload, {position: _blame("result", exc) for position, exc in refused.items()}


def _blame(what: str, exc: Exception) -> Exception:
    renamed = type(exc)(f"the {what} cannot be sent back: {exc}")
    renamed.__cause__ = exc.__cause__
    return renamed
