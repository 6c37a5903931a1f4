"""Which of a map's workers this is: a number that no other has that runs at the same time.

Workers agree on it among themselves, by a table of the numbers in use: in memory between threads, in a file of the
map's folder between processes of this host. A number stays with its owner. Where more workers take turns at a map than
may run at once, as in a pool that others share, an owner that does not run just now gives way.
"""

from __future__ import annotations

import os
import struct
import threading
import time
from contextlib import contextmanager, suppress
from functools import partial
from typing import TYPE_CHECKING, NamedTuple

from anymap._errors import UnsupportedOption
from anymap._host import forks, parent_watch
from anymap._worker.context import task_context

try:
    import fcntl
except ImportError:  # Windows
    fcntl = None  # type: ignore[assignment]

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from anymap._worker.context import TaskContext

    Owners = list["Owner | None"]


def worker_index() -> int:
    """Return which of its map's workers runs this code: from 0 to one less than their number.

    No two that run at the same time have the same, and a worker keeps its own for as long as the map lasts; that of one
    that died goes to another. On a dask cluster there are as many as its workers have threads. In a map inside of
    another it is that of the inner one. Where no map runs, and in the threads that a function has started itself, 0.

    Raises:
        UnsupportedOption: the backend cannot tell its workers apart.

    >>> from anymap import pmap, worker_index
    >>> pmap(lambda item: f"cuda:{worker_index()}", [1, 2], backend="serial")
    ['cuda:0', 'cuda:0']
    """
    taken = task_context.get()
    if taken is None:
        return 0
    if taken.index is None:
        _take(taken)
    assert taken.index is not None  # noqa: S101 - just taken
    return taken.index


class Owner(NamedTuple):
    """An owner of a number."""

    pid: int
    thread: int
    since: float
    """When it began to run, on the clock of ``time.monotonic``; 0: it does not run just now."""

    def is_of(self, pid: int, thread: int) -> bool:
        return (self.pid, self.thread) == (pid, thread)


def choose(owners: Owners, pid: int, thread: int, is_there: Callable[[Owner], bool]) -> int:
    """Return the number for a thread that begins to run: its own, else one that is free, else one whose owner rests.

    If all run, one of them is stuck in an item that was given up: the one that has run the longest.
    """
    numbers = range(len(owners))
    mine = (n for n in numbers if (owner := owners[n]) is not None and owner.is_of(pid, thread))
    free = (n for n in numbers if (owner := owners[n]) is None or not is_there(owner))
    for found in (mine, free):
        if (number := next(found, None)) is not None:
            return number
    return min(numbers, key=lambda n: getattr(owners[n], "since", 0.0))


def _take(taken: TaskContext) -> None:
    spec = taken.spec
    if isinstance(spec.places, list):
        _take_in_memory(taken, spec.places)
    elif isinstance(spec.places, int) and spec.spool is not None:
        _take_in_file(taken, os.path.join(spec.spool, "workers"), spec.places)
    elif spec.places is not None:
        first, owners = spec.places.find()
        _take_in_memory(taken, owners)
        taken.index = first + (taken.index or 0)
    else:
        raise UnsupportedOption(
            "this backend cannot tell its workers apart, so there is no worker_index(): use 'processes', 'threads', "
            "'pathos' or 'dask'"
        )


# --- between threads ------------------------------------------------------------------------------------------------

_lock = forks.Lock()


def _take_in_memory(taken: TaskContext, owners: Owners) -> None:
    pid, thread = os.getpid(), threading.get_ident()
    with _lock:
        number = choose(owners, pid, thread, _is_thread)
        owners[number] = mine = Owner(pid, thread, time.monotonic())
    taken.index, taken.leave = number, partial(_rest_in_memory, owners, number, mine)


def _rest_in_memory(owners: Owners, number: int, mine: Owner) -> None:
    with _lock:
        if owners[number] == mine:
            owners[number] = mine._replace(since=0.0)


def _is_thread(owner: Owner) -> bool:
    return any(thread.ident == owner.thread for thread in threading.enumerate())


# --- between processes of this host ---------------------------------------------------------------------------------

_owner = struct.Struct("qqd")


def _take_in_file(taken: TaskContext, path: str, workers: int) -> None:
    pid, thread = os.getpid(), threading.get_ident()
    with _locked(path) as file:
        owners = _read(file, workers)
        number = choose(owners, pid, thread, lambda owner: owner.pid == pid or parent_watch._exists(owner.pid))
        mine = Owner(pid, thread, time.monotonic())
        os.pwrite(file, _owner.pack(*mine), number * _owner.size)
    taken.index, taken.leave = number, partial(_rest_in_file, path, number, mine)


def _rest_in_file(path: str, number: int, mine: Owner) -> None:
    with suppress(OSError), _locked(path) as file:  # the map may be over
        if _read(file, number + 1)[number] == mine:
            os.pwrite(file, _owner.pack(*mine._replace(since=0.0)), number * _owner.size)


def _read(file: int, workers: int) -> Owners:
    data = os.pread(file, workers * _owner.size, 0).ljust(workers * _owner.size, b"\0")
    return [Owner(*fields) if fields[0] else None for fields in _owner.iter_unpack(data)]


@contextmanager
def _locked(path: str) -> Iterator[int]:
    file = os.open(path, os.O_RDWR | os.O_CREAT, 0o600)
    try:
        if fcntl is not None:
            fcntl.flock(file, fcntl.LOCK_EX)
        yield file
    finally:
        os.close(file)
