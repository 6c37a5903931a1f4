"""Live messages of items: how they get here from wherever items run, and which listeners get them."""

from __future__ import annotations

import threading
from collections import Counter, deque
from contextvars import copy_context
from typing import TYPE_CHECKING, Any

from anymap._host import live_messages, own_log, pipe_reader
from anymap._in_worker import tell
from anymap._worker.context import task_context
from anymap._worker.protocol import Tells

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping
    from contextvars import Context

    from anymap._host.live_messages import Told
    from anymap._host.pipe_reader import Receiver
    from anymap._worker.context import TaskContext

    Listener = Callable[[Told], object]

_MOST_WAITING = 64 * 1024 * 1024
"""Bytes that came by a channel or with answers and have not been handled."""


class MessageRouter:
    """The listeners of one map, by topic.

    Each call is in a copy of ``context``, by default that of the thread that makes this.

    They are called on the thread that runs the item where memory is shared, on one thread for all maps where workers
    are processes of this host, else on a thread of the map's. So several may call at once, and a listener must not take
    long. One that raises is reported once and not called again.

    A map that is itself inside of another one passes on to that what only the other one listens to.
    """

    def __init__(self, listeners: Mapping[str, Listener], context: Context | None = None) -> None:
        self._listeners = dict(listeners)
        self._context = context or copy_context()
        self._dropped: Counter[str] = Counter()
        self._outer: TaskContext | None = None
        self._receiver: Receiver | None = None
        self._waiting: deque[list[bytes]] = deque()
        self._waiting_bytes = 0
        self._queue_lock = threading.Lock()
        self._catching_up = threading.RLock()
        self._wake: Callable[[], object] = _nothing

    def listen(self, topic: str, listener: Listener) -> None:
        """Have ``listener`` called too. Before the first task is made."""
        self._listeners[topic] = listener

    # --- how it gets here -----------------------------------------------------------------------------------------

    def tells_in_memory(self) -> Tells | None:
        """Return what threads of this process tell it by. What only an outer map wants, they tell that one."""
        return Tells(frozenset(self._listeners), hear=self.hear) if self._listeners else None

    def tells_in_bytes(self, *, remote: bool) -> Tells | None:
        """Return what other processes tell it by."""
        self._outer = task_context.get()
        topics = _all_topics(self._outer).union(self._listeners)
        if not topics:
            return None
        if not remote:
            self._receiver = pipe_reader.open_receiver(self._receive)
        if self._receiver is None:
            return Tells(topics)
        return Tells(topics, path=self._receiver.path, tag=self._receiver.tag)

    def receive_bundle(self, bundle: bytes) -> None:
        """Take what came by a channel."""
        self.receive_messages(live_messages.decode_bundle(bundle))

    def receive_messages(self, messages: list[bytes]) -> None:
        """Take what came with an answer: on whatever thread, which has other things to do."""
        size = sum(map(len, messages))
        with self._queue_lock:
            if self._waiting_bytes + size > _MOST_WAITING:
                self._dropped.update(live_messages.decode(message).topic for message in messages)
                return
            self._waiting.append(messages)
            self._waiting_bytes += size
        self._wake()

    def wake_by(self, wake: Callable[[], object]) -> None:
        """Have ``wake`` called when :meth:`catch_up` should be."""
        self._wake = wake

    def catch_up(self) -> None:
        """Hear what has come by the channel or with answers."""
        if not self._waiting:
            return
        with self._catching_up:  # what one thread told is heard in its order
            while (messages := self._next_messages()) is not None:
                for message in messages:
                    self._receive(message)

    def _next_messages(self) -> list[bytes] | None:
        with self._queue_lock:
            if not self._waiting:
                return None
            messages = self._waiting.popleft()
            self._waiting_bytes -= sum(map(len, messages))
            return messages

    def settle(self, patience: float = pipe_reader.TO_SETTLE) -> None:
        """See to it that what workers have told so far has been heard, if that takes no more than so many seconds."""
        self.catch_up()
        if self._receiver is not None:
            self._receiver.settle(patience)

    # --- listeners -------------------------------------------------------------------------------------------------

    def hear(self, told: Told) -> None:
        """Hand a message to its listeners."""
        listener = self._listeners.get(told.topic)
        if listener is not None:
            self._call(listener, told)
        elif told.topic == live_messages.DROPPED:
            with self._queue_lock:  # another thread may be adding to it
                self._dropped.update(told.message)
        elif self._outer is not None and (place := tell.find(told.topic, self._outer)) is not None:
            tell.send(place, told.topic, told.message, pid=told.pid, name=told.host)

    def close(self, *, settle: bool) -> None:
        """Hear nothing any more, and say what was never heard. ``settle``: something may be on its way by the pipe."""
        if settle:
            self.settle()
        self.catch_up()
        if self._receiver is not None:
            self._receiver.close()
        self._wake = _nothing
        self._listeners.clear()
        if self._dropped:
            own_log.warning(
                "workers told more than could be passed on, so some was dropped: %s",
                ", ".join(f"{count} of {topic!r}" for topic, count in self._dropped.items()),
            )

    def _receive(self, message: bytes) -> None:
        self.hear(live_messages.decode(message))

    def _call(self, listener: Listener, told: Told) -> None:
        try:
            # A copy, as several may call at once, and a context can be entered but once.
            self._context.copy().run(listener, told)
        except Exception:  # noqa: BLE001 - the listener is the caller's
            self._listeners.pop(told.topic, None)
            own_log.exception("a listener to %r raised an error and is not called again", told.topic)


def _all_topics(place: TaskContext | None) -> frozenset[str]:
    topics: frozenset[str] = frozenset()
    while place is not None:
        if place.spec.tells is not None:
            topics |= place.spec.tells.topics
        place = place.spec.outer
    return topics


def _nothing(*_: Any) -> None:
    pass
