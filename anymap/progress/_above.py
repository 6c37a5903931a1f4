"""Keeps bars and lines of text apart: what is written in here stands above all bars."""

from __future__ import annotations

import contextlib
import functools
import logging
import os
import sys
import threading
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

__all__ = ["above_bars", "guard_handlers", "release_handlers"]

_lock = threading.RLock()
_guarded: list[logging.Handler] = []
_bars: set[int] = set()


@contextlib.contextmanager
def above_bars() -> Iterator[None]:
    """Write to the terminal in here: bars that are open are taken away, and drawn again below."""
    bars = sys.modules.get("anymap.progress._tqdm")
    if bars is None or not bars.Bar._instances:
        yield
        return
    with bars.Bar.external_write_mode(file=sys.stderr):
        yield


def guard_handlers(bar: object) -> None:
    """From now on, have handlers that write to the terminal write above the bars; until ``bar`` is gone."""
    with _lock:
        _bars.add(id(bar))
        for handler in _on_terminal():
            if "emit" not in vars(handler):
                handler.emit = functools.partial(_emit_above, handler.emit)  # type: ignore[method-assign]
                _guarded.append(handler)


def release_handlers(bar: object) -> None:
    """The bar is gone. With the last one, handlers become again what they were."""
    with _lock:
        _bars.discard(id(bar))
        if _bars:
            return
        while _guarded:
            handler = _guarded.pop()
            if _is_guard(vars(handler).get("emit")):
                del handler.emit


def _is_guard(emit: Any) -> bool:
    return isinstance(emit, functools.partial) and emit.func is _emit_above


def _emit_above(emit: Callable[[logging.LogRecord], None], record: logging.LogRecord) -> None:
    with above_bars():
        emit(record)


def _on_terminal() -> Iterator[logging.Handler]:
    """Yield the handlers, of whatever logger, that write where bars are drawn."""
    loggers = [logging.getLogger(), *logging.getLogger().manager.loggerDict.values()]
    handlers = [handler for logger in loggers for handler in getattr(logger, "handlers", ())]
    if logging.lastResort is not None:
        handlers.append(logging.lastResort)
    for handler in handlers:
        if isinstance(handler, logging.StreamHandler) and _is_terminal(handler.stream):
            yield handler


def _is_terminal(stream: Any) -> bool:
    if stream in (sys.stdout, sys.stderr, sys.__stdout__, sys.__stderr__):
        return True
    try:
        return bool(stream.isatty())
    except (AttributeError, ValueError):
        return False


def _in_child() -> None:
    # The bars are the parent's.
    _bars.clear()
    release_handlers(None)


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_in_child)
