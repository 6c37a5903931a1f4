"""The test double: a backend whose tasks run when a test says so."""

from __future__ import annotations

import contextlib
import threading
import time
from concurrent.futures import Future
from typing import TYPE_CHECKING, Any, ClassVar, Self

from anymap._host import status_board
from anymap._serialize import packing
from anymap.backends.base import Backend, ChunkLost, Task, Traits

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping

    from anymap._worker.protocol import Answer

__all__ = ["Gate", "Held"]


class Held:
    """A task at the gate, and the future that the engine waits for."""

    def __init__(self, task: Task) -> None:
        self.task = task
        self.future: Future[Answer] = Future()

    def __len__(self) -> int:
        return self.task.count

    @property
    def rows(self) -> list[Any]:
        """The items that the task brings; tuples where the map has several iterables."""
        if self.task.spec.shares_memory:
            return list(self.task.rows)
        opened = packing.unpack(self.task.rows, keep=True)
        return [opened[position] for position in range(len(self))]

    def __repr__(self) -> str:
        return f"Held({self.rows!r})"


class Gate(Backend):
    """A backend that holds every task until the test releases it, fails it or loses it.

    No process and no thread is started. All maps that are given one gate meet at it, so that a test sees what each of
    them submits, and decides what ends when.

    ``workers`` is what a map gets that asks for no number. ``traits`` decide what tasks look like: by default they
    share this process's memory; with ``Traits()`` they travel as bytes, as to other processes.

    Either the map runs in a thread of the test's, which itself calls :meth:`expect`, :meth:`release` and so on. Or the
    map runs in the test, and a ``pilot`` is called whenever the map has nothing to do but wait; it is to end at least
    one of the tasks held, and must not wait for anything:

    >>> from anymap import pmap
    >>> last_first = Gate(pilot=lambda gate: gate.release(-1))
    >>> pmap(abs, [-1, -2, -3], backend=last_first, workers=3, chunksize=1, ordered=False)
    [3, 2, 1]
    """

    name: ClassVar[str] = "gate"

    def __init__(
        self, workers: int = 2, *, traits: Traits | None = None, pilot: Callable[[Gate], object] | None = None
    ) -> None:
        self.workers = self._usual_workers = workers
        self.traits = Traits(shares_memory=True) if traits is None else traits
        self.held: list[Held] = []
        """The tasks that were submitted and have not ended, the oldest first."""
        self.submitted = 0
        """How many tasks there have been."""
        self.closed: list[bool] = []
        """For each map that is over, whether it was left with work to do: ``close(abandon=True)``."""
        self.killed: list[int] = []
        """The process ids that maps had killed."""
        self.abandoned: list[Held] = []
        """The tasks that maps gave up. They are still held: what they bring when they are released must be dropped."""
        self._pilot = pilot
        self._waiting = 0
        self._changed = threading.Condition()
        self._piloting = threading.Lock()
        self._calls = False

    # --- what a test does -----------------------------------------------------------------------------------------

    def expect(self, count: int = 1, *, seconds: float = 10.0) -> list[Held]:
        """Wait until at least ``count`` tasks are held, and return those that are.

        Raises:
            TimeoutError: there were fewer after ``seconds``.
        """
        with self._changed:
            if not self._changed.wait_for(lambda: len(self.held) >= count, seconds):
                raise TimeoutError(f"{len(self.held)} tasks are at the gate after {seconds:g} s, not {count}")
            return self.held[:]

    def release(self, which: int | Held = 0) -> None:
        """Run a held task in this thread, and end its future with the answer."""
        held = self._let_go(which)
        try:
            answer = held.task()
        except BaseException as exc:  # noqa: BLE001 - on any other backend too it would end the future
            held.future.set_exception(exc)
        else:
            held.future.set_result(answer)

    def lose(self, which: int | Held = 0, *, dead: Mapping[int, int | None] | None = None) -> None:
        """End a held task as if its worker had died; ``dead`` is that of :class:`~anymap.backends.ChunkLost`."""
        self.fail(which, ChunkLost("lost at the gate", dead))

    def fail(self, which: int | Held, exc: BaseException) -> None:
        """End a held task's future with ``exc``: anything but ``ChunkLost`` says that the engine broke."""
        self._let_go(which).future.set_exception(exc)

    def cancel(self, which: int | Held = 0) -> None:
        """Cancel a held task's future."""
        self._let_go(which).future.cancel()

    def mark(self, which: int | Held, position: int, *, pid: int = 1, seconds_ago: float = 0.0) -> None:
        """Have the status board say that process ``pid`` has been at row ``position`` of a task for so many seconds."""
        buffer, offset = _place(self._find(which))
        status_board._slot.pack_into(buffer, offset, pid, position, time.monotonic() - seconds_ago)

    # --- the contract ---------------------------------------------------------------------------------------------

    def open(self, workers: int | None) -> None:
        self.workers = workers or self._usual_workers

    def submit(self, task: Task) -> Future[Answer]:
        held = Held(task)
        with self._changed:
            self.held.append(held)
            self.submitted += 1
            self._changed.notify_all()
        self._ask_pilot()
        return held.future

    def poll(self) -> None:
        self._ask_pilot()

    def kill(self, pid: int) -> None:
        self.killed.append(pid)
        for held in self.held[:]:
            if _mark(held).pid == pid:
                self.lose(held, dead={pid: -9})

    def abandon(self, future: Future[Answer]) -> None:
        self.abandoned += [held for held in self.held if held.future is future]

    @contextlib.contextmanager
    def waiting(self) -> Iterator[None]:
        with self._changed:
            self._waiting += 1
        try:
            self._ask_pilot()
            yield
        finally:
            with self._changed:
                self._waiting -= 1

    def close(self, *, abandon: bool) -> None:
        self.closed.append(abandon)

    def fresh(self) -> Self:
        return self

    # --- behind it ------------------------------------------------------------------------------------------------

    def _ask_pilot(self) -> None:
        """Call the pilot, from one thread at a time; a thread that comes meanwhile leaves its call to that one."""
        self._calls = True
        while self._calls and self._piloting.acquire(blocking=False):
            try:
                self._calls = False
                if self._pilot is not None and self._waiting and self.held:
                    self._pilot(self)
            finally:
                self._piloting.release()

    def _find(self, which: int | Held) -> Held:
        return which if isinstance(which, Held) else self.held[which]

    def _let_go(self, which: int | Held) -> Held:
        with self._changed:
            held = self._find(which)
            self.held.remove(held)
            return held


def _place(held: Held) -> tuple[status_board.Buffer, int]:
    """Return the status board of a task's map, and where on it the task's slot is."""
    spec = held.task.spec
    buffer = spec.board if spec.shares_memory else status_board.attach(spec.board)
    return buffer, status_board.HEADER + status_board.SLOT * held.task.slot


def _mark(held: Held) -> status_board.Mark:
    buffer, offset = _place(held)
    return status_board.Mark(*status_board._slot.unpack_from(buffer, offset))
