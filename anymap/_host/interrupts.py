"""Ctrl-C, which goes to the whole group of processes, and is the caller's to act on."""

from __future__ import annotations

import signal
from contextlib import contextmanager
from typing import TYPE_CHECKING

from anymap._host.handlers import held_back

if TYPE_CHECKING:
    from collections.abc import Iterator


@contextmanager
def interrupts_held_back() -> Iterator[None]:
    """Start a process in here: Ctrl-C does not reach it before it has come to ignore that, nor us before we know of it."""
    # The mask, which the process inherits, is not enough for us: any other thread may take the signal.
    with held_back():
        if not hasattr(signal, "pthread_sigmask"):  # not on Windows
            yield
            return
        before = signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGINT})
        try:
            yield
        finally:
            signal.pthread_sigmask(signal.SIG_SETMASK, before)


def ignore_interrupts() -> None:
    """In the process that was started."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    if hasattr(signal, "pthread_sigmask"):
        signal.pthread_sigmask(signal.SIG_UNBLOCK, {signal.SIGINT})
