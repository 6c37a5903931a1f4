"""Make the logging of a worker process that works for one caller alone what it is in the caller's process."""

from __future__ import annotations

import logging
import os
import sys
import warnings
from typing import TYPE_CHECKING, Any

from anymap._host import forks
from anymap._propagate.log_records import WARNING, find_class, forwarder, is_own, load, warning_as_told

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from anymap._propagate.log_records import Setup

_applied = b""
_at_home = os.getpid()
"""The process whose handlers are its own: a fork of it has got them from its parent."""
_levels_before: dict[str, int] = {}
_disabled: frozenset[str] = frozenset()
"""The loggers that are disabled as they are in the caller's process."""
_filters_to_come: tuple[Any, ...] = ()
"""The filters, while some of their classes are of modules that are not imported yet."""
_lock = forks.Lock()


def apply(pickled: bytes) -> None:
    """Make the logging of this process like that. Costs next to nothing where it is already."""
    global _applied  # noqa: PLW0603 - a fact about the process
    if pickled != _applied or _is_fork():
        if is_own(pickled):
            return
        with _lock:
            _set_up(load(pickled))
            _applied = pickled
    elif _filters_to_come and any(category[0] in sys.modules for category in _to_come()):
        _set_filters(_filters_to_come)


def _is_fork() -> bool:
    return _at_home != os.getpid()


def _set_up(setup: Setup) -> None:
    global _at_home  # noqa: PLW0603 - a fact about the process
    if _is_fork():
        _at_home = os.getpid()
        for logger in [logging.root, *logging.root.manager.loggerDict.values()]:
            if isinstance(logger, logging.Logger):
                logger.handlers = []
    if forwarder not in logging.root.handlers:
        logging.root.addHandler(forwarder)
        _show_warnings_there()
    forwarder.use(setup.files, only=setup.only_files)
    logging.disable(setup.silenced)
    _set_levels(setup.levels)
    _set_disabled(frozenset(setup.disabled_loggers))
    _set_filters(setup.filters)


def _set_levels(levels: Mapping[str, int]) -> None:
    for name in _levels_before.keys() - levels.keys():
        logging.getLogger(name or None).setLevel(_levels_before.pop(name))
    for name, level in levels.items():
        logger = logging.getLogger(name or None)
        _levels_before.setdefault(name, logger.level)
        if logger.level != level:
            logger.setLevel(level)


def _set_disabled(names: frozenset[str]) -> None:
    global _disabled  # noqa: PLW0603 - a fact about the process
    for name in _disabled ^ names:
        logging.getLogger(name).disabled = name in names
    _disabled = names


def _set_filters(filters: tuple[Any, ...]) -> None:
    global _filters_to_come  # noqa: PLW0603 - a fact about the process
    _filters_to_come = ()
    warnings.resetwarnings()
    for action, message, category, module, lineno in filters:
        kind = find_class(*category)
        if kind is None:
            _filters_to_come = filters
        else:
            warnings.filterwarnings(action, message, kind, module, lineno, append=True)


def _to_come() -> list[tuple[str, str]]:
    return [entry[2] for entry in _filters_to_come if find_class(*entry[2]) is None]


def _show_warnings_there() -> None:
    if getattr(warnings.showwarning, "__name__", "") != _show_there.__name__:
        _showing_here.append(warnings.showwarning)
        warnings.showwarning = _show_there


_showing_here: list[Callable[..., None]] = []


def _show_there(
    message: Any, category: type[Warning], filename: str, lineno: int, file: Any = None, line: str | None = None
) -> None:
    """Stand in a worker for ``warnings.showwarning``."""
    from anymap._in_worker import tell  # noqa: PLC0415 - workers load no more than they need

    told = warning_as_told(message, category, filename, lineno, line)
    if file is not None or not tell.tell(WARNING, told):
        _showing_here[-1](message, category, filename, lineno, file, line)
