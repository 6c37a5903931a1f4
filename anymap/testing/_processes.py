"""Which processes there are below this one."""

from __future__ import annotations

import os
from collections import defaultdict
from contextlib import suppress

_ONE_FOR_ALL = b"resource_tracker"
"""Named on the command line of the process that multiprocessing and loky start once, and keep to the program's end."""


def below() -> set[int]:
    """Return the process ids of all living descendants; none where the system does not list them as Linux does."""
    if not os.path.isdir("/proc/self"):
        return set()
    children: dict[int, list[int]] = defaultdict(list)
    for name in filter(str.isdigit, os.listdir("/proc")):
        with suppress(OSError):
            state, parent = _state(name)
            if state != "Z" and not _is_for_all(name):
                children[parent].append(int(name))
    found: set[int] = set()
    heads = [os.getpid()]
    while heads:
        heads = [pid for head in heads for pid in children[head]]
        found.update(heads)
    return found


def _state(name: str) -> tuple[str, int]:
    """Return a process's state and its parent, which stand behind its name in parentheses (man 5 proc)."""
    with open(f"/proc/{name}/stat", encoding="utf-8", errors="replace") as file:
        state, parent = file.read().rpartition(")")[2].split()[:2]
    return state, int(parent)


def _is_for_all(name: str) -> bool:
    with open(f"/proc/{name}/cmdline", "rb") as file:
        return _ONE_FOR_ALL in file.read()
