"""Folders for what is too large for a pipe, and their removal, come what may.

In memory where the system has a place for that (``/dev/shm``), else among the temporary files. A process holds a lock on
its folder: one whose process was killed before it could tidy up is swept by the next process that needs one.
"""

from __future__ import annotations

import atexit
import os
import shutil
import tempfile
import threading
import time
import uuid
from contextlib import suppress

try:
    import fcntl
except ImportError:  # Windows
    fcntl = None  # type: ignore[assignment]

_lock = threading.Lock()
_folders: dict[int, str] = {}
_locks: dict[int, int] = {}
_SETTLING = 5.0
"""Seconds for which a new folder is not looked at: its owner may not have locked it yet."""


def make_folder() -> str:
    """Return a new empty folder, for one map."""
    folder = os.path.join(_process_folder(), uuid.uuid4().hex)
    try:
        os.mkdir(folder)
    except FileNotFoundError:  # somebody tidied the temporary files
        remove_own()
        folder = os.path.join(_process_folder(), uuid.uuid4().hex)
        os.mkdir(folder)
    return folder


def remove_folder(folder: str) -> None:
    shutil.rmtree(folder, ignore_errors=True)


def _process_folder() -> str:
    pid = os.getpid()
    with _lock:
        if pid not in _folders:
            base = _base()
            _sweep(base)
            _folders[pid] = tempfile.mkdtemp(prefix=f"anymap-{_user()}-{pid}-", dir=base)
            _locks[pid] = _lock_folder(_folders[pid])
            atexit.register(_remove_own, pid)
        return _folders[pid]


def _lock_folder(folder: str) -> int:
    """Hold the folder for as long as this process lives, or one that it forks.

    A process id would not tell: another container may share the folder, where ids mean other processes.
    """
    held = os.open(folder, os.O_RDONLY)
    if fcntl is not None:
        fcntl.flock(held, fcntl.LOCK_EX)
    return held


def _user() -> int:
    return os.getuid() if hasattr(os, "getuid") else 0


def _base() -> str:
    shm = "/dev/shm"  # noqa: S108 - what is made there has a name of its own, and is the user's alone
    return shm if os.path.isdir(shm) and os.access(shm, os.W_OK | os.X_OK) else tempfile.gettempdir()


def _sweep(base: str) -> None:
    """Remove what dead processes of this user left behind."""
    with suppress(OSError):
        for entry in os.scandir(base):
            if entry.name.startswith(f"anymap-{_user()}-") and _is_deserted(entry.path):
                remove_folder(entry.path)


def _is_deserted(folder: str) -> bool:
    if fcntl is None or time.time() - os.stat(folder).st_mtime < _SETTLING:
        return False
    held = os.open(folder, os.O_RDONLY)
    try:
        fcntl.flock(held, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    finally:
        os.close(held)
    return True


def _remove_own(pid: int) -> None:
    # A forked child inherits this, and the folder is not its own.
    if os.getpid() == pid:
        remove_own()


def remove_own() -> None:
    """Remove this process's folder; the next map makes a new one."""
    pid = os.getpid()
    with _lock:
        folder, held = _folders.pop(pid, None), _locks.pop(pid, None)
    if folder is not None:
        remove_folder(folder)
    if held is not None:
        os.close(held)


def _after_fork() -> None:
    # The thread that held it, if one did, is not there any more.
    global _lock  # noqa: PLW0603
    _lock = threading.Lock()


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_after_fork)
