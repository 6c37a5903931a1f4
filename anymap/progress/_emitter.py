from __future__ import annotations

import logging
import threading
from typing import TYPE_CHECKING

from anymap.progress.events import Finished

if TYPE_CHECKING:
    from collections.abc import Iterable

    from anymap.progress.events import Event, Sink

__all__ = ["Emitter"]


class Emitter:
    """Hands the events of one map to its sinks, one event at a time, whichever threads they come from.

    A sink that raises is reported once to the logger ``anymap`` and not called again; the map goes on. What is no
    ``Exception``, such as ``KeyboardInterrupt``, passes. After ``Finished`` nobody listens any more: a late event of
    another thread goes nowhere.
    """

    def __init__(self, sinks: Iterable[Sink]) -> None:
        self._sinks = list(sinks)
        # Reentrant: a signal handler may end the map while its own thread is inside a sink.
        self._lock = threading.RLock()

    def __bool__(self) -> bool:
        return bool(self._sinks)

    def emit(self, event: Event) -> None:
        """Call each sink with ``event``."""
        with self._lock:
            listeners = list(self._sinks)
            if isinstance(event, Finished):
                self._sinks.clear()
            for sink in listeners:
                self._call(sink, event)

    def _call(self, sink: Sink, event: Event) -> None:
        try:
            sink(event)
        except Exception:
            # By identity: a sink may compare equal to another.
            self._sinks = [other for other in self._sinks if other is not sink]
            logging.getLogger("anymap").exception("progress sink %r raised an error and is not called again", sink)
