"""Messages between this process and a worker: a length and so many bytes."""

from __future__ import annotations

import os
import struct

_length = struct.Struct("!Q")
_TOGETHER = 64 * 1024
"""A message of fewer bytes goes with its length in one write."""


def send(fd: int, data: bytes) -> None:
    """Write one message; raises ``OSError`` when no process is there to read it."""
    header = _length.pack(len(data))
    if len(data) < _TOGETHER:
        _write(fd, header + data)
    else:  # without a copy
        _write(fd, header)
        _write(fd, data)


def receive(fd: int) -> bytearray | None:
    """Read one message; ``None`` when the other side is gone, even in the middle of one."""
    try:
        header = _read(fd, _length.size)
        return None if header is None else _read(fd, *_length.unpack(header))
    except OSError:
        return None


def _write(fd: int, data: bytes) -> None:
    view = memoryview(data)
    while view.nbytes:
        view = view[os.write(fd, view) :]


def _read(fd: int, size: int) -> bytearray | None:
    data = bytearray(size)
    view = memoryview(data)
    while view.nbytes:
        count = os.readv(fd, [view])
        if not count:
            return None
        view = view[count:]
    return data
