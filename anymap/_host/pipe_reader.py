"""Where messages of workers on this host arrive: one pipe for all maps of this process, read by a thread.

It is made when a map first listens, and kept for the next one. A worker that wants to write opens the pipe by its path;
what it has written stays, though it be killed.
"""

from __future__ import annotations

import itertools
import os
import struct
import threading
from contextlib import suppress
from typing import TYPE_CHECKING

from anymap._host import forks, lifecycle, own_log, spill
from anymap._host.descriptors import Descriptor
from anymap._host.live_messages import Frames, frames

try:
    import fcntl
except ImportError:  # Windows
    fcntl = None  # type: ignore[assignment]

if TYPE_CHECKING:
    from collections.abc import Callable

_BLOCK = 256 * 1024
_SIZE = 1024 * 1024
"""Bytes that the pipe holds, where the system lets it have so many."""
TO_SETTLE = 5.0
"""Seconds that a map waits at its end for its messages to be handled."""
_READER = 0
"""The tag of what the reader writes to itself."""
_mark = struct.Struct("=Q")


class Receiver:
    """One map's address."""

    def __init__(self, reader: _PipeReader, tag: int) -> None:
        self._reader = reader
        self.path = reader.path
        self.tag = tag

    def settle(self, patience: float = TO_SETTLE) -> None:
        """Wait until everything that has been written so far has been handled. On the thread that does it: return."""
        self._reader.settle(patience)

    def close(self) -> None:
        """Throw away what comes from now on."""
        self._reader.receivers.pop(self.tag, None)


def open_receiver(receive: Callable[[bytes], object]) -> Receiver | None:
    """Have ``receive`` called with each message to a new address; ``None`` where there are no such pipes, or no room."""
    if not hasattr(os, "mkfifo"):
        return None
    try:
        reader = _the_reader()
    except OSError:
        return None
    tag = next(_tags) & 0xFFFFFFFF
    reader.receivers[tag] = receive
    return Receiver(reader, tag)


class _PipeReader:
    def __init__(self) -> None:
        self.receivers: dict[int, Callable[[bytes], object]] = {_READER: self._note}
        self._marks: dict[int, threading.Event] = {}
        self._numbers = itertools.count(1)
        self._open = True
        self._writing = threading.Lock()
        self.folder = spill.make_folder()
        self.path = os.path.join(self.folder, "post")
        try:
            os.mkfifo(self.path, 0o600)
            reader = os.open(self.path, os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC)
            os.set_blocking(reader, True)
            # Ours to write to ourselves; as long as it is open, no reading ends for want of another writer.
            writer = os.open(self.path, os.O_WRONLY | os.O_CLOEXEC)
        except OSError:
            spill.remove_folder(self.folder)
            raise
        _enlarge(writer)
        self._reader, self._writer = Descriptor(reader), Descriptor(writer)
        self._thread = threading.Thread(target=self._work, name="anymap-post", daemon=True)
        self._thread.start()

    def is_there(self) -> bool:
        """Tell whether the program has neither tidied it away nor closed its descriptors."""
        return self._writer.is_ours() and os.path.exists(self.path)

    def settle(self, patience: float) -> None:
        if threading.current_thread() is self._thread:
            return
        number, passed = next(self._numbers), threading.Event()
        with self._writing:
            if not (self._open and self._writer.is_ours()):
                return
            self._marks[number] = passed
            self._write(number)
        passed.wait(patience)
        self._marks.pop(number, None)

    def close(self) -> None:
        with self._writing:
            if not self._open:
                return
            self._open = False
            self._write(0)
        spill.remove_folder(self.folder)

    def _write(self, number: int) -> None:
        if self._writer.is_ours():
            for frame in frames(_mark.pack(number), _READER, os.getpid(), 0, 512):
                os.write(self._writer.number, frame)

    def _note(self, message: bytes) -> None:
        (number,) = _mark.unpack(message)
        if (passed := self._marks.get(number)) is not None:
            passed.set()

    def _work(self) -> None:
        came = Frames()
        while self._open and self._reader.is_ours():
            for tag, message in came.take(os.read(self._reader.number, _BLOCK)):
                self._hand_over(tag, message)
        self._reader.close()
        self._writer.close()

    def _hand_over(self, tag: int, message: bytes) -> None:
        receive = self.receivers.get(tag)
        if receive is None:  # the map is over
            return
        try:
            receive(message)
        except Exception:  # noqa: BLE001 - one map's fault is no other's
            self.receivers.pop(tag, None)
            own_log.exception("what workers tell a map cannot be handled, and is thrown away")


def _enlarge(pipe: int) -> None:
    if hasattr(fcntl, "F_SETPIPE_SZ"):
        with suppress(OSError):  # its user has many
            fcntl.fcntl(pipe, fcntl.F_SETPIPE_SZ, _SIZE)


_lock = forks.Lock()
_tags = itertools.count(1)
_readers: list[_PipeReader] = []
"""The one that is open, if there is one."""


def _the_reader() -> _PipeReader:
    with _lock:
        if _readers and not _readers[0].is_there():
            _readers.pop().close()
        if not _readers:
            lifecycle.at_shutdown(_close)
            _readers.append(_PipeReader())
        return _readers[0]


def _close() -> None:
    with _lock:
        if _readers:
            _readers.pop().close()


# Its thread is the parent's.
forks.in_child(_readers.clear)
