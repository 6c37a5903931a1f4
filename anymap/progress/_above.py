"""Keeps bars and lines of text apart: what is written in here stands above all bars."""

from __future__ import annotations

import contextlib
import functools
import logging
import sys
from typing import TYPE_CHECKING, Any, NamedTuple

from anymap._host import forks

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from contextlib import AbstractContextManager

__all__ = ["above_bars", "guard_handlers", "is_any_bar_open", "release_handlers"]

_lock = forks.Lock()
_guarded: list[logging.Handler] = []


class Drawing(NamedTuple):
    """One way of drawing bars.

    Attributes:
        is_open: Tells whether a bar of this kind is on the screen.
        taken_away: Returns a context in which its bars are off the screen.
    """

    is_open: Callable[[], bool]
    taken_away: Callable[[], AbstractContextManager[object]]


_drawings: list[Drawing] = []


def register(drawing: Drawing) -> None:
    """Keep what this draws and lines of text apart from now on."""
    _drawings.append(drawing)


@contextlib.contextmanager
def above_bars() -> Iterator[None]:
    """Write to the terminal in here: bars that are open are taken away, and drawn again below."""
    with contextlib.ExitStack() as taken_away:
        for drawing in _drawings:
            taken_away.enter_context(drawing.taken_away())
        yield


def guard_handlers() -> None:
    """A bar has been opened: from now on, have handlers that write to the terminal write above it."""
    with _lock:
        for handler in _on_terminal():
            if "emit" not in vars(handler):
                handler.emit = functools.partial(_emit_above, handler, handler.emit)  # type: ignore[method-assign]
                _guarded.append(handler)


def release_handlers() -> None:
    """A bar has been closed. With the last one, handlers become again what they were."""
    with _lock:
        if is_any_bar_open():
            return
        while _guarded:
            handler = _guarded.pop()
            if _is_guard(vars(handler).get("emit")):
                del handler.emit


def is_any_bar_open() -> bool:
    """Tell whether a bar of ours is on the screen."""
    return any(drawing.is_open() for drawing in _drawings)


def _is_guard(emit: Any) -> bool:
    return isinstance(emit, functools.partial) and emit.func is _emit_above


def _emit_above(
    handler: logging.StreamHandler[Any], emit: Callable[[logging.LogRecord], None], record: logging.LogRecord
) -> None:
    with above_bars(), _through_rich(handler):
        emit(record)


@contextlib.contextmanager
def _through_rich(handler: logging.StreamHandler[Any]) -> Iterator[None]:
    """Where rich has put something in the place of the stream that the handler holds, write to that."""
    held = handler.stream
    stands_in = [now for now in (sys.stdout, sys.stderr) if getattr(now, "rich_proxied_file", None) is held]
    if not stands_in:
        yield
        return
    handler.stream = stands_in[0]
    try:
        yield
    finally:
        handler.stream = held


def _on_terminal() -> Iterator[logging.StreamHandler[Any]]:
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
