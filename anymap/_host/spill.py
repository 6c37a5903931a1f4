"""Folders for what is too large for a pipe, and their removal, come what may.

In memory where the system has a place for that (``/dev/shm``), and among the temporary files for what finds no room
there. A process holds a lock on its folders: one whose process was killed before it could tidy up is swept by the next
process that needs one.
"""

from __future__ import annotations

import atexit
import errno
import os
import time
import uuid
from contextlib import suppress
from typing import TYPE_CHECKING, NamedTuple, TypeVar

from anymap._host import forks
from anymap._host.descriptors import Descriptor

try:
    import fcntl
except ImportError:  # Windows
    fcntl = None  # type: ignore[assignment]

if TYPE_CHECKING:
    import io
    from collections.abc import Callable, Iterator

_T = TypeVar("_T")

_OVERFLOW = ".overflow"
"""In a process's folder in memory, the link to its folder among the temporary files."""
_SETTLING = 5.0
"""Seconds for which a new folder is not looked at: its owner may not have locked it yet."""


class _Home(NamedTuple):
    """The folders of one process, and the file descriptors that hold their locks."""

    folders: list[str]
    locks: list[Descriptor]


_lock = forks.Lock()
_homes: dict[tuple[int, int], _Home] = {}
"""By process and user: a program that gives its rights up cannot use its folders any more."""


def make_folder() -> str:
    """Return a new empty folder, for one map. Raises ``OSError`` where there is no room for it."""
    keep_locks()
    try:
        return _make_in(_home())
    except FileNotFoundError:  # the temporary files were tidied
        remove_own()
        return _make_in(_home())


def keep_locks() -> None:
    """Lock this process's folders again if the program has closed the descriptors that held the locks."""
    with _lock:
        home = _homes.get(_owner())
        if home is not None and not all(lock.is_ours() for lock in home.locks):
            try:
                home.locks[:] = map(_lock_folder, home.folders)
            except FileNotFoundError:  # another process has swept them meanwhile
                del _homes[_owner()]


def remove_folder(folder: str) -> None:
    for place in (folder, _overflow(folder)):
        try:
            os.rmdir(place)  # as a rule it is empty by now, or was never made
        except FileNotFoundError:
            continue
        except OSError:
            _remove_tree(place)


def holds_only(folder: str, path: str) -> bool:
    """Tell whether there is no file in a map's folder but the one at ``path``."""
    try:
        names = os.listdir(folder)
    except FileNotFoundError:
        return False
    return [os.path.join(folder, name) for name in names] == [path] and not os.path.exists(_overflow(folder))


def _remove_tree(folder: str) -> None:
    import shutil  # noqa: PLC0415 - workers have no need of it, and should start fast

    shutil.rmtree(folder, ignore_errors=True)


def write_file(folder: str, write: Callable[[io.FileIO], _T]) -> tuple[str, _T]:
    """Have ``write`` fill a new file in ``folder``; return its path and what ``write`` returned.

    Where there is no room, ``write`` is called again with a file elsewhere. Raises ``OSError`` and leaves nothing
    behind if there is no room anywhere.
    """
    try:
        return _write(folder, write)
    except FileNotFoundError:  # the map is over
        raise
    except OSError as exc:
        full = exc
    overflow = _overflow(folder)
    try:
        # Not before it is needed: on a disk that takes a good part of the time of a small map.
        with suppress(FileExistsError):
            os.mkdir(overflow)
        return _write(overflow, write)
    except OSError as exc:
        raise _no_room({_base(folder): full, _base(overflow): exc}) from exc


def write_all(file: io.FileIO, view: memoryview) -> None:
    """Write to an unbuffered file, which may take less at a time."""
    while view.nbytes:
        view = view[file.write(view) :]


def _write(folder: str, write: Callable[[io.FileIO], _T]) -> tuple[str, _T]:
    path = os.path.join(folder, uuid.uuid4().hex)
    try:
        with open(path, "xb+", buffering=0) as file:
            return path, write(file)
    except BaseException:
        with suppress(OSError):
            os.unlink(path)
        raise


def _overflow(folder: str) -> str:
    """Return where files of a map go when its folder has no room for them."""
    home, name = os.path.split(folder)
    return os.path.join(home, _OVERFLOW, name)


def _base(folder: str) -> str:
    """Return what the user knows of where a map's folder is."""
    return os.path.dirname(os.path.dirname(os.path.realpath(folder)))


def _make_in(home: _Home) -> str:
    name = uuid.uuid4().hex
    failed: dict[str, OSError] = {}
    for base in home.folders:
        folder = os.path.join(base, name)
        try:
            os.mkdir(folder)
        except FileNotFoundError:
            raise
        except OSError as exc:
            failed[_base(folder)] = exc
        else:
            return folder
    raise _no_room(failed)


def _home() -> _Home:
    owner = _owner()
    with _lock:
        if owner not in _homes:
            _homes[owner] = _make_home(os.getpid())
            atexit.register(_remove_own, os.getpid())
        return _homes[owner]


def _make_home(pid: int) -> _Home:
    import tempfile  # noqa: PLC0415 - as with shutil

    folders: list[str] = []
    failed: dict[str, OSError] = {}
    for base in _bases():
        _sweep(base)
        try:
            folders.append(tempfile.mkdtemp(prefix=f"anymap-{_user()}-{pid}-", dir=base))
        except OSError as exc:
            failed[base] = exc
    if not folders:
        raise _no_room(failed)
    if len(folders) > 1:
        with suppress(OSError):
            os.symlink(folders[1], os.path.join(folders[0], _OVERFLOW))
    return _Home(folders, [_lock_folder(folder) for folder in folders])


def _no_room(failed: dict[str, OSError]) -> OSError:
    """Return an error of the first one's kind that says where was tried."""
    reasons = {place: exc for place, exc in failed.items() if exc.errno != errno.ENOENT} or failed
    tried = (
        ", ".join(f"{place} ({exc.strerror})" for place, exc in reasons.items()) or "no folder that can be written to"
    )
    first = next(iter(reasons.values()), None)
    return OSError(
        errno.ENOSPC if first is None else first.errno,
        f"anymap has no room for its files, tried: {tried}; make room there, or set TMPDIR to a folder that has some",
    )


def _lock_folder(folder: str) -> Descriptor:
    """Hold the folder for as long as this process lives, or one that it forks.

    A process id would not tell: another container may share the folder, where ids mean other processes.
    """
    held = os.open(folder, os.O_RDONLY)
    if fcntl is not None:
        fcntl.flock(held, fcntl.LOCK_EX)
    return Descriptor(held)


def _owner() -> tuple[int, int]:
    return os.getpid(), _user()


def _user() -> int:
    return os.geteuid() if hasattr(os, "geteuid") else 0


def _bases() -> list[str]:
    """Return where folders may be, the best place first."""
    return list(dict.fromkeys((*_memory(), *_disk())))


def _memory() -> Iterator[str]:
    shm = "/dev/shm"  # noqa: S108 - what is made there has a name of its own, and is the user's alone
    if os.path.isdir(shm) and os.access(shm, os.W_OK | os.X_OK):
        yield shm


def _disk() -> Iterator[str]:
    import tempfile  # noqa: PLC0415 - as with shutil

    with suppress(FileNotFoundError):  # none has room for as much as a message
        yield tempfile.gettempdir()


def _sweep(base: str) -> None:
    """Remove what dead processes of this user left behind."""
    with suppress(OSError), os.scandir(base) as entries:
        for entry in entries:
            if entry.name.startswith(f"anymap-{_user()}-") and _is_deserted(entry.path):
                _remove_tree(entry.path)


def _is_deserted(folder: str) -> bool:
    try:
        if fcntl is None or time.time() - os.stat(folder).st_mtime < _SETTLING:
            return False
        held = os.open(folder, os.O_RDONLY)
    except FileNotFoundError:  # its owner, or another process that sweeps, was quicker
        return False
    try:
        fcntl.flock(held, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    finally:
        os.close(held)
    return True


def _remove_own(pid: int) -> None:
    # A forked child inherits this, and the folders are not its own.
    if os.getpid() == pid:
        remove_own()


def remove_own() -> None:
    """Remove this process's folders; the next map makes new ones."""
    with _lock:
        homes = [_homes.pop(owner) for owner in tuple(_homes) if owner[0] == os.getpid()]
    for home in homes:
        for folder in home.folders:
            _remove_tree(folder)
        for lock in home.locks:
            lock.close()
