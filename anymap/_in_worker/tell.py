"""Telling the map that the running code is inside of something, at once: by a call, a pipe, a channel, or the answer.

A listener asks for a topic on the caller's side; a message without a listener goes nowhere and costs next to
nothing.
"""

from __future__ import annotations

import itertools
import os
import select
import time
from collections import OrderedDict
from typing import TYPE_CHECKING, Any

from anymap._host import forks, status_board
from anymap._host.live_messages import LARGEST, Outbox, Told, encode, frames, host
from anymap._worker.context import task_context, task_contexts

if TYPE_CHECKING:
    from anymap._worker.context import TaskContext

_WHOLE = min(getattr(select, "PIPE_BUF", 512), 4096)
"""Bytes that a pipe takes whole or not at all, however many write to it."""
_KEPT_PIPES = 4


def tell(topic: str, message: Any, *, patience: float = 1.0, place: TaskContext | None = None) -> bool:
    """Tell the map that this code runs in; return whether anybody there listens, and it is on its way.

    ``message`` is a plain value, which can be pickled: it reaches the listeners of ``topic`` with the item's index, the
    process id and the host. What one thread tells arrives in that order. Where workers share the caller's host it is
    out of this process when the call returns, and arrives though the worker be killed now.

    ``patience`` is how many seconds to wait at most where the caller's side is slower than the workers. What does
    not get through then is dropped; the map counts it and says so, unless ``patience`` is 0: that is for what a later
    message makes good. ``place``: one that :func:`find` has found before. Raises nothing.
    """
    try:
        place = place or find(topic)
        return place is not None and send(place, topic, message, patience=patience)
    except Exception:  # noqa: BLE001 - it is not the user's concern
        return False


def find(topic: str, place: TaskContext | None = None) -> TaskContext | None:
    """Return the place in the nearest map around this code, or around ``place``, that listens to ``topic``.

    Threads that a function has started itself are in the map of their process, if there is but one.
    """
    place = place or task_context.get()
    if place is None and len(task_contexts) == 1:
        place = task_contexts[0]
    while place is not None:
        tells = place.spec.tells
        if tells is not None and topic in tells.topics:
            return place
        place = place.spec.outer
    return None


def send(
    place: TaskContext,
    topic: str,
    message: Any,
    *,
    patience: float = 1.0,
    pid: int | None = None,
    name: str | None = None,
) -> bool:
    """Do :func:`tell` for a place that was found before. ``pid`` and ``name`` of the host: whose message is passed on."""
    tells = place.spec.tells
    assert tells is not None  # noqa: S101 - it was found by its topics
    here = os.getpid()
    told = Told(topic, message, place.item(), here if pid is None else pid, name or host(), here)
    if tells.hear is not None:
        tells.hear(told)
        return True
    packed = encode(told)
    if len(packed) <= LARGEST and _pass_on(place, tells.path, tells.tag, packed, patience):
        return True
    if patience:
        _count_dropped(place, topic)
    return False


def _pass_on(place: TaskContext, path: str | None, tag: int, packed: bytes, patience: float) -> bool:
    if path is None:
        if place.outbox is None:
            place.outbox = Outbox(None)
        taken: bool = place.outbox.put(packed)
        return taken
    if place.board is not None:
        status_board.note_told(place.board)
    return _pipe(path).write(packed, tag, patience)


def _count_dropped(place: TaskContext, topic: str) -> None:
    """Have the answer say it, in the last of its messages."""
    if place.outbox is None:
        place.outbox = Outbox(None)
    place.outbox.dropped[topic] += 1


# --- the pipe to a caller on this host --------------------------------------------------------------------------------

_numbers = itertools.count()
_pipes: OrderedDict[str, _Pipe] = OrderedDict()
_lock = forks.Lock()


def _pipe(path: str) -> _Pipe:
    pipe = _pipes.get(path)
    if pipe is None:
        with _lock:
            pipe = _pipes[path] = _Pipe(path)
            while len(_pipes) > _KEPT_PIPES:
                _pipes.popitem(last=False)
    return pipe


class _Pipe:
    """The writing end of a caller's pipe, for all threads of this process. Closed when no thread writes any more."""

    def __init__(self, path: str) -> None:
        self._fd = os.open(path, os.O_WRONLY | os.O_NONBLOCK | os.O_CLOEXEC)
        self._is_stuck = False
        """The last message was given up: the next ones do not wait."""

    def __del__(self) -> None:
        if hasattr(self, "_fd"):
            os.close(self._fd)

    def write(self, packed: bytes, tag: int, patience: float) -> bool:
        """Return whether the message was written. Of one that was not, some frames may have been."""
        give_up: float | None = None
        for frame in frames(packed, tag, os.getpid(), next(_numbers) & 0xFFFFFFFF, _WHOLE):
            while not self._write(frame):
                now = time.monotonic()
                give_up = now + (0.0 if self._is_stuck else patience) if give_up is None else give_up
                if now >= give_up:
                    self._is_stuck = patience > 0
                    return False
                self._wait(give_up - now)
        self._is_stuck = False
        return True

    def _write(self, frame: bytes) -> bool:
        try:
            return os.write(self._fd, frame) > 0
        except BlockingIOError:
            return False

    def _wait(self, seconds: float) -> None:
        if hasattr(select, "poll"):
            poll = select.poll()
            poll.register(self._fd, select.POLLOUT)
            poll.poll(seconds * 1000)
        else:
            select.select([], [self._fd], [], seconds)
