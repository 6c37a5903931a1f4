"""What a worker process of the ``processes`` backend does from its first line to its last."""

from __future__ import annotations

import atexit
import os
import pickle
import sys
import threading
import time
from typing import Any, NoReturn

from anymap._host import descendants, endings, framing, parent_watch, process_state
from anymap._host.interrupts import ignore_interrupts

HOOKS = 2.0
"""Seconds that the hooks for the end of a process (:mod:`atexit`) may take; less than a worker has until it is killed."""


def main(fd: int) -> None:
    """Serve the parent at the other end of ``fd`` until it is gone."""
    os.set_inheritable(fd, False)
    preparation = framing.receive(fd)
    if preparation is not None:
        given = pickle.loads(preparation)
        _prepare(given)
        serve(fd, given["parent"], given["max_items"])
    leave()


def _prepare(given: dict[str, Any]) -> None:
    """Become what the caller is, but for its ``__main__``, which stays its own."""
    process_state.enter(given["folder"])
    sys.path[:] = given["path"]
    sys.argv[:] = given["argv"]
    if given["authkey"] is not None:
        import multiprocessing  # noqa: PLC0415 - only where the caller uses it

        multiprocessing.current_process().authkey = given["authkey"]
    if given["tracker"] is not None:
        from multiprocessing import resource_tracker  # noqa: PLC0415

        # The caller's: one of our own would destroy the caller's shared memory when this process ends.
        resource_tracker._resource_tracker._fd = given["tracker"]  # type: ignore[attr-defined]


def serve(fd: int, parent: int, max_items: int | None = None) -> None:
    """Run the tasks that come, one after another, and of the last one no more than makes ``max_items`` items."""
    ignore_interrupts()
    # Not os.getppid(): the parent may be gone already, with a task still to be read.
    parent_watch.end_with(parent, at_once=True)
    left = max_items
    while (data := framing.receive(fd)) is not None:
        done, answer = _answer(data, left)
        del data
        # Before the caller goes on, and prints what comes after it; it may also end, and this process with it.
        flush_standard_streams()
        framing.send(fd, answer)
        del answer
        if left is not None:
            left -= done


def _answer(data: bytearray, left: int | None) -> tuple[int, bytes]:
    """Run one task, ``left`` items of it at most; return how many, and the answer.

    A fault of ours, not the user's, is answered as the exception it is.
    """
    try:
        task = pickle.loads(data)
        if left is not None:
            task.most = min(task.most, left)
        answer = task()
        return answer.done if left is not None else 0, pickle.dumps(answer, 5)
    except MemoryError:
        from anymap._worker.task import end_for_want_of_memory  # noqa: PLC0415 - it is there, or never will be

        end_for_want_of_memory()
    except Exception as exc:  # noqa: BLE001 - the parent must hear of it
        return 0, pickle.dumps(RuntimeError(f"worker {os.getpid()}: {type(exc).__name__}: {exc}"), 5)


def leave() -> NoReturn:
    """End: close what was made for this worker, run the hooks for the end of a process, leave no process behind.

    Threads that the user's functions may have left are not waited for, and hooks no longer than ``HOOKS``.
    """
    endings.end_all_threads()
    # A daemon: as a rule this process ends before it does.
    threading.Thread(target=_leave_at_the_latest, name="anymap-leave", daemon=True).start()
    _run_exit_hooks()
    _leave_now()


def _run_exit_hooks() -> None:
    for hook in reversed(threading._threading_atexits):  # type: ignore[attr-defined]  # no public name, [src] 3.11-3.13
        try:
            hook()
        except Exception:  # noqa: BLE001 - it is the user's, and the others are to run
            sys.excepthook(*sys.exc_info())
    atexit._run_exitfuncs()


def _leave_at_the_latest() -> None:
    time.sleep(HOOKS)
    _leave_now()


def _leave_now() -> NoReturn:
    descendants.end_own()
    flush_standard_streams()
    os._exit(0)


def forget_exit_hooks() -> None:
    """In a fork: what was registered before is for the end of the parent."""
    atexit._clear()
    threading._threading_atexits.clear()  # type: ignore[attr-defined]


def flush_standard_streams() -> None:
    for stream in (sys.stdout, sys.stderr):
        try:
            stream.flush()
        except (OSError, ValueError, AttributeError):  # there is none, or no process reads it
            continue
