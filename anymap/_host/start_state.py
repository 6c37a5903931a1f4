"""What a process has from its start, and cannot be given later: another one has to be started."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING, Any

try:
    import resource
except ImportError:  # Windows
    resource = None  # type: ignore[assignment]

if TYPE_CHECKING:
    from collections.abc import Callable

_IDS = ("getresuid", "getresgid") if hasattr(os, "getresuid") else ("getuid", "geteuid", "getgid", "getegid")
_READ: list[Callable[[], Any]] = [getattr(os, name) for name in _IDS if hasattr(os, name)]
if hasattr(os, "getgroups"):
    _READ.append(lambda: tuple(os.getgroups()))
if hasattr(os, "getpriority"):
    _READ.append(lambda: os.getpriority(os.PRIO_PROCESS, 0))
if hasattr(os, "sched_getaffinity"):
    _READ += [lambda: frozenset(os.sched_getaffinity(0)), lambda: os.sched_getscheduler(0)]
_LIMITS = {getattr(resource, name) for name in dir(resource) if name.startswith("RLIMIT_")}


def current() -> tuple[Any, ...]:
    """Return the user and groups, the niceness, the CPUs and the limits of this thread, and of all that it starts."""
    limits = map(resource.getrlimit, _LIMITS) if _LIMITS else ()
    return (*[read() for read in _READ], *limits)
