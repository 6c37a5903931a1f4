"""How chunks become tasks and answers become results: as they are in one process, packed between several."""

from __future__ import annotations

import os
import warnings
from functools import partial
from typing import TYPE_CHECKING, Any, Protocol

from anymap._config.layers import portable
from anymap._engine.callers import callers_level
from anymap._errors import NotPicklable
from anymap._host import guarded, live_messages, process_state, status_board, workspace
from anymap._propagate import item_environment
from anymap._serialize import exceptions, modules, object_table, packing
from anymap._worker import heartbeat
from anymap._worker.context import task_context
from anymap._worker.protocol import MapSpec
from anymap._worker.task import Task

if TYPE_CHECKING:
    from collections.abc import Callable

    from anymap._engine.ledger import Chunk
    from anymap._engine.plan import Plan
    from anymap._engine.telemetry.router import MessageRouter
    from anymap._serialize.object_table import ObjectTable
    from anymap._worker.protocol import Answer
    from anymap.backends.base import Backend, Channel, Traits

    Around = Callable[[Callable[..., Any]], Callable[..., Any]]

_LARGE_FUNCTION = 64 * 1024 * 1024


class Refused(Exception):  # noqa: N818 - carries values; it never reaches the user
    """Rows of a chunk cannot be sent."""

    def __init__(self, errors: dict[int, Exception]) -> None:
        self.errors = errors
        super().__init__(errors)


class Codec(Protocol):
    """Makes tasks of chunks, and results of answers."""

    @property
    def board(self) -> status_board.Board | heartbeat.RemoteBoard: ...

    def task(self, chunk: Chunk, slot: int, budget: float | None, may_fail: int | None = None) -> Task: ...

    def weight(self, packed: Any) -> int:
        """Return how many bytes a task's rows, or an answer's values, are."""
        ...

    def values(self, answer: Answer) -> tuple[list[Any], dict[int, Exception]]: ...

    def error(self, raised: Any) -> Exception: ...

    def close(self, *, clean: bool) -> None:
        """``clean``: every task has been answered, and runs nowhere any more."""
        ...


def make_codec(plan: Plan, router: MessageRouter, around: Around | None = None) -> Codec:
    """Return the codec for the plan's backend, which is open.

    Live messages of tasks go to the ``router``; ``around`` wraps the function where it runs.
    """
    make = InMemory if plan.backend.traits.shares_memory else InBytes
    return make(plan, router, around)


class InMemory:
    """For workers that are threads of this process: nothing is copied."""

    def __init__(self, plan: Plan, router: MessageRouter, around: Around | None) -> None:
        self.board = status_board.Board(None)
        self._spec = MapSpec(
            map_id="",
            function=plan.func,
            star=plan.star,
            board=self.board.buffer,
            channel=None,
            timeout=plan.timeout,
            spool=None,
            parent=os.getpid(),
            shares_memory=True,
            inherited=plan.config.passed_on(plan.backend.workers),
            places=[None] * plan.backend.workers,
            tells=router.tells_in_memory(),
            environment=item_environment.make(plan.backend, plan.environment_settings, plan.seed),
            around=around,
            outer=task_context.get(),
        )

    def task(self, chunk: Chunk, slot: int, budget: float | None, may_fail: int | None = None) -> Task:
        return Task(self._spec, chunk.rows, len(chunk), slot, budget, {}, chunk.start, may_fail)

    def weight(self, packed: Any) -> int:  # noqa: ARG002 - it stays where it is
        return 0

    def values(self, answer: Answer) -> tuple[list[Any], dict[int, Exception]]:
        return answer.values, {}

    def error(self, raised: Any) -> Exception:
        return exceptions.as_exception(raised)

    def close(self, *, clean: bool) -> None:  # noqa: ARG002 - there is nothing that could be kept
        self.board.close()


class InBytes:
    """For workers that are other processes, here or elsewhere."""

    def __init__(self, plan: Plan, router: MessageRouter, around: Around | None) -> None:
        remote = plan.backend.traits.remote
        self._classes = object_table.sender_table(_route(plan.backend.traits))
        function = _pack_function(plan.func, self._classes, to_file=not remote)
        environment = item_environment.make(plan.backend, plan.environment_settings, plan.seed)
        tells = router.tells_in_bytes(remote=remote)
        self._workspace = None if remote else workspace.take(plan.backend.workers)
        self._used_folder = False
        """A file was written to it, or nearly. Else the workspace is as it was, and need not be searched for what is left."""
        self._folder = self._workspace.folder if self._workspace is not None else None
        self.board = self._workspace.board if self._workspace is not None else heartbeat.RemoteBoard()
        is_ours = not (remote or plan.backend.traits.borrowed)
        self._spec = MapSpec(
            map_id=self._classes.map_id,
            function=self._spilled(function),
            star=plan.star,
            board=self.board.path,
            channel=_channel(plan, self.board, router if tells is not None else None),
            timeout=plan.timeout,
            spool=self._folder,
            parent=os.getpid() if is_ours else 0,
            shares_memory=False,
            inherited=portable(plan.config.passed_on(plan.backend.workers)),
            places=None if remote else plan.backend.workers,
            tells=tells,
            environment=environment,
            process_state=_process_state(plan.backend) if is_ours else None,
            around=around,
        )

    def task(self, chunk: Chunk, slot: int, budget: float | None, may_fail: int | None = None) -> Task:
        payload, refused = packing.pack(chunk.rows, self._classes, to_file=self._folder is not None)
        if refused:
            raise Refused(refused)
        rows = self._spilled(payload)
        return Task(self._spec, rows, len(chunk), slot, budget, dict(self._classes.blobs), chunk.start, may_fail)

    def _spilled(self, payload: packing.Payload) -> packing.Payload | packing.SpilledPayload:
        self._note_if_large(payload)
        return packing.spill(payload, self._folder)

    def _note_if_large(self, payload: Any) -> None:
        # Not by |=, which could undo what another thread notes meanwhile.
        if packing.is_large(payload):
            self._used_folder = True

    def weight(self, packed: Any) -> int:
        size: int = packed.nbytes()
        return size

    def values(self, answer: Answer) -> tuple[list[Any], dict[int, Exception]]:
        self._note_if_large(answer.values)
        opened = packing.unpack(answer.values)
        if isinstance(opened, list):
            return opened, {}
        return _load_each(opened)

    def error(self, raised: Any) -> Exception:
        return exceptions.decode(raised)

    def close(self, *, clean: bool) -> None:
        if self._workspace is None:
            self.board.close()
        else:
            workspace.give_back(self._workspace, clean=clean and (not self._used_folder or self._workspace.is_bare()))


def _route(traits: Traits) -> object_table.Route:
    """Say how what is shared between maps gets to the workers."""
    if traits.remote:
        return "engine" if traits.carries else "value"
    # Forks that were made earlier have not seen what has been shared since.
    return "fork" if traits.forks and not traits.borrowed else "file"


def _process_state(backend: Backend) -> bytes:
    return process_state.since_start() if backend.starts_anew else process_state.current(modules.caller_path())


def _channel(
    plan: Plan, board: status_board.Board | heartbeat.RemoteBoard, router: MessageRouter | None
) -> Channel | None:
    """Have workers tell how far they are, where only messages can and a sink or a timeout needs it."""
    if not isinstance(board, heartbeat.RemoteBoard):
        return None
    if plan.timeout is None and not plan.sinks and router is None:
        return None
    channel = plan.backend.channel(partial(_receive, board, router))
    if channel is None and plan.backend.traits.live:
        raise RuntimeError(f"backend {plan.backend.name!r} is declared live, and has no channel")
    return channel


def _receive(board: heartbeat.RemoteBoard, router: MessageRouter | None, message: bytes) -> None:
    if not message.startswith(live_messages.BUNDLE):
        board.receive(message)
    elif router is not None:
        router.receive_bundle(message)


def _load_each(opened: packing.Unpacked) -> tuple[list[Any], dict[int, Exception]]:
    values: list[Any] = []
    errors: dict[int, Exception] = {}
    for position in range(len(opened)):
        try:
            values.append(opened[position])
        except Exception as exc:  # noqa: BLE001 - __setstate__ and the like are the user's
            values.append(None)
            errors[position] = exc
            guarded.add_note(exc, "anymap: raised here, while the item's result was being loaded")
    return values, errors


def _pack_function(func: Any, classes: ObjectTable, *, to_file: bool) -> packing.Payload:
    payload, refused = packing.pack_function(func, classes, to_file=to_file)
    if refused:
        message = f"the function {_name(func)!r} cannot be sent to other processes: {refused[0]}"
        raise NotPicklable(message) from refused[0].__cause__
    if payload.nbytes() > _LARGE_FUNCTION:
        warnings.warn(_describe_large(func, payload.nbytes()), stacklevel=callers_level())
    return payload


def _describe_large(func: Any, nbytes: int) -> str:
    parts = sorted(((_size(part), where.lstrip(".")) for where, part in packing.function_parts(func)), reverse=True)
    largest = ", ".join(f"{where} ({size / 2**20:.0f} MB)" for size, where in parts[:3] if size > 2**20)
    return (
        f"the function {_name(func)!r} drags {nbytes / 2**20:.0f} MB along to every worker: {largest or 'many small things'}. "
        "Pass such data as an item, or let the function read it where it runs."
    )


def _name(func: Any) -> str:
    return str(getattr(func, "__qualname__", type(func).__qualname__))


def _size(part: object) -> int:
    payload, refused = packing.pack([part], object_table.sender_table())
    return 0 if refused else payload.nbytes()
