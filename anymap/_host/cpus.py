"""How many CPUs this process may use, and what a ``workers`` argument comes to."""

from __future__ import annotations

import functools
import math
import os
import re

from anymap._errors import ConfigError

_SHARE = re.compile(r"\s*(\d+(?:\.\d+)?)\s*%\s*")


def available() -> int:
    """Count the CPUs that this process may use: its affinity, and no more than its control group's quota."""
    try:
        count = len(os.sched_getaffinity(0))
    except AttributeError:  # not on macOS and Windows
        count = os.cpu_count() or 1
    quota = _quota()
    return count if quota is None else max(1, min(count, math.ceil(quota)))


@functools.cache
def _quota() -> float | None:
    """Return the CPUs that control group version 2 grants (kernel.org, cgroup-v2: ``cpu.max``)."""
    try:
        path = _read("/proc/self/cgroup").strip().rpartition(":")[2]
        limit, period = _read(os.path.join("/sys/fs/cgroup", path.lstrip("/"), "cpu.max")).split()
        return None if limit == "max" else int(limit) / int(period)
    except (OSError, ValueError):
        return None


def _read(path: str) -> str:
    with open(path, encoding="utf-8") as file:
        return file.read()


def count_workers(workers: int | str | None, where: str = "workers") -> int | None:
    """Turn a ``workers`` setting into a number; ``None`` leaves it to the backend.

    Negative numbers count as joblib's do: -1 is all CPUs, -2 all but one. ``"50%"`` is a share of them.
    """
    if workers is None:
        return None
    if isinstance(workers, str):
        return _from_text(workers, where)
    if isinstance(workers, float):
        share = f", or {f'{workers:.0%}'!r} for a share of the CPUs" if 0 < workers <= 1 else ""
        raise ConfigError(f"{where} must be a whole number{share}, not the float {workers!r}")
    if isinstance(workers, bool) or not hasattr(workers, "__index__"):
        raise ConfigError(f"{where} must be a whole number or a share such as '50%', not {workers!r}")
    return _from_number(workers.__index__(), where)


def _from_number(workers: int, where: str) -> int:
    if workers == 0:
        raise ConfigError(f"{where} must not be 0: give 1 or more, -1 for all CPUs, or a share such as '50%'")
    return workers if workers > 0 else max(1, available() + 1 + workers)


def _from_text(workers: str, where: str) -> int:
    if match := _SHARE.fullmatch(workers):
        share = float(match[1])
        if not 0 < share <= 100:
            raise ConfigError(f"{where} must be more than 0 % and at most 100 %, not {workers!r}")
        return max(1, round(available() * share / 100))
    try:
        return _from_number(int(workers), where)
    except ValueError as exc:
        if isinstance(exc, ConfigError):
            raise
        raise ConfigError(f"{where} must be a whole number or a share such as '50%', not {workers!r}") from None
