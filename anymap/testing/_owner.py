"""The thread of an exam that owns the engine: some engines end with the thread that started them."""

from __future__ import annotations

import contextvars
import sys
import threading
import traceback
from concurrent.futures import Future
from queue import SimpleQueue
from typing import TYPE_CHECKING, Any, TypeVar

if TYPE_CHECKING:
    from collections.abc import Callable

T = TypeVar("T")


class Owner:
    """Makes one call after another in a thread that may be left behind, so that a backend that hangs does not hang the exam."""

    def __init__(self) -> None:
        self._calls: SimpleQueue[Callable[[], object]] = SimpleQueue()
        self._thread = threading.Thread(target=self._work, name="anymap-exam", daemon=True)
        self._thread.start()

    def call(self, call: Callable[[], T]) -> Future[T]:
        """Have ``call`` made in the context of this call; return what it will return or raise."""
        ended: Future[T] = Future()
        context = contextvars.copy_context()
        self._calls.put(lambda: _settle(ended, lambda: context.run(call)))
        return ended

    def stack(self) -> str:
        """Say where the thread is."""
        return stack(self._thread)

    def _work(self) -> None:
        while True:
            self._calls.get()()


def start(call: Callable[[], T]) -> Future[T]:
    """Make a call in a thread of its own; return what it will return or raise."""
    ended: Future[T] = Future()
    context = contextvars.copy_context()
    work = threading.Thread(target=_settle, args=(ended, lambda: context.run(call)), name="anymap-exam", daemon=True)
    work.start()
    return ended


def stack(thread: threading.Thread) -> str:
    """Say where a thread is."""
    frame = sys._current_frames().get(thread.ident or 0)
    return "".join(traceback.format_stack(frame)[-8:]) if frame is not None else ""


def _settle(ended: Future[Any], call: Callable[[], Any]) -> None:
    try:
        ended.set_result(call())
    except BaseException as exc:  # noqa: BLE001 - raised where the result is asked for
        ended.set_exception(exc)
