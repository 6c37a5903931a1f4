"""Whether gevent or eventlet has put its own in the place of what the standard library waits with."""

from __future__ import annotations

from anymap._host import loaded

_MODULES = ("os", "select", "socket", "subprocess", "thread", "threading")


def patched_by() -> str | None:
    """Return the name of the library that has patched threads, sockets or processes in this program."""
    is_patched = loaded.attribute("gevent.monkey", "is_module_patched")
    if is_patched is not None and any(map(is_patched, _MODULES)):
        return "gevent"
    is_patched = loaded.attribute("eventlet.patcher", "is_monkey_patched")
    if is_patched is not None and any(map(is_patched, _MODULES)):
        return "eventlet"
    return None
