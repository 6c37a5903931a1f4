"""Whether gevent or eventlet has put its own in the place of what the standard library waits with."""

from __future__ import annotations

import sys

_MODULES = ("os", "select", "socket", "subprocess", "thread", "threading")


def patched_by() -> str | None:
    """Return the name of the library that has patched threads, sockets or processes in this program."""
    gevent = sys.modules.get("gevent.monkey")
    if gevent is not None and any(map(gevent.is_module_patched, _MODULES)):
        return "gevent"
    eventlet = sys.modules.get("eventlet.patcher")
    if eventlet is not None and any(map(eventlet.is_monkey_patched, _MODULES)):
        return "eventlet"
    return None
