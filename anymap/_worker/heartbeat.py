"""How far a chunk is on another host: the status board's place is taken by messages.

A worker that shares no memory with the caller keeps a board of its own for each chunk. Five times a second a thread
tells the map, by the channel of its backend, which item each chunk is at and for how long. Quick chunks end unmentioned.
What items tell the map themselves takes the same way.
"""

from __future__ import annotations

import contextlib
import struct
import threading
import time
from typing import TYPE_CHECKING

from anymap._host import live_messages, status_board
from anymap._host.status_board import Mark
from anymap._host.ticker import Ticker

if TYPE_CHECKING:
    from collections.abc import Iterator

    from anymap._worker.channel import Line
    from anymap._worker.task import Task

_INTERVAL = 0.2
"""Seconds between two messages about one chunk."""
_beat = struct.Struct("!cqqqd")
_BEAT = b"B"


# --- the worker's side --------------------------------------------------------------------------------------------


class _Chunk:
    """A chunk that this process is running."""

    def __init__(self, task: Task, board: bytearray, line: Line) -> None:
        self._slot = task.slot
        self._count = task.count
        self._timeout = task.spec.timeout
        self._board = board
        self._line = line
        self._lock = threading.Lock()
        self._last: Mark | None = None
        """What was told last."""
        self._ended = False
        self.outbox = live_messages.Outbox(line.send)

    def beat(self) -> None:
        self.outbox.post()
        # A worker that is leaving cannot send any more; the map hears of its end.
        with self._lock, contextlib.suppress(Exception):
            mark = status_board.read(self._board, 0)
            if self._ended or mark.position < 0:
                return
            seconds = self._tell(mark)
            is_wanted = self._line.is_wanted()
            if not is_wanted:
                status_board.stop(self._board)
            if not is_wanted or self._is_late(mark, seconds):
                self._line.step_aside()

    def end(self) -> None:
        """Tell that no item runs any more, if it was told that one does: that would seem to last until the answer comes."""
        with self._lock, contextlib.suppress(Exception):
            self._ended = True
            if self._last is not None:
                ended = status_board.read(self._board, 0).ended(self._count)
                position = status_board.position_at_end(self._count, ended)
                self._tell(self._last._replace(position=position, began=time.monotonic()))

    def _tell(self, mark: Mark) -> float:
        self._last = mark
        seconds = time.monotonic() - mark.began
        self._line.send(_beat.pack(_BEAT, self._slot, mark.pid, mark.position, seconds))
        return seconds

    def _is_late(self, mark: Mark, seconds: float) -> bool:
        return self._timeout is not None and seconds > self._timeout and mark.position < self._count


_beats = Ticker(_Chunk.beat, _INTERVAL, "anymap-heartbeat")


@contextlib.contextmanager
def beating(task: Task, board: bytearray) -> Iterator[live_messages.Outbox | None]:
    """Tell the map, while this lasts, what ``board`` says in its only slot; yield what takes messages to it.

    Does nothing where there is no listener.
    """
    if task.spec.channel is None:
        yield None
        return
    chunk = _Chunk(task, board, task.spec.channel.connect())
    try:
        with _beats.visiting(chunk):
            yield chunk.outbox
    finally:
        chunk.end()


# --- the map's side -----------------------------------------------------------------------------------------------


class RemoteBoard:
    """A status board that knows what it has been told. Each chunk has a slot that no other ever gets."""

    path = None
    full = False
    told = False

    def __init__(self) -> None:
        self._marks: dict[int, Mark] = {}
        self._next = 0

    def take(self) -> int:
        slot = self._next
        self._next += 1
        self._marks[slot] = status_board.UNTOUCHED
        return slot

    def give_back(self, slot: int) -> None:
        self._marks.pop(slot, None)

    def read(self, slot: int) -> Mark:
        return self._marks.get(slot, status_board.UNTOUCHED)

    def receive(self, message: bytes) -> None:
        """Take in what a worker tells, on whatever thread."""
        _, slot, pid, position, seconds = _beat.unpack(message)
        known = self._marks.get(slot)
        if known is None:  # it has come down meanwhile
            return
        began = time.monotonic() - seconds
        if (known.pid, known.position) == (pid, position):
            # The message that took the shortest time is the nearest to the truth.
            began = min(began, known.began)
        self._marks[slot] = Mark(pid, position, began, told=seconds)

    def cancel(self) -> None:
        """Other hosts cannot be asked; the backend drops their tasks."""

    def close(self) -> None:
        self._marks.clear()
