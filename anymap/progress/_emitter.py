from __future__ import annotations

import threading
from collections.abc import Iterable
from contextvars import copy_context
from typing import TYPE_CHECKING, Any, get_args

from anymap._errors import ConfigError
from anymap._host import own_log
from anymap.progress.events import BY_DEFAULT, Event, Finished

if TYPE_CHECKING:
    from contextvars import Context

    from anymap.progress.events import Sink

__all__ = ["Emitter"]


class Emitter:
    """Hands the events of one map to the sinks that want them, one event at a time, whichever threads they come from.

    A sink that raises is reported once to the logger ``anymap`` and not called again; the map goes on. What is no
    ``Exception``, such as ``KeyboardInterrupt``, passes. After ``Finished`` no sink listens any more: a late event of
    another thread goes nowhere.

    Each call is in a copy of ``context``, by default that in which the emitter is made: a sink finds the context variables
    of the map's caller, whichever thread tells it.
    """

    def __init__(self, sinks: Iterable[Sink], context: Context | None = None) -> None:
        self._context = context or copy_context()
        self._sinks = [(sink, wants(sink)) for sink in sinks]
        self._wanted = frozenset[type[Any]]().union(*(wanted for _, wanted in self._sinks))
        # Reentrant: a signal handler may end the map while its own thread is inside a sink.
        self._lock = threading.RLock()

    def __bool__(self) -> bool:
        return bool(self._sinks)

    def wants(self, *kinds: type[Any]) -> bool:
        """Tell whether any sink wants events of any of these kinds."""
        return not self._wanted.isdisjoint(kinds)

    def emit(self, event: Event) -> None:
        """Call each sink that wants it with ``event``."""
        with self._lock:
            listeners = [sink for sink, wanted in self._sinks if type(event) in wanted]
            if isinstance(event, Finished):
                self._sinks.clear()
            for sink in listeners:
                self._call(sink, event)

    def _call(self, sink: Sink, event: Event) -> None:
        try:
            # A copy for each: a sink that ends the map is inside of its own call when it is told so.
            self._context.copy().run(sink, event)
        except Exception:  # noqa: BLE001 - the sink is the user's
            # By identity: a sink may compare equal to another.
            self._sinks = [each for each in self._sinks if each[0] is not sink]
            own_log.exception("progress sink %r raised an error and is not called again", sink)


def wants(sink: Sink) -> frozenset[type[Any]]:
    """Return the types of the events that a sink is to be called with.

    Raises:
        ConfigError: what it says it wants are no types of events.
    """
    wanted = getattr(sink, "wants", None)
    if wanted is None:
        return BY_DEFAULT
    kinds = frozenset(wanted) if isinstance(wanted, Iterable) else frozenset([wanted])
    if not kinds <= _KINDS:
        raise ConfigError(f"progress: sink {sink!r} wants {wanted!r}, which are not all types of events")
    return kinds


_KINDS = frozenset(get_args(Event))
