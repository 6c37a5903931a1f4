"""Events from running items, whatever runs them, and a word that lets them go on: what tests wait for.

An item rings up by TCP, since that is what threads, processes and machines elsewhere have in common.
"""

from __future__ import annotations

import os
import socket
import threading
from contextlib import suppress
from typing import TYPE_CHECKING, NamedTuple

from anymap.testing._verdicts import PromiseBroken, fail

if TYPE_CHECKING:
    from collections.abc import Callable

_LONGEST = 120.0
"""Seconds after which an item fails that is not released: no worker of another owner stays stuck for ever."""


class Call(NamedTuple):
    """An item that is running."""

    item: int
    pid: int
    line: socket.socket


class Ring:
    """A function for maps: says that its item is running, waits until it is let go, and returns the item."""

    def __init__(self, address: tuple[str, int], held: frozenset[int] | None = None) -> None:
        self.address = address
        self.held = held
        """The items that ring up; ``None``: all."""

    def __call__(self, item: int) -> int:
        if self.held is None or item in self.held:
            ring(self.address, item)
        return item


def ring(address: tuple[str, int], item: int) -> None:
    """Say that ``item`` is running here, and wait until it is let go."""
    with socket.create_connection(address, _LONGEST) as line:
        line.sendall(f"{item} {os.getpid()}\n".encode())
        line.recv(1)


class Switchboard:
    """Takes the calls."""

    def __init__(self, host: str, left: Callable[[], float], *, holding: bool = True) -> None:
        """``left`` says how many seconds a test may still wait; unless ``holding``, items go on at once."""
        self.calls: list[Call] = []
        self._free: set[int] = set()
        self._left = left
        self._holding = holding
        self._closed = False
        self._changed = threading.Condition()
        self._server = socket.create_server((host, 0))
        self.address: tuple[str, int] = (host, self._server.getsockname()[1])
        self._thread = threading.Thread(target=self._serve, name="anymap-switchboard", daemon=True)
        self._thread.start()

    def function(self, *held: int) -> Ring:
        """Return a function that rings up for these items, or for all if none is named."""
        return Ring(self.address, frozenset(held) or None)

    def started(self) -> list[int]:
        """Return the items that have rung up so far, in that order."""
        with self._changed:
            return [call.item for call in self.calls]

    def expect(self, *items: int) -> list[int]:
        """Wait until these items are running; return the process ids they run in."""
        return [self._expect(item).pid for item in items]

    def expect_number(self, count: int) -> None:
        """Wait until so many items, whichever, have rung up."""
        with self._changed:
            if not self._changed.wait_for(lambda: len(self.calls) >= count, self._left()):
                fail(f"fewer than {count} items were started in time: {self.started()}")

    def let_go(self, *items: int) -> None:
        """Let these items go on, now or as soon as they ring up."""
        with self._changed:
            self._free.update(items)
            for call in self.calls:
                if call.item in items:
                    _answer(call.line)

    def let_go_beside(self, item: int, other: int) -> None:
        """Let an item go on once another is running too. For a thread of its own, which ends with the test."""
        with suppress(PromiseBroken):
            self.expect(other)
            self.let_go(item)

    def let_all_go(self) -> None:
        """Let all items go on, those too that are still to come."""
        with self._changed:
            self._holding = False
            for call in self.calls:
                _answer(call.line)

    def close(self) -> None:
        self.let_all_go()
        self._closed = True
        with suppress(OSError):
            socket.create_connection(self.address, 1.0).close()
        self._thread.join()
        self._server.close()
        for call in self.calls:
            # A worker forked meanwhile has the line too: to close it here would not end it.
            with suppress(OSError):
                call.line.shutdown(socket.SHUT_RDWR)
            call.line.close()

    def _expect(self, item: int) -> Call:
        with self._changed:
            if not self._changed.wait_for(lambda: item in self.started(), self._left()):
                fail(f"item {item} was not started in time; started: {self.started()}")
            return next(call for call in reversed(self.calls) if call.item == item)

    def _serve(self) -> None:
        while not self._closed:
            line, _ = self._server.accept()
            self._enter(line)

    def _enter(self, line: socket.socket) -> None:
        line.settimeout(_LONGEST)
        with line.makefile() as words:
            said = words.readline().split()
        if not said:  # the worker has died meanwhile, or it is close()
            line.close()
            return
        with self._changed:
            self.calls.append(Call(int(said[0]), int(said[1]), line))
            if not self._holding or int(said[0]) in self._free:
                _answer(line)
            self._changed.notify_all()


def _answer(line: socket.socket) -> None:
    with suppress(OSError):  # its worker is gone
        line.send(b".")
