"""What running code tells its map, as bytes: messages, the frames that a pipe takes them in, the queue where they wait.

A message is of plain values, so a process that passes it on needs nothing but the standard library.
"""

from __future__ import annotations

import os
import pickle
import threading
import time
from collections import Counter
from functools import cache
from struct import Struct
from typing import TYPE_CHECKING, Any, NamedTuple

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

ITEM, TASK = "item", "task"
"""The topics of ours: an item begins; how far a task inside of one is."""
DROPPED = ""
"""The topic of a message that says how many messages of which topic were dropped."""
BUNDLE = b"L"
"""How a bundle of messages begins, on a channel that takes other messages too."""
LARGEST = 1024 * 1024
"""Bytes of a message; as many wait in a queue at most."""
_PAUSE = 0.1
"""Seconds between two bundles of one task."""


class Told(NamedTuple):
    """Something that running code told its map."""

    topic: str
    message: Any
    item: int | None
    """Which item's code it was; ``None`` where that is not known."""
    pid: int
    host: str
    via: int = 0
    """The process id of the map's own worker, which may pass on what an inner map has heard."""


@cache
def host() -> str:
    """Return the name of this machine."""
    if hasattr(os, "uname"):
        return os.uname().nodename
    import platform  # noqa: PLC0415 - slow to import, and rarely wanted

    return platform.node()


def encode(told: Told) -> bytes:
    """Return the message. Raises whatever pickling the message raises."""
    return pickle.dumps(tuple(told), 5)


def decode(message: bytes) -> Told:
    return Told(*pickle.loads(message))


# --- frames of a pipe -----------------------------------------------------------------------------------------------

_frame = Struct("=IIIIB")


def frames(message: bytes, tag: int, pid: int, number: int, largest: int) -> Iterator[bytes]:
    """Cut a message into frames of no more than ``largest`` bytes, which the system writes whole or not at all."""
    room = largest - _frame.size
    for begin in range(0, len(message), room):
        part = message[begin : begin + room]
        yield _frame.pack(len(part), tag, pid, number, begin + room < len(message)) + part


class Frames:
    """Puts messages together from what is read of a pipe that many write to."""

    def __init__(self) -> None:
        self._rest = b""
        self._begun: dict[tuple[int, int], list[bytes]] = {}

    def take(self, data: bytes) -> Iterator[tuple[int, bytes]]:
        """Take in what was read; yield the messages that are complete by now, each with its tag."""
        data = self._rest + data
        end = 0
        while len(data) - end >= _frame.size:
            size, tag, pid, number, more = _frame.unpack_from(data, end)
            begin = end + _frame.size
            if len(data) - begin < size:
                break
            end = begin + size
            if (message := self._put_together((pid, number), data[begin:end], more=more)) is not None:
                yield tag, message
        self._rest = data[end:]

    def _put_together(self, key: tuple[int, int], part: bytes, *, more: bool) -> bytes | None:
        parts = self._begun.pop(key, None)
        if parts is None and not more:
            return part
        parts = [*(parts or ()), part]
        if not more:
            return b"".join(parts)
        self._begun[key] = parts
        if len(self._begun) > 64:  # their writers died
            del self._begun[next(iter(self._begun))]
        return None


# --- where no pipe leads to the map -----------------------------------------------------------------------------------


class Outbox:
    """Keeps the messages of one task until its channel takes them, or until its answer does.

    A bundle goes at once if the last one is some time ago; else the next message takes it along, or a call of
    :meth:`post`, which comes regularly.
    """

    def __init__(self, send: Callable[[bytes], object] | None) -> None:
        self._send = send
        self._lock = threading.RLock()
        self._messages: list[bytes] = []
        self._size = 0
        self._posted = 0.0
        self.dropped: Counter[str] = Counter()
        """How many messages of which topic found no room."""

    def put(self, message: bytes) -> bool:
        """Return whether there was room for it."""
        with self._lock:
            if self._size + len(message) > LARGEST:
                self.post()
            if self._size + len(message) > LARGEST:
                return False
            self._messages.append(message)
            self._size += len(message)
        if self._send is not None and time.monotonic() - self._posted > _PAUSE:
            self.post()
        return True

    def post(self) -> None:
        """Send what there is, if there is a channel. One that the worker has lost takes it with it."""
        if self._send is None or not self._messages:
            return
        with self._lock:
            self._posted = time.monotonic()
            try:
                self._send(BUNDLE + pickle.dumps(self._messages, 5))
            except Exception:  # noqa: BLE001 - the worker is leaving; what waits may still go with the answer
                self._send = None
            else:
                self._messages, self._size = [], 0

    def empty(self) -> list[bytes]:
        """Return what has not been sent, for the answer to take home."""
        with self._lock:
            messages, self._messages, self._size = self._messages, [], 0
            if self.dropped:
                messages.append(encode(Told(DROPPED, dict(self.dropped), None, os.getpid(), host())))
                self.dropped.clear()
        return messages


def decode_bundle(bundle: bytes) -> list[bytes]:
    messages: list[bytes] = pickle.loads(memoryview(bundle)[len(BUNDLE) :])
    return messages
