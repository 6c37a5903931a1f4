"""Makes a process a worker of its caller."""

from __future__ import annotations

import contextlib
import os
import signal
from typing import TYPE_CHECKING

from anymap._host import parent_watch, random_state

if TYPE_CHECKING:
    from anymap._worker.protocol import MapSpec

_settled = 0
"""The process that has been made a good worker: a fork of it has not."""


def set_up_process(parent: int) -> None:
    """Make this process a good worker of ``parent``, the first time it runs something for it."""
    global _settled  # noqa: PLW0603 - a fact about the process
    if os.getpid() in {parent, _settled}:
        return
    _settled = os.getpid()
    # Ctrl-C goes to the whole group; what follows from it is the caller's to decide.
    with contextlib.suppress(ValueError):  # not the main thread
        signal.signal(signal.SIGINT, signal.SIG_IGN)
    parent_watch.end_with(parent)
    random_state.reseed()


def worker_name(spec: MapSpec) -> str:
    if spec.board is not None:
        return str(os.getpid())
    import socket  # noqa: PLC0415 - as with heartbeat

    return f"{os.getpid()} on {socket.gethostname()}"
