"""Folders for what is too large for a pipe, and their removal, come what may.

In memory where the system has a place for that (``/dev/shm``), else among the temporary files. The process's folder
bears its id: one whose process is gone, killed before it could tidy up, is swept by the next process that needs one.
"""

from __future__ import annotations

import atexit
import os
import re
import shutil
import tempfile
import threading
import uuid
from contextlib import suppress

_lock = threading.Lock()
_folders: dict[int, str] = {}
_NAME = re.compile(r"anymap-(\d+)-(\d+)-\w+")


def make_folder() -> str:
    """Return a new empty folder, for one map."""
    folder = os.path.join(_process_folder(), uuid.uuid4().hex)
    try:
        os.mkdir(folder)
    except FileNotFoundError:  # somebody tidied the temporary files
        _folders.pop(os.getpid(), None)
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
            _folders[pid] = tempfile.mkdtemp(prefix=f"anymap-{os.getuid() if hasattr(os, 'getuid') else 0}-{pid}-", dir=base)
            atexit.register(_remove_own, pid)
        return _folders[pid]


def _base() -> str:
    shm = "/dev/shm"
    return shm if os.path.isdir(shm) and os.access(shm, os.W_OK | os.X_OK) else tempfile.gettempdir()


def _sweep(base: str) -> None:
    """Remove what dead processes of this user left behind."""
    with suppress(OSError):
        for entry in os.scandir(base):
            match = _NAME.fullmatch(entry.name)
            if match and int(match[1]) == (os.getuid() if hasattr(os, "getuid") else 0) and not _alive(int(match[2])):
                remove_folder(entry.path)


def _alive(pid: int) -> bool:
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    except OSError:
        pass
    return True


def _remove_own(pid: int) -> None:
    # A forked child inherits this, and the folder is not its own.
    if os.getpid() == pid:
        remove_own()


def remove_own() -> None:
    """Remove this process's folder; the next map makes a new one."""
    with _lock:
        folder = _folders.pop(os.getpid(), None)
    if folder is not None:
        remove_folder(folder)


def _after_fork() -> None:
    # The thread that held it, if one did, is not there any more.
    global _lock  # noqa: PLW0603
    _lock = threading.Lock()


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_after_fork)
