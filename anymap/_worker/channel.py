"""How running tasks send messages to their map."""

from __future__ import annotations

from typing import Protocol


class Line(Protocol):
    """The worker's end of a channel. Its methods may be called from any thread. A subclass needs but ``send``."""

    def send(self, message: bytes) -> None:
        """Send a short message. May raise anything where the worker is about to end."""

    def is_wanted(self) -> bool:
        """Tell whether a map still waits for the task; if not, it stops after its item."""
        return True

    def step_aside(self) -> None:
        """The thread that connected may be stuck in an item that was given up: let others have its place, if that can be.

        May be called again.
        """


class Channel(Protocol):
    """What tasks carry with them to send messages to their map while they run. Pickles small."""

    def connect(self) -> Line:
        """Called in the worker, in the thread that runs the task."""
