"""What workers take over of their caller's process before each map, and what items of an earlier map have changed of it.

A worker takes it over when it comes to a task of another map than the last one. Only what differs is set.
"""

from __future__ import annotations

import os
import pickle
import sys
import time
from contextlib import suppress
from typing import Any, NamedTuple

from anymap._host import interpreter_settings

_OF_THE_WORKER = ("_NUM_THREADS", "_MAXIMUM_THREADS", "ENABLE_IPC")
"""Ends of the names of variables that engines set for their workers. Libraries read them once."""
_STATUS = "/proc/self/status"
_UMASK = b"\nUmask:\t"


class ProcessState(NamedTuple):
    """The state of a process, or of a change of it: ``None`` is what does not change."""

    environment: dict[str, str | None] | None
    """``None`` for a variable: there is none of this name."""
    path: tuple[str, ...] | None
    """Where modules are sought."""
    folder: str | None
    """The current one; empty where that has been removed."""
    umask: int | None
    settings: interpreter_settings.Settings | None


class _Taken(NamedTuple):
    """What was taken over last."""

    data: bytes
    state: ProcessState
    """Without its variables."""
    variables: dict[Any, Any]
    """Those of the process afterwards, as the system has them."""


_sent: tuple[object, bytes] = (None, b"")
_start: ProcessState | None = None
"""This worker before its first map."""
_taken = _Taken(b"", ProcessState(None, None, None, None, None), {})
_served: tuple[int, str] | None = None
"""The map that this process has taken the state over for."""
_kept_on_path: set[str] = set()
_has_own_path = False


def since_start() -> bytes:
    """Describe this process for :func:`take_over` in workers that it has started as it is now, or forked."""
    return _packed(None, None, None)


def current(path: tuple[str, ...]) -> bytes:
    """Describe this process, which searches ``path`` for modules, for :func:`take_over` in workers that it started earlier."""
    return _packed(os.environ._data, path, current_folder())  # type: ignore[attr-defined]


def _packed(variables: dict[Any, Any] | None, path: tuple[str, ...] | None, folder: str | None) -> bytes:
    global _sent  # noqa: PLW0603 - a cache of the process: to pickle all variables takes longer than the rest
    rest = path, folder, _read_umask(), tuple(interpreter_settings.current())
    if (variables, rest) != _sent[0]:
        environment, known = (None, None) if variables is None else (dict(os.environ), dict(variables))
        # Without the names of our classes, which are longer than what they hold.
        _sent = (known, rest), pickle.dumps((environment, *rest), 5)
    return _sent[1]


def take_over(map_id: str, data: bytes) -> None:
    """Become what the caller was when its map began, unless the last task was of that map too.

    Of what the caller does not say, become what this process was before its first map.
    """
    global _served, _taken  # noqa: PLW0603 - facts about the process
    if (os.getpid(), map_id) == _served:
        return
    _served = os.getpid(), map_id
    if data != _taken.data or os.environ._data != _taken.variables:  # type: ignore[attr-defined]
        environment, path, folder, umask, settings = pickle.loads(data)
        settings = interpreter_settings.Settings(*settings)
        wanted = _complete(ProcessState(environment, path, folder, umask, settings))
        _change_environment(wanted.environment or {})
        _taken = _Taken(data, wanted._replace(environment=None), dict(os.environ._data))  # type: ignore[attr-defined]
    change(_taken.state)


def _complete(given: ProcessState) -> ProcessState:
    global _start  # noqa: PLW0603 - a fact about the process
    if _start is None:
        _start = of_this_process()
    assert _start.environment is not None  # noqa: S101 - it is whole
    environment = _start.environment
    if given.environment is not None:
        own = {name: value for name, value in environment.items() if name.endswith(_OF_THE_WORKER)}
        environment = {**given.environment, **own}
    rest = (start if told is None else told for told, start in zip(given[1:], _start[1:], strict=True))
    return ProcessState(environment, *rest)  # type: ignore[arg-type]


def served() -> tuple[int, str] | None:
    """Return what is another value after each :func:`take_over`; ``None`` where this process serves no other."""
    return _served if _served is not None and _served[0] == os.getpid() else None


def of_this_process() -> ProcessState:
    settings = interpreter_settings.current()
    return ProcessState(dict(os.environ), tuple(sys.path), current_folder(), _read_umask(), settings)


def difference(before: ProcessState, after: ProcessState) -> ProcessState:
    """Return what makes ``after`` of ``before``, both whole."""
    old, new = before.environment or {}, after.environment or {}
    changed = {name: new.get(name) for name in {**old, **new} if old.get(name) != new.get(name)}
    rest = (new if new != old else None for old, new in zip(before[1:], after[1:], strict=True))
    return ProcessState(changed, *rest)  # type: ignore[arg-type]


def add(wanted: ProcessState) -> None:
    """Change this process by a :func:`difference`."""
    change(wanted._replace(environment={**os.environ, **(wanted.environment or {})}))


def change(wanted: ProcessState) -> None:
    """Change this process to what is wanted of it."""
    if wanted.environment is not None:
        _change_environment(wanted.environment)
    if wanted.path is not None and not _has_own_path:
        _change_path(wanted.path)
    if wanted.folder is not None:
        enter(wanted.folder)
    if wanted.umask is not None:
        os.umask(wanted.umask)
    if wanted.settings is not None:
        interpreter_settings.change(wanted.settings)


def _change_environment(wanted: dict[str, str | None]) -> None:
    zone = os.environ.get("TZ")
    for name, value in {**dict.fromkeys(os.environ), **wanted}.items():
        if value is None:
            os.environ.pop(name, None)
        elif os.environ.get(name) != value:
            os.environ[name] = value
    if os.environ.get("TZ") != zone and hasattr(time, "tzset"):
        time.tzset()


def _change_path(wanted: tuple[str, ...]) -> None:
    if (*sys.path,) != wanted:
        sys.path[:] = [*(entry for entry in sys.path if entry in _kept_on_path), *wanted]


def keep_on_path(folder: str) -> None:
    """Leave this folder in ``sys.path`` for later maps: modules that were sent are in it."""
    _kept_on_path.add(folder)


def keep_path() -> None:
    """Leave ``sys.path`` alone: the engine has a path of its own for its workers."""
    global _has_own_path  # noqa: PLW0603 - a fact about the process
    _has_own_path = True


def current_folder() -> str:
    """Return the current folder; an empty string where that has been removed."""
    try:
        return os.getcwd()
    except FileNotFoundError:
        return ""


def enter(folder: str) -> None:
    """Change to a folder. Where it has been removed, there is no current folder afterwards, as in a caller that was in it."""
    # A process may be in a folder that it could not change to, since it has given its rights up.
    if current_folder() == folder:
        return
    with suppress(FileNotFoundError):
        os.chdir(folder)
        return
    _enter_none()


def _enter_none() -> None:
    import tempfile  # noqa: PLC0415 - workers have no need of it, and should start fast

    removed = tempfile.mkdtemp()
    os.chdir(removed)
    os.rmdir(removed)


def _read_umask() -> int | None:
    """Return the mask; ``None`` where the system does not tell it: by :func:`os.umask` it is another one for a moment."""
    try:
        file = os.open(_STATUS, os.O_RDONLY | os.O_CLOEXEC)
    except OSError:
        return None
    try:
        text = os.read(file, 256)
    finally:
        os.close(file)
    _, found, rest = text.partition(_UMASK)
    return int(rest[:4], 8) if found else None
