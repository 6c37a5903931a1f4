"""Where a starting worker searches for modules: where the caller does, in the same order, and nowhere else.

Python puts the current folder first for ``-c`` and ``-m``, by which workers are started. A caller that is run from another
folder does not search it, and files there may have the names of modules of the standard library.
"""

from __future__ import annotations

import os
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

from anymap._errors import UnsupportedOption
from anymap._host import forks, process_state
from anymap._host.handlers import held_back
from anymap._serialize.modules import caller_path

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

_SAFE_PATH = "PYTHONSAFEPATH"
_lock = forks.Lock()


def statement(path: tuple[str, ...]) -> str:
    """Return the first statement of a worker's program, after which it finds anymap and what the caller finds."""
    home = os.path.dirname(os.path.dirname(os.path.dirname(os.path.abspath(__file__))))
    entries = [entry for entry in path if isinstance(entry, str)]
    if home not in entries:
        entries.append(home)
    # In ASCII: a command cannot have a path that does not decode.
    return f"import sys; sys.path[:] = {entries!a}"


def require_folder() -> None:
    """Raise ``UnsupportedOption`` where the current folder has been removed: multiprocessing and loky start workers in it."""
    if not process_state.current_folder():
        raise UnsupportedOption(
            "joblib starts its workers in the current folder, and that has been removed: change to another one, or use "
            "backend='processes', whose workers then have none, as this process has none"
        )


@contextmanager
def for_multiprocessing() -> Iterator[None]:
    """Have the processes that multiprocessing and loky's resource tracker start meanwhile follow the caller's rules."""
    from multiprocessing import util  # noqa: PLC0415 - only where the caller uses it

    with held_back(), _lock:
        given = util._args_from_interpreter_flags  # type: ignore[attr-defined]  # no public name, [src] 3.11-3.13
        util._args_from_interpreter_flags = lambda: _flags(given())  # type: ignore[attr-defined]
        try:
            yield
        finally:
            util._args_from_interpreter_flags = given  # type: ignore[attr-defined]


def for_loky(executor: Any, start: Callable[..., None], *arguments: Any) -> None:
    """Have the workers that this executor of loky's will start follow the caller's rules, then call ``start``."""
    if not _searches_folder_first():
        executor._env = {**(executor._env or {}), _SAFE_PATH: "1"}
    executor._initializer = _start_loky_worker
    executor._initargs = os.environ.get(_SAFE_PATH), start, arguments


def is_set_for(executor: Any) -> bool:
    """Whether :func:`for_loky` has had this executor."""
    return executor._initializer is _start_loky_worker


def _start_loky_worker(safe_path: str | None, start: Callable[..., None], arguments: tuple[Any, ...]) -> None:
    # What items start is to be as if they had been run by the caller.
    if safe_path is None:
        os.environ.pop(_SAFE_PATH, None)
    start(*arguments)


def _flags(given: list[str]) -> list[str]:
    return given if _searches_folder_first() else ["-P", *given]


def _searches_folder_first() -> bool:
    """Whether the caller itself prefers modules of the current folder to those of the standard library."""
    path, library = caller_path(), os.path.dirname(os.__file__)
    before = path[: path.index(library)] if library in path else path
    return process_state.current_folder() in before
