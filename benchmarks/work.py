"""The functions that are mapped. Workers import this module, so it imports next to nothing."""

from __future__ import annotations

import time


def square(x: int) -> int:
    return x * x


def sleep(seconds: float) -> float:
    time.sleep(seconds)
    return seconds


def spin(turns: int, x: int) -> int:
    """Keep a CPU busy for so many turns of a loop: the same work whatever the clock says and whoever else runs."""
    for _ in range(turns):
        pass
    return x * x


def turns_per_second() -> int:
    """Measure how many turns of the loop in :func:`spin` take a second here, at its best."""
    turns = 200_000
    took = []
    for _ in range(20):
        began = time.perf_counter()
        spin(turns, 0)
        took.append(time.perf_counter() - began)
    return int(turns / min(took))


def look_up(table: object, turns: int, x: int) -> int:
    """Use a large object that travels with the function."""
    spin(turns, x)
    return int(table[x])  # type: ignore[index]


def total(array: object) -> float:
    return float(array.sum())  # type: ignore[attr-defined]


def filled(count: int, value: int) -> object:
    """Return an array of ``count`` eight-byte numbers."""
    import numpy as np

    return np.full(count, float(value))


def size(array: object) -> int:
    return int(array.nbytes)  # type: ignore[attr-defined]


def fields(line: str) -> int:
    """Read a line as a program that streams a file would."""
    return sum(map(int, line.split(",")))


def each(func: object, items: list[object]) -> list[object]:
    """Run one chunk: what those write by hand whose engine makes no chunks."""
    return [func(item) for item in items]  # type: ignore[operator]
