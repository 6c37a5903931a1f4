"""What items log, as events. Only for sinks that want them."""

from __future__ import annotations

from collections import deque
from typing import TYPE_CHECKING

from anymap._propagate import replay
from anymap._propagate.log_records import LOGGED, RECORD
from anymap.progress.events import LogRecord

if TYPE_CHECKING:
    import logging

    from anymap._engine.plan import Plan
    from anymap._engine.telemetry.measures import Timings
    from anymap._engine.telemetry.router import MessageRouter
    from anymap._host.live_messages import Told
    from anymap.progress import Emitter

_MOST = 10_000
"""So many wait to be told, at most; the oldest give way."""


class Records:
    """Receives what workers forward, or where memory is shared what items log, and passes it on to other listeners."""

    def __init__(self, plan: Plan, emitter: Emitter, router: MessageRouter, timings: Timings) -> None:
        self._backend = plan.backend.name
        self._emitter = emitter
        self._timings = timings
        self._waiting: deque[LogRecord] = deque(maxlen=_MOST)
        if RECORD in plan.listeners:  # else they are not forwarded
            router.listen(RECORD, self._hear)
            router.listen(LOGGED, self._note_logged)

    def flush(self) -> None:
        """Emit what has come since the last time."""
        while self._waiting:
            self._emitter.emit(self._waiting.popleft())

    def _hear(self, told: Told) -> None:
        record = replay.record_of(told, self._backend)
        self._note(record)
        replay.handle(record)

    def _note_logged(self, told: Told) -> None:
        self._note(told.message)

    def _note(self, record: logging.LogRecord) -> None:
        self._waiting.append(LogRecord(record=record, elapsed=self._timings.elapsed))
