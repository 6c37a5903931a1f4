"""How this process logs and warns, as its workers are to do it too."""

from __future__ import annotations

import contextlib
import logging
import pickle
import sys
import warnings
from typing import TYPE_CHECKING, Any

from anymap._host import forks
from anymap._propagate import log_records, shared_logging
from anymap._propagate.log_records import File, Setup

if TYPE_CHECKING:
    from collections.abc import Iterator

_UNCHANGED = "anymap"
"""Logging forgets this key of a cache of its own whenever a level changes anywhere."""
_made: dict[tuple[bool, bool], tuple[tuple[Any, ...], bytes]] = {}

forks.in_child(_made.clear)


def describe(*, alone: bool, here: bool) -> bytes:
    """Return this process's :class:`Setup`, pickled. ``alone``: for workers of its own; ``here``: on this host."""
    outer = shared_logging.of_this_thread()
    if outer is not None:
        return _passed_on(outer.setup, alone=alone, here=here)
    cache = getattr(logging.root, "_cache", {})
    seen = (list(warnings.filters), log_records.disabled_loggers())
    known = _made.get((alone, here))
    if known is not None and _UNCHANGED in cache and known[0] == seen and not _any_files():
        return known[1]
    if _UNCHANGED not in cache:
        _made.clear()
        cache[_UNCHANGED] = True
    files = tuple(_files()) if here else ()
    setup = Setup(
        levels=_levels(),
        disabled_loggers=seen[1],
        silenced=logging.root.manager.disable,
        filters=_filters() if alone else (),
        files=files,
        only_files=bool(files) and not _any_others(),
        caller=log_records.this_process(),
    )
    pickled = pickle.dumps(tuple(setup), 5)
    _made[alone, here] = seen, pickled
    return pickled


def _passed_on(outer: Setup, *, alone: bool, here: bool) -> bytes:
    """Describe, in a worker that others use too, what holds for the item that calls a map."""
    setup = outer._replace(
        filters=_filters() if alone else (),
        files=outer.files if here else (),
        only_files=here and outer.only_files,
        caller=log_records.this_process(),
    )
    return pickle.dumps(tuple(setup), 5)


def _filters() -> tuple[Any, ...]:
    return tuple(map(_as_text, list(warnings.filters)))


def _levels() -> dict[str, int]:
    levels = {"": logging.root.level}
    for name, logger in list(logging.root.manager.loggerDict.items()):
        if isinstance(logger, logging.Logger) and logger.level:
            levels[name] = logger.level
    return levels


def _as_text(entry: tuple[Any, ...]) -> tuple[Any, ...]:
    """Take a warnings filter apart: its patterns and its class may need imports that workers do without."""
    action, message, category, module, lineno = entry
    return action, _pattern(message), (category.__module__, category.__qualname__), _pattern(module), lineno


def _pattern(expression: Any) -> str:
    return getattr(expression, "pattern", expression) or ""


def _any_files() -> bool:
    rotating = sys.modules.get("anymap._propagate.rotating")
    return rotating is not None and (bool(rotating.handlers) or bool(log_records.forwarder.files))


def _files() -> Iterator[File]:
    if not _any_files():
        return
    yield from log_records.forwarder.files  # in a worker, for a map inside of its own
    rotating: Any = sys.modules["anymap._propagate.rotating"]
    for logger in _loggers():
        for handler in logger.handlers:
            if isinstance(handler, rotating.RotatingFile):
                name = "" if logger is logging.root else logger.name
                with contextlib.suppress(Exception):  # what cannot travel is written here, by the caller
                    yield File(name, tuple(handler.settings), _manner(handler))


def _any_others() -> bool:
    handlers = {handler for logger in _loggers() for handler in logger.handlers}
    return not handlers <= {log_records.forwarder, *sys.modules["anymap._propagate.rotating"].handlers}


def _loggers() -> list[logging.Logger]:
    loggers = [logging.root, *logging.root.manager.loggerDict.values()]
    return [logger for logger in loggers if isinstance(logger, logging.Logger)]


def _manner(handler: logging.Handler) -> bytes:
    from anymap._host import by_value  # noqa: PLC0415 - only wanted by few

    return by_value.dumps((handler.level, handler.formatter, handler.filters))
