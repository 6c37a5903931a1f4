"""The contract between the engine and a backend.

A backend takes tasks and returns futures. It knows nothing of items, order, retries, chunks or progress: those are
the engine's, and so they mean the same everywhere.
"""

from __future__ import annotations

import abc
import contextlib
import copy
from dataclasses import dataclass
from typing import TYPE_CHECKING, ClassVar, Self

from anymap._worker.channel import Channel, Line
from anymap._worker.protocol import Answer
from anymap._worker.task import Task

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping
    from concurrent.futures import Future
    from contextlib import AbstractContextManager

__all__ = ["Answer", "Backend", "Channel", "ChunkLost", "Line", "Task", "Traits"]


@dataclass(frozen=True, slots=True, kw_only=True)
class Traits:
    """What the engine may ask of a backend once it is open. The shared exam holds a backend to its answers."""

    shares_memory: bool = False
    """Tasks run in this process: objects are handed over as they are, nothing is pickled."""
    remote: bool = False
    """Workers may be on other machines: neither files nor shared memory of this host reach them."""
    live: bool = False
    """Tasks can send messages while they run: ``channel`` is implemented. Only asked where ``remote``."""
    inline: bool = False
    """The engine calls the function itself, in the caller's own thread; ``submit``, which then only the exam calls, returns
    when the task has run. Goes with ``shares_memory``."""
    kills: bool = False
    """``kill_task`` ends the worker that runs a task, and the task's future ends with ``ChunkLost``."""
    sees_death: bool = True
    """The future of a task whose worker died ends with ``ChunkLost`` instead of staying open for ever."""
    breaks: bool = False
    """The engine does not survive its first dead worker: all futures end with ``ChunkLost``, then ``submit`` raises."""
    borrowed: bool = False
    """The engine is the user's and does other work too: nothing is changed in its workers."""
    carries: bool = False
    """Where ``remote``: the backend carries what :func:`anymap.share` made, once to each worker that needs it. Tasks
    come to it without, and it is in the ``left_out`` of their payloads. Elsewhere that goes by value."""
    forks: bool = False
    """Workers are forks of this process, with whatever locks its other threads held at that moment."""


class ChunkLost(Exception):  # noqa: N818 - it says what became of a task, not that the backend erred
    """Ends a task's future when its worker died or the engine dropped the task.

    ``dead`` maps the process ids known to have died to their exit codes (negative: a signal; ``None``: unknown).
    Leave it out where the engine tells no more than that something died: the items that may have done it are then
    run again one by one.
    """

    def __init__(self, cause: str, dead: Mapping[int, int | None] | None = None) -> None:
        self.cause = cause
        self.dead = dead
        super().__init__(cause)


class Backend(abc.ABC):
    """Where tasks run. Subclass it, implement ``open``, ``submit`` and ``close``, declare ``traits``.

    An instance carries the options of its constructor and may be given to many maps, also at the same time: each
    map opens a copy of its own (:meth:`fresh`), so ``open`` may keep what it likes on ``self``.

    A task is a picklable callable without arguments. Call it where the work shall run and hand its return value back
    through the future, untouched. It raises nothing of the user's: whatever the user's function does, including
    ``SystemExit``, comes back inside the answer.

    A future ends exactly once:

    * with the answer that the task returned;
    * with :class:`ChunkLost` when the worker died (a cancelled future counts as lost too);
    * with any other exception when the engine itself broke: the map then stops with that exception.
    """

    name: ClassVar[str]
    """The name it is registered under."""
    traits: Traits = Traits()
    """Set on the class or, where it depends on the options or the engine, by ``open``; ``shares_memory`` and ``inline``
    are known before."""
    workers: int = 1
    """How many tasks run at once; set by ``open``."""

    starts_anew: bool = False
    """The workers were started in the current folder of now, with the variables and the ``sys.path`` of now, or forked;
    set by ``open``. Others are told these with each task."""

    inner_threads: int | None = None
    """How many threads numerical libraries may use in each worker; ``None``: an even share of the CPUs. Set before ``open``."""
    idle_timeout: float = 60.0
    """Seconds for which workers without work are kept, where they outlive a map. Set before ``open``."""

    @abc.abstractmethod
    def open(self, workers: int | None) -> None:
        """Get ready to run ``workers`` tasks at a time; ``None``: as many as this backend thinks right.

        May return before the workers are up. Raises :class:`~anymap.BackendConnectionError` if there is an engine to
        be reached and it cannot be.
        """

    def expected_traits(self, workers: int | None) -> Traits:  # noqa: ARG002 - subclasses may depend on it
        """Return the traits that it will have once it is open with so many workers, as far as that is known before."""
        return self.traits

    def expected_workers(self, workers: int | None) -> int | None:
        """Return how many tasks ``open(workers)`` will run at a time, and start nothing.

        ``None``: that is only known once the backend is open, as it is with a cluster.
        """
        return workers

    @abc.abstractmethod
    def submit(self, task: Task) -> Future[Answer]:
        """Queue one task. Called from several threads, never after ``close``."""

    @abc.abstractmethod
    def close(self, *, abandon: bool) -> None:
        """Give back what ``open`` took. Called once, also after an ``open`` that failed half-way.

        What it raises ends no map: it becomes a note of the error that came first, or is logged.

        ``abandon`` says that tasks are still queued or running and their answers are not wanted: drop the queued ones,
        stop the running ones if that can be done, and return promptly in any case.
        """

    def capacity(self) -> int:
        """How many tasks can run at once now. Read again at each fill; 0: none yet."""
        return self.workers

    def poll(self) -> None:
        """Look after the engine. Called about ten times a second, from one thread, while the map lasts."""

    def kill_task(self, future: Future[Answer], pid: int) -> None:  # noqa: ARG002 - for engines that know their tasks
        """End the worker that runs the task of ``future``: process ``pid`` of its host. Only called where ``traits.kills``.

        Override this where the engine ends tasks, as on other machines, and :meth:`kill` where it ends processes.
        """
        self.kill(pid)

    def kill(self, pid: int) -> None:
        """End the worker process ``pid``, which runs a task of ours. Only called by :meth:`kill_task`."""
        raise NotImplementedError

    def abandon(self, future: Future[Answer]) -> None:
        """No map waits for this task any more, and it may be stuck: fill its place if that can be done.

        Only called where ``traits.kills`` is false. Whatever the future brings later is dropped.
        """
        future.cancel()

    def channel(self, receive: Callable[[bytes], object]) -> Channel | None:  # noqa: ARG002 - for backends that can
        """Return what tasks can send messages with while they run; ``None``: there is only their answer.

        Called at most once, after ``open``. ``receive`` may be called on any thread, until ``close`` returns. What a task has
        sent should be received before its future ends: of what comes later, some is dropped.
        """
        return None

    def waiting(self) -> AbstractContextManager[object]:
        """Enclose each blocking wait of the map's caller."""
        return contextlib.nullcontext()

    def __repr__(self) -> str:
        import inspect  # noqa: PLC0415 - takes longer to import than a small map to run

        shown = []
        for name, parameter in inspect.signature(type(self)).parameters.items():
            value = getattr(self, name, getattr(self, f"_{name}", parameter.default))
            if repr(value) != repr(parameter.default):
                shown.append(f"{name}={value!r}")
        return f"{type(self).__name__}({', '.join(shown)})"

    def fresh(self) -> Self:
        """Return an unopened copy with the same options."""
        return copy.copy(self)
