"""The processes below others: what items have started, and not ended."""

from __future__ import annotations

import os
import signal
from collections import defaultdict
from contextlib import suppress
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterable

_TRACKER = b"resource_tracker import main"
"""In the command of the helpers of multiprocessing and loky, which remove what a process has left and then end by themselves."""


def end(*pids: int) -> None:
    """Kill processes and all below them; only the processes where the system has no ``/proc``."""
    below = find(*pids)
    _kill(pids)
    _kill(below)


def end_own() -> None:
    """Kill all processes below this one."""
    if _has_children():  # to look for them takes some milliseconds
        _kill(find(os.getpid()))


def _has_children() -> bool:
    try:
        os.waitid(os.P_ALL, 0, os.WEXITED | os.WNOHANG | os.WNOWAIT)
    except ChildProcessError:
        return False
    return True


def find(*pids: int) -> list[int]:
    """Return all processes below these; none where the system has no ``/proc``."""
    children = _children_of_all()
    below: list[int] = []
    parents = list(pids)
    while parents:
        found = [pid for pid in children[parents.pop()] if not _is_tracker(pid)]
        below += found
        parents += found
    return below


def is_zombie(pid: int) -> bool:
    """Tell whether a process has ended, and its parent has not asked how; ``False`` where the system has no ``/proc``."""
    try:
        state, _ = _state_and_parent(str(pid))
    except OSError:
        return False
    return state == b"Z"


def _kill(pids: Iterable[int]) -> None:
    for pid in pids:
        with suppress(ProcessLookupError, PermissionError):
            os.kill(pid, signal.SIGKILL)


def _children_of_all() -> defaultdict[int, list[int]]:
    # The kernel has a list of a thread's children, but many are built without it.
    children: defaultdict[int, list[int]] = defaultdict(list)
    with suppress(OSError):  # there is no such folder
        for name in filter(str.isdigit, os.listdir("/proc")):
            with suppress(OSError):  # it has ended
                state, parent = _state_and_parent(name)
                if state != b"Z":
                    children[int(parent)].append(int(name))
    return children


def _state_and_parent(pid: str) -> list[bytes]:
    # The name of the program, in brackets, may have any character in it.
    return _read(f"/proc/{pid}/stat").rpartition(b")")[2].split(maxsplit=2)[:2]


def _is_tracker(pid: int) -> bool:
    try:
        return _TRACKER in _read(f"/proc/{pid}/cmdline")
    except OSError:
        return False


def _read(path: str) -> bytes:
    with open(path, "rb", buffering=0) as file:
        return file.read()
