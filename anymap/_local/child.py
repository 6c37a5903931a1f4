"""What a worker process of the ``processes`` backend does from its first line to its last."""

from __future__ import annotations

import os
import pickle
import sys
from typing import Any

from anymap import _watch
from anymap._local import wire
from anymap._local.signals import ignore_interrupts


def main(fd: int) -> None:
    """Serve the parent at the other end of ``fd`` until it is gone."""
    os.set_inheritable(fd, False)
    preparation = wire.receive(fd)
    if preparation is not None:
        _prepare(pickle.loads(preparation))
        serve(fd)
    leave()


def _prepare(given: dict[str, Any]) -> None:
    """Become what the caller is, but for its ``__main__``, which stays its own."""
    sys.path[:] = given["path"]
    sys.argv[:] = given["argv"]
    if given["authkey"] is not None:
        import multiprocessing  # noqa: PLC0415 - only where the caller uses it

        multiprocessing.current_process().authkey = given["authkey"]
    if given["tracker"] is not None:
        from multiprocessing import resource_tracker  # noqa: PLC0415

        # The caller's: one of our own would destroy the caller's shared memory when this process ends.
        resource_tracker._resource_tracker._fd = given["tracker"]  # type: ignore[attr-defined]


def serve(fd: int) -> None:
    """Run the tasks that come, one after another."""
    ignore_interrupts()
    _watch.end_with(os.getppid(), at_once=True)
    while (data := wire.receive(fd)) is not None:
        wire.send(fd, _answer(data))


def _answer(data: bytes) -> bytes:
    """Run one task; a fault of ours, not the user's, is answered as the exception it is."""
    try:
        return pickle.dumps(pickle.loads(data)(), 5)
    except Exception as exc:  # noqa: BLE001 - the parent must hear of it
        return pickle.dumps(RuntimeError(f"worker {os.getpid()}: {type(exc).__name__}: {exc}"), 5)


def leave() -> None:
    """End without waiting for threads that the user's functions may have left."""
    for stream in (sys.stdout, sys.stderr):
        try:
            stream.flush()
        except (OSError, ValueError, AttributeError):
            continue
    os._exit(0)
