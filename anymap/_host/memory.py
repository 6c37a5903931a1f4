"""Why a worker of this host has died, where that was for want of memory."""

from __future__ import annotations

import os
import signal

from anymap._errors import OUT_OF_MEMORY
from anymap._host import forks

_CGROUPS = "/sys/fs/cgroup"
_MEMBERSHIP = "/proc/self/cgroup"
_UNLIMITED = 1 << 60
"""Bytes from which on the limit of a control group is none: version 1 has no word for that."""
_explained: int | None = None
"""How many processes of this control group the kernel had killed when that was last of interest."""


def note_kills() -> None:
    """Note, once a process, how many processes the kernel has killed for want of memory before it has workers."""
    global _explained  # noqa: PLW0603 - a fact about the process
    if _explained is None:
        _explained = _kills()


def explain(exitcode: int | None) -> str:
    """Return what is known of memory where a worker ended with this exit code; nothing where it was something else."""
    global _explained  # noqa: PLW0603 - a fact about the process
    if exitcode == OUT_OF_MEMORY:
        return f": it ran out of memory{_limits()}"
    if exitcode == -signal.SIGKILL and _explained is not None and _kills() > _explained:
        _explained += 1
        return f": the kernel killed a process of this control group for want of memory{_limits()}"
    return ""


def _limits() -> str:
    """Return the limits that hold for this process, which its workers inherit."""
    known = [f"{name} is {limit / 2**20:,.0f} MB" for name, limit in (*_limits_of_process(), *_limits_of_cgroup())]
    return f" ({', '.join(known)})" if known else ""


def _limits_of_process() -> list[tuple[str, int]]:
    try:
        import resource  # noqa: PLC0415 - not on Windows
    except ImportError:
        return []
    kinds = {"RLIMIT_AS": resource.RLIMIT_AS, "RLIMIT_DATA": resource.RLIMIT_DATA}
    limits = ((name, resource.getrlimit(kind)[0]) for name, kind in kinds.items())
    return [(name, limit) for name, limit in limits if limit != resource.RLIM_INFINITY]


def _limits_of_cgroup() -> list[tuple[str, int]]:
    text = _read("memory.max") or _read("memory.limit_in_bytes")
    limit = int(text) if text.strip().isdigit() else _UNLIMITED
    return [("the limit of the control group", limit)] if limit < _UNLIMITED else []


def _kills() -> int:
    """Return how many processes of this control group the kernel has killed for want of memory so far."""
    for line in (_read("memory.events") or _read("memory.oom_control")).splitlines():
        name, _, count = line.partition(" ")
        if name == "oom_kill":
            return int(count)
    return 0


def _read(name: str) -> str:
    """Return what a file of this process's control group says; nothing where there is none."""
    for folder in _folders():
        try:
            with open(os.path.join(folder, name), encoding="ascii") as file:
                return file.read()
        except OSError:  # of the other version, or not to be seen from in here
            continue
    return ""


def _folders() -> list[str]:
    """Return where the control group may be: version 1 has a tree for memory alone; a container may see but the top."""
    try:
        with open(_MEMBERSHIP, encoding="utf-8") as file:
            entries = [line.rstrip("\n").split(":", 2) for line in file]
    except OSError:
        return []
    found: list[str] = []
    for _, controllers, path in entries:
        if controllers == "" or "memory" in controllers.split(","):
            top = os.path.join(_CGROUPS, "memory") if controllers else _CGROUPS
            found += [top + path, top]
    return found


def _forget() -> None:
    global _explained  # noqa: PLW0603 - a fact about the process
    _explained = None


forks.in_child(_forget)
