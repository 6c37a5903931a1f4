"""What a worker is started with. Workers of an equal specification may serve each other's maps."""

from __future__ import annotations

import os
import subprocess
import sys
import time
from dataclasses import dataclass
from operator import is_not
from typing import Any

from anymap._errors import UnsupportedOption
from anymap._host import inner_threads as libraries
from anymap._host import loaded, process_state, start_state
from anymap._serialize import modules
from anymap._worker import interpreter

_CHANGES_ALL_THE_TIME = "PYTEST_CURRENT_TEST"
"""A variable that would make each test start workers of its own."""
_REST = 0.1
"""Seconds. To look for files that have changed takes longer than a small map, where there are many."""


@dataclass(frozen=True, slots=True)
class WorkerSpec:
    """An interpreter like the caller's, and the caller's code as it is now."""

    command: tuple[str, ...]
    folder: str
    """Empty where that has been removed."""
    path: tuple[str, ...]
    environment: frozenset[tuple[str, str]]
    start_state: tuple[Any, ...]
    authkey: bytes | None
    tracker: int | None
    code_version: int
    """Goes up when a file of the caller's own modules has changed."""
    max_items: int | None
    """So many items may a worker run before another takes its place."""

    def preparation(self) -> dict[str, Any]:
        """Return what a new worker is told before its first task."""
        return {
            "path": list(self.path),
            "folder": self.folder,
            "argv": sys.argv,
            "authkey": self.authkey,
            "tracker": self.tracker,
            "max_items": self.max_items,
            "parent": os.getpid(),
        }


def current(workers: int, max_items: int | None = None, inner_threads: int | None = None) -> WorkerSpec:
    """Describe this process as it is now; ``workers`` share the CPUs for their inner threads unless told how many."""
    if getattr(sys, "frozen", False):
        raise UnsupportedOption(
            "a frozen program has no interpreter to start workers with: use backend 'threads', or 'processes' with "
            "start_method='fork' where the system has it"
        )
    return WorkerSpec(
        command=(_executable(), *subprocess._args_from_interpreter_flags()),  # type: ignore[attr-defined]
        folder=process_state.current_folder(),
        path=modules.caller_path(),
        environment=_environment(inner_threads, workers),
        start_state=start_state.current(),
        authkey=_authkey(),
        tracker=_tracker(),
        code_version=_code_version.current(),
        max_items=max_items,
    )


def _executable() -> str:
    spawn = sys.modules.get("multiprocessing.spawn")
    chosen = spawn.get_executable() if spawn is not None else None
    remedy = "Give the path of one to multiprocessing.set_executable()"
    return interpreter.checked(chosen or sys.executable, remedy)


_known: tuple[Any, dict[Any, Any], frozenset[tuple[str, str]]] = (None, {}, frozenset())


def _environment(inner_threads: int | None, workers: int) -> frozenset[tuple[str, str]]:
    """Return the variables of a worker; those for numerical libraries as told, else as the user has set them, else shared out."""
    global _known  # noqa: PLW0603 - a cache of the process: to decode all variables takes a good part of a small map
    if ((inner_threads, workers), os.environ._data) != _known[:2]:  # type: ignore[attr-defined]
        told = dict.fromkeys(libraries.VARIABLES, str(inner_threads or libraries.share(workers)))
        found = dict(os.environ) | told if inner_threads else told | dict(os.environ)
        found.pop(_CHANGES_ALL_THE_TIME, None)
        _known = (inner_threads, workers), dict(os.environ._data), frozenset(found.items())  # type: ignore[attr-defined]
    return _known[2]


def _authkey() -> bytes | None:
    process = sys.modules.get("multiprocessing.process")
    return bytes(process.current_process().authkey) if process is not None else None


def _tracker() -> int | None:
    tracker = sys.modules.get("multiprocessing.resource_tracker")
    return tracker._resource_tracker._fd if tracker is not None else None  # no public name, [src] 3.11-3.13


class _CodeVersion:
    """The caller's own modules, as far as they have been seen.

    A module that comes later, as one that is imported when it is first needed, makes no new edition, unless its file was
    changed since this one began: a worker may have imported it before.
    """

    def __init__(self) -> None:
        self._number = 0
        self._since = 0
        self._looked = -_REST
        self._changed: dict[str, int] = {}
        self._count = 0
        self._files: dict[str, str] = {}
        """By the name of the module."""
        self._specs: list[Any] = []
        """What each was loaded by, anew each time. Kept, so that none that comes later can be at the same place in memory."""

    def current(self) -> int:
        specs = self._loaded_by()
        if _are_the_same(specs, self._specs) and time.monotonic() - self._looked < _REST:
            return self._number
        changed = {file: _changed(file) for file in self._files.values()}
        if any(when != self._changed.get(file, min(when, self._since)) for file, when in changed.items()):
            self._number += 1
            self._since = time.time_ns()
        self._changed.update(changed)
        # At last: until then, other threads have to look for themselves.
        self._looked, self._specs = time.monotonic(), specs
        return self._number

    def _loaded_by(self) -> list[Any]:
        if self._count != len(sys.modules):  # to look through all of them takes longer than a small map
            files = {name: _file(name) for name in tuple(sys.modules)}
            self._count, self._files = len(files), {name: file for name, file in files.items() if _is_own(file)}
        return [loaded.variables(name).get("__spec__") for name in self._files]


def _are_the_same(some: list[Any], others: list[Any]) -> bool:
    return len(some) == len(others) and not any(map(is_not, some, others))


_code_version = _CodeVersion()


def _file(module: str) -> str:
    file = loaded.variables(module).get("__file__")
    return file if isinstance(file, str) else ""


def _is_own(file: str) -> bool:
    """Tell the caller's own modules from those that were installed."""
    installed = (sys.prefix, sys.base_prefix, sys.exec_prefix)
    return bool(file) and not file.startswith(installed)


def _changed(file: str) -> int:
    try:
        return os.stat(file).st_mtime_ns
    except OSError:
        return 0
