"""Hold the program's signal handlers back while the engine works in the main thread.

Python calls a handler between any two steps of the main thread, and a handler may raise: in the middle of a ``with`` of
a future's condition, which stays locked then, or between the start of a thread and the line that notes it. So the engine
holds handlers back, and lets them in where it waits and where it runs the caller's code.

For that time the handlers are replaced by a function of this module, which notes the signal or calls the handler.
"""

from __future__ import annotations

import _signal  # type: ignore[import-not-found]
import functools
import signal
import threading
import time
from typing import TYPE_CHECKING, Any, ParamSpec, Self, TypeVar

from anymap._host import forks

if TYPE_CHECKING:
    from collections.abc import Callable
    from types import CodeType, FrameType

P = ParamSpec("P")
R = TypeVar("R")

_PATIENCE = 1.0
"""Seconds after which a signal that comes again is not held back: Ctrl-C, pressed twice, ends a program in any state."""
# ``signal`` makes members of its enumerations of what goes in and out, which takes fifteen times as long.
_NUMBERS = [int(number) for number in signal.valid_signals()]


class _Handlers:
    """The handlers of this process, as far as they are replaced."""

    def __init__(self) -> None:
        self.held = False
        """They are held back just now. Only the main thread writes it."""
        self.depth = 0
        """How many blocks hold them back."""
        self._real: dict[int, Callable[[int, FrameType | None], Any]] = {}
        self._noted: list[tuple[int, FrameType | None]] = []
        """Signals that came meanwhile."""
        self._noted_since = 0.0
        self._own = self._handle
        self._found: list[Any] = []
        """The handlers of all signals when they were last replaced."""
        self._callable: list[tuple[int, Callable[[int, FrameType | None], Any]]] = []
        """Those of them that are written in Python."""

    def replace(self) -> None:
        found = list(map(_signal.getsignal, _NUMBERS))
        if found != self._found:  # to look at each takes longer than to see that all are as they were
            written_in_python = [
                (number, handler)
                for number, handler in zip(_NUMBERS, found, strict=True)
                if callable(handler) and handler != self._own
            ]
            # Both or none: a handler may raise at any call above.
            self._callable, self._found = written_in_python, found
        for number, handler in self._callable:
            self._real[number] = handler
            _signal.signal(number, self._own)

    def put_back(self) -> None:
        for number, handler in list(self._real.items()):
            # Code of the caller's may have set another one meanwhile.
            if _signal.getsignal(number) is self._own:
                _signal.signal(number, handler)
            del self._real[number]

    def deliver(self) -> None:
        """Call the handlers of what came; each, though one before it raises."""
        if self._noted:
            number, frame = self._noted.pop(0)
            try:
                self._real[number](number, frame)
            finally:
                self.deliver()

    def begin_anew(self) -> None:
        """In a fork: what was going on is the parent's."""
        self.held, self.depth, self._noted = False, 0, []
        self.put_back()

    def _handle(self, number: int, frame: FrameType | None) -> None:
        if self.held and not self._has_waited_long():
            self._noted_since = time.monotonic() if not self._noted else self._noted_since
            self._noted.append((number, frame))
        else:
            self._noted[:] = [noted for noted in self._noted if noted[0] != number]
            self._real[number](number, frame)

    def _has_waited_long(self) -> bool:
        return bool(self._noted) and time.monotonic() - self._noted_since > _PATIENCE


CALLERS = (_Handlers._handle.__code__, _Handlers.deliver.__code__)
"""What calls handlers: where its frame is, what follows in a traceback is a handler's."""


def codes() -> set[CodeType]:
    """Return the code of the program's handlers that are written in Python."""
    found: set[CodeType | None] = set()
    for number in _NUMBERS:
        handler = _signal.getsignal(number)
        while isinstance(handler, functools.partial):
            handler = handler.func
        if callable(handler):
            found.add(getattr(handler, "__code__", getattr(type(handler).__call__, "__code__", None)))
    return {code for code in found if code is not None}


_handlers = _Handlers()
forks.in_child(_handlers.begin_anew)


class held_back:  # noqa: N801 - used as a function, and quicker than a generator made into one
    """Hold signal handlers back inside of this block; what came meanwhile is handled at its end.

    Only in the main thread, as no other one runs handlers. Blocks may be nested.
    """

    __slots__ = ("_held_before", "_is_first", "_is_main_thread")

    # A handler may raise at each call until the last one is replaced, and from the moment that it is not held back. What
    # stands between two calls is not interrupted.

    def __enter__(self) -> Self:
        self._is_main_thread = _is_main_thread()
        if self._is_main_thread:
            self._held_before, _handlers.held = _handlers.held, True
            self._is_first = not _handlers.depth
            _handlers.depth += 1
            try:
                if self._is_first:
                    _handlers.replace()
            except BaseException:
                self._leave()
                raise
        return self

    def __exit__(self, *_: object) -> None:
        if self._is_main_thread and _handlers.depth:  # else this is a fork of the thread that entered
            self._leave()

    def _leave(self) -> None:
        _handlers.held = self._held_before
        _handlers.depth -= 1
        try:
            if not self._held_before:
                _handlers.deliver()
        finally:
            if self._is_first:
                _handlers.put_back()


def let_in(call: Callable[P, R], *args: P.args, **kwargs: P.kwargs) -> R:
    """Call something that waits, or that is the caller's, and have signals handled as they come meanwhile."""
    if not (_handlers.held and _is_main_thread()):
        return call(*args, **kwargs)
    _handlers.held = False
    try:
        _handlers.deliver()
        return call(*args, **kwargs)
    finally:
        _handlers.held = _handlers.depth > 0


def _is_main_thread() -> bool:
    return threading.get_ident() == threading.main_thread().ident
