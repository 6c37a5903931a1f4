"""One worker process, as its pool sees it."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING

from anymap._host import descendants

if TYPE_CHECKING:
    import socket

    from anymap._worker.start import Process
    from anymap.backends._processes.leases import Job

GRACE_PERIOD = 5.0
"""Seconds that a worker has to close what it has made for itself (:func:`anymap.per_worker`) when it is told to end."""


class Worker:
    """One process and our end of the line to it."""

    def __init__(self, process: Process, line: socket.socket) -> None:
        self.process = process
        self.line = line
        self.job: Job | None = None
        self.ran = 0
        """How many items it has run."""
        self.idle_since = time.monotonic()
        """Once it has been dismissed: since when."""

    def kill(self) -> None:
        """End it and all processes below it, unless it has ended."""
        if self.process.poll() is None:
            descendants.end(self.process.pid)

    def is_overdue(self) -> bool:
        return time.monotonic() > self.idle_since + GRACE_PERIOD
