"""End a worker when the process it works for is gone, busy or idle."""

from __future__ import annotations

import contextlib
import os
import signal
import sys
import threading
import time

from anymap._host import descendants

_INTERVAL = 0.5
"""Seconds between two looks."""
_PR_SET_PDEATHSIG = 1


def end_with(parent: int, *, at_once: bool = False) -> None:
    """Make this process end soon after ``parent`` does, whatever it is doing then.

    ``at_once`` asks the kernel too, where it can be asked. Only for a process that was started by a thread which lives
    as long as its program: the kernel takes the end of that thread for the end of the parent.
    """
    threading.Thread(target=_watch, args=(parent, at_once), name="anymap-watch", daemon=True).start()


def _watch(parent: int, at_once: bool) -> None:
    # The parent may be a fork server or a nanny, and the process that matters one above it.
    alive = _is_still_my_parent if os.getppid() == parent else _exists
    time.sleep(_INTERVAL)
    if at_once:
        _ask_the_kernel()
    while alive(parent):
        time.sleep(_INTERVAL)
    descendants.end_own()
    os._exit(1)


def _ask_the_kernel() -> None:
    """Have Linux kill this process with its parent: a thread cannot look while C code holds the interpreter lock."""
    if sys.platform == "linux":
        import ctypes  # noqa: PLC0415 - it takes half as long to import as a worker to start

        with contextlib.suppress(OSError):
            ctypes.CDLL(None).prctl(_PR_SET_PDEATHSIG, signal.SIGKILL, 0, 0, 0)


def _is_still_my_parent(parent: int) -> bool:
    return os.getppid() == parent


def _exists(pid: int) -> bool:
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    except PermissionError:
        pass
    # Without an init process in a container, what was killed may stay a zombie for ever.
    return not descendants.is_zombie(pid)
