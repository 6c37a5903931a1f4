"""What a tree of processes takes of the machine, and what machine that is."""

from __future__ import annotations

import os
import platform
import sys
import threading
from contextlib import suppress
from importlib import metadata
from typing import Any, Self

import psutil

LIBRARIES = (
    "anypmap",
    "cloudpickle",
    "dask",
    "distributed",
    "joblib",
    "mpire",
    "multiprocess",
    "numpy",
    "p_tqdm",
    "parmap",
    "pathos",
    "Pebble",
    "pqdm",
    "tqdm",
)
_PRIVATE = ("Pss_Anon:", "Pss_File:")


def tree(pid: int) -> list[psutil.Process]:
    with suppress(psutil.NoSuchProcess):
        root = psutil.Process(pid)
        return [root, *root.children(recursive=True)]
    return []


def cpu_seconds(pid: int) -> float:
    """Return what a process, those below it, and those of them that have ended have used of all CPUs."""
    total = 0.0
    for process in tree(pid):
        with suppress(psutil.NoSuchProcess):
            times = process.cpu_times()
            total += times.user + times.system + times.children_user + times.children_system
    return total


class PeakMemory:
    """Watches a tree of processes from a thread; ``peak`` is the largest sum seen, in bytes.

    Pages that several processes map count once. Shared memory is counted for the whole machine, as far as it has grown
    since: a file in ``/dev/shm`` that nobody maps just now takes memory, too.
    """

    def __init__(self, pid: int, interval: float = 0.02) -> None:
        self.peak = 0
        self._pid = pid
        self._interval = interval
        self._shared = _shared_memory()
        self._over = threading.Event()
        self._thread = threading.Thread(target=self._watch, daemon=True)

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._over.set()
        self._thread.join()
        # What was too short to be seen: the answer is still there.
        self._look()

    def _watch(self) -> None:
        while not self._over.wait(self._interval):
            self._look()

    def _look(self) -> None:
        private = sum(_private_memory(process.pid) for process in tree(self._pid))
        self.peak = max(self.peak, private + max(_shared_memory() - self._shared, 0))


def _private_memory(pid: int) -> int:
    with suppress(OSError), open(f"/proc/{pid}/smaps_rollup") as file:
        return sum(1024 * int(line.split()[1]) for line in file if line.startswith(_PRIVATE))
    return 0


def _shared_memory() -> int:
    with open("/proc/meminfo") as file:
        return next(1024 * int(line.split()[1]) for line in file if line.startswith("Shmem:"))


def machine() -> dict[str, Any]:
    """Describe where this runs, by nothing that names a host or its owner."""
    return {
        "cpus": len(os.sched_getaffinity(0)),
        "processor": _processor(),
        "memory_gb": round(psutil.virtual_memory().total / 2**30),
        "system": f"{platform.system()} {'.'.join(platform.release().split('.')[:2])}",
        "python": f"{platform.python_implementation()} {platform.python_version()}",
        "load": round(os.getloadavg()[0], 2),
    }


def versions() -> dict[str, str]:
    """Return the version of each library that takes part."""
    found = {}
    for name in LIBRARIES:
        with suppress(metadata.PackageNotFoundError):
            found[name] = metadata.version(name)
    return found


def _processor() -> str:
    with suppress(OSError, StopIteration), open("/proc/cpuinfo") as file:
        return next(line.split(":", 1)[1].strip() for line in file if line.startswith("model name"))
    return platform.machine() or sys.platform
