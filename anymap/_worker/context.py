"""Which task a thread runs, and at which item it is."""

from __future__ import annotations

import contextlib
from contextvars import ContextVar
from typing import TYPE_CHECKING, Any, Protocol

from anymap._config.scope import Scope, around, scope
from anymap._host import status_board
from anymap._worker.protocol import TaskData

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from anymap._worker.protocol import MapSpec


class TaskContext:
    """A thread while it runs a task. Its index among the map's workers is only sought when it is asked for."""

    __slots__ = ("board", "durations", "index", "kept", "leave", "offset", "outbox", "stream", "task", "values")

    def __init__(self, task: TaskData) -> None:
        self.task = task
        self.board: status_board.Buffer | None = None
        self.offset = 0
        """Where on the board it says at which item the chunk is."""
        self.values: list[Any] | None = None
        """Where memory is shared, while rows are run: the results so far. Their number says at which item the chunk is."""
        self.index: int | None = None
        self.durations: dict[int, float] = {}
        """Seconds that each row took, by its position; empty where no sink wants to know."""
        self.outbox: Any = None
        """What was told and is still here; made when there is something."""
        self.stream: tuple[int, Any] | None = None
        """An item that has asked for its random numbers, and their generator."""
        self.kept: dict[int, str] | None = None
        """What items that failed have printed, by position, where it is kept."""
        self.leave: Callable[[], object] | None = None
        """To be called when the chunk has ended."""

    def item(self) -> int | None:
        """Return which item of the map is being run, counted from 0; ``None``: just now none."""
        position = self.position()
        return self.task.start + position if 0 <= position < self.task.count else None

    def position(self) -> int:
        if self.values is not None:
            return len(self.values)
        return -1 if self.board is None else status_board.read_position(self.board, self.offset)

    def keep_output(self, text: str) -> None:
        """Keep what the running item has printed, for the answer."""
        self.kept = {**(self.kept or {}), self.position(): text}

    @property
    def spec(self) -> MapSpec:
        return self.task.spec


class InlineContext(TaskContext):
    """The caller's own thread while it runs the items of a map, of which it is the only worker."""

    __slots__ = ("_tally",)

    def __init__(self, spec: MapSpec, tally: Tally) -> None:
        super().__init__(TaskData(spec, None, 0, 0, None, {}))
        self._tally = tally
        self.index = 0

    def item(self) -> int:
        return self._tally.at

    def position(self) -> int:
        return self._tally.at


class Tally(Protocol):
    """Says at which item a map is."""

    at: int


task_context: ContextVar[TaskContext | None] = ContextVar("anymap_seat", default=None)
task_contexts: list[TaskContext] = []
"""Those of this process whose map listens, but for maps that share its memory: code in threads of its own finds its own here."""


@contextlib.contextmanager
def entered(task: TaskData) -> Iterator[TaskContext]:
    """Have code in here find ``task``, and maps inside of it what they inherit."""
    spec = task.spec
    taken = TaskContext(task)
    token, place = scope.set(Scope((), spec.inherited)), task_context.set(taken)
    is_found = spec.tells is not None and not spec.shares_memory
    if is_found:
        task_contexts.append(taken)
    if not spec.shares_memory:
        around.append(spec.inherited)
    try:
        yield taken
    finally:
        if not spec.shares_memory:
            around.remove(spec.inherited)
        if is_found:
            task_contexts.remove(taken)
        scope.reset(token)
        task_context.reset(place)
        if taken.leave is not None:
            taken.leave()
