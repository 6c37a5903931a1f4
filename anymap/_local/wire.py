"""Messages between this process and a worker: a length and so many bytes."""

from __future__ import annotations

import os
import struct

_length = struct.Struct("!Q")


def send(fd: int, data: bytes) -> None:
    """Write one message; raises ``OSError`` when nobody is there to read it."""
    view = memoryview(_length.pack(len(data)) + data)
    while view.nbytes:
        view = view[os.write(fd, view) :]


def receive(fd: int) -> bytes | None:
    """Read one message; ``None`` when the other side is gone, even in the middle of one."""
    try:
        header = _read(fd, _length.size)
        return None if header is None else _read(fd, *_length.unpack(header))
    except OSError:
        return None


def _read(fd: int, size: int) -> bytes | None:
    parts: list[bytes] = []
    while size:
        part = os.read(fd, min(size, 1 << 20))
        if not part:
            return None
        parts.append(part)
        size -= len(part)
    return parts[0] if len(parts) == 1 else b"".join(parts)
