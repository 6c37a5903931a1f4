"""The status board: where a running chunk says how far it is, without a message.

One page of memory a map, shared through a file where workers are other processes. It begins with one byte that asks
all workers to stop, and one that says whether any has told the map something; then each chunk in flight has a slot: the process that runs it, the position of the item it is
at, and when that item began. A dead worker's slot still says which item it was at.
"""

from __future__ import annotations

import mmap
import os
import struct
import time
from collections import deque
from contextlib import suppress
from functools import partial
from typing import TYPE_CHECKING, NamedTuple

from anymap._host import spill
from anymap._host.descriptors import Descriptor

if TYPE_CHECKING:
    import io

HEADER = SLOT = 64  # a cache line each, so that two workers never write to the same one
SLOTS = 1023
_PAGE = 4096
_STOP, _TOLD = 0, 1

Buffer = bytearray | mmap.mmap

_slot = struct.Struct("qqd")
_pid = struct.Struct("q")
_item = struct.Struct("qd")
write_item = _item.pack_into
"""``write_item(buffer, item_offset(slot), position, now)``: called often, so it is no method."""
SILENCE = 1.0
"""Seconds. A worker that has told nothing for so long is still at the item that it told of: it keeps all of its process busy."""


class Mark(NamedTuple):
    """What a slot says."""

    pid: int
    """0: no worker has taken the chunk up yet."""
    position: int
    """-1: no item has begun. The chunk's size: all have ended. Above: none runs any more, and see :meth:`ended`."""
    began: float
    """When that item began, on the clock of ``time.monotonic``, which all processes of a host share."""
    told: float | None = None
    """Where the board cannot be seen: for how many seconds the item had run when that was told. It may have ended since."""

    def ended(self, count: int) -> int:
        """Return how many items of a chunk of so many have ended."""
        return self.position - count - 1 if self.position > count else max(self.position, 0)

    def seconds(self) -> float:
        """Return for how long the item has run, as far as that is known."""
        elapsed = time.monotonic() - self.began
        return elapsed if self.told is None else max(self.told, elapsed - SILENCE)


_BLANK = 0, -1, 0.0
UNTOUCHED = Mark(*_BLANK)


class Board:
    """The parent's side: hands out slots and reads them."""

    def __init__(self, folder: str | None, slots: int = SLOTS) -> None:
        """Make a board in a file in ``folder``, or in this process's memory where that is ``None``.

        It has so many slots at least. Raises ``OSError`` where there is no room for the file.
        """
        size = _PAGE * -(-(HEADER + SLOT * slots) // _PAGE)
        self.path: str | None = None
        self.buffer: Buffer
        if folder is None:
            self.buffer = bytearray(size)
        else:
            self.path, (self.buffer, self._descriptor) = spill.write_file(folder, partial(_lay_out, size=size))
        self.slots = (size - HEADER) // SLOT
        self._free = deque(range(self.slots))

    @property
    def full(self) -> bool:
        return not self._free

    def take(self) -> int:
        slot = self._free.popleft()
        _slot.pack_into(self.buffer, HEADER + SLOT * slot, *_BLANK)
        return slot

    def give_back(self, slot: int) -> None:
        self._free.append(slot)

    def read(self, slot: int) -> Mark:
        return read(self.buffer, slot)

    @property
    def told(self) -> bool:
        """A worker has sent the map a message."""
        return bool(self.buffer[_TOLD])

    def cancel(self) -> None:
        """Ask every worker to stop after the item it is at."""
        stop(self.buffer)

    def wipe(self) -> None:
        """Make the board as good as new, for another map."""
        self.buffer[:] = bytes(len(self.buffer))
        self._free = deque(range(self.slots))

    def close(self) -> None:
        if self.path is not None:
            # At the interpreter's exit the folder goes first, and it stays where it is of a user that the program was before.
            with suppress(FileNotFoundError, PermissionError):
                os.unlink(self.path)
            # Now, and not when garbage is next collected: it holds a file descriptor. A thread may still read.
            mapped, self.buffer = self.buffer, bytearray(len(self.buffer))
            if not self._descriptor.is_ours():
                _lost.append(mapped)
                return
            self._descriptor.close()
            if isinstance(mapped, mmap.mmap):
                with suppress(BufferError):
                    mapped.close()


_lost: list[Buffer] = []
"""Boards whose descriptors the program has closed. Each would close one of that number when it is collected."""


def _lay_out(file: io.FileIO, size: int) -> tuple[mmap.mmap, Descriptor]:
    # To write what the file system has no room for is an error; to touch it in mapped memory would be the end of us.
    spill.write_all(file, memoryview(bytes(size)))
    # A descriptor of our own, as Python does not tell the number of the one that the mapping keeps.
    return mmap.mmap(file.fileno(), size), Descriptor(os.dup(file.fileno()))


def attach(path: str) -> Buffer:
    """Map a board that another process made."""
    with open(path, "rb+") as file:
        return mmap.mmap(file.fileno(), 0)


def position_at_end(count: int, ended: int) -> int:
    """Return the position that says: of a chunk of ``count`` items so many have ended, and none runs any more."""
    return count + 1 + ended


def sign(buffer: Buffer, slot: int) -> None:
    """Say that this process has the chunk now."""
    _pid.pack_into(buffer, HEADER + SLOT * slot, os.getpid())


def read(buffer: Buffer, slot: int) -> Mark:
    return Mark(*_slot.unpack_from(buffer, HEADER + SLOT * slot))


def stop(buffer: Buffer) -> None:
    buffer[_STOP] = 1


def note_told(buffer: Buffer) -> None:
    """Say that a message to the map is on its way."""
    buffer[_TOLD] = 1


def place(buffer: Buffer, offset: int) -> memoryview:
    """Return where ``write_item`` writes the position at this offset: to set its only element is quicker still."""
    return memoryview(buffer)[offset : offset + _pid.size].cast("q")


def read_position(buffer: Buffer, offset: int) -> int:
    """Return what ``write_item`` wrote at this offset: the position of the item that runs, -1 if none has begun."""
    position: int = _item.unpack_from(buffer, offset)[0]
    return position


def item_offset(slot: int) -> int:
    return HEADER + SLOT * slot + _pid.size
