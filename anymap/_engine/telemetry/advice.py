"""What would have been quicker, from what a map has measured. A pure function of numbers."""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple

if TYPE_CHECKING:
    from collections.abc import Collection

_TINY = 1e-5
"""Seconds. For items that take less, sending them takes longer than doing them."""
_WAITING = 0.25
"""Items that use less than this share of their time on a CPU wait for something."""
_MANY_THREADS = 32
"""So many items can wait at once at hardly any cost."""
_WORTH_A_WORD = 1.0
"""Seconds. A map that takes less needs no advice."""
_UNITS = (0.1, "s"), (1e-3, "ms"), (1e-6, "us"), (1e-9, "ns")
"""From how many seconds on a time is written in a unit, which is as long but for the first."""


class Costs(NamedTuple):
    """Where the time of a map went; all in seconds."""

    busy: float
    """From its beginning to its end, without what it waited for its input or its consumer."""
    work: float
    """What all items took together, wherever they ran."""
    cpu: float
    """What of that was spent on a CPU."""
    queued: float = 0.0
    """What of it items could have run, while other processes had the CPUs."""


class Advice(NamedTuple):
    """One line for the user, how many times quicker the map might be, and on which backend."""

    text: str
    factor: float
    backend: str


def advise(costs: Costs, items: int, workers: int, slower: Collection[str] = ()) -> Advice | None:
    """Return the choice that would have saved most; ``None`` where there is none to speak of.

    ``slower``: backends on which this process has seen these items take longer.
    """
    if not items or costs.busy < _WORTH_A_WORD:
        return None
    choices = (_serial(costs, items), _threads(costs, items, workers))
    found = [advice for advice in choices if advice is not None and advice.backend not in slower]
    return max(found, key=lambda advice: advice.factor, default=None)


def _serial(costs: Costs, items: int) -> Advice | None:
    factor = costs.busy / max(costs.work, 1e-9)
    if factor <= 1:
        return None
    item = costs.work / items
    why = f"an item takes {_amount(item)}: nothing to gain from workers" if item < _TINY else "the items are too few"
    return Advice(
        f"serial would have taken {_amount(costs.work)} instead of {_amount(costs.busy)}: {why}", factor, "serial"
    )


def _threads(costs: Costs, items: int, workers: int) -> Advice | None:
    many = min(items, _MANY_THREADS)
    # To wait for a CPU is no reason for more threads.
    work = costs.work - costs.queued
    if work <= 0 or costs.cpu > _WAITING * work or many <= workers:
        return None
    least = max(work / many, costs.cpu)
    waits = f"items wait for {1 - costs.cpu / work:.0%} of their time"
    text = f"{waits}: backend='threads', workers={many} would do them in {_amount(least)}"
    return Advice(text, costs.busy / max(least, 1e-9), "threads")


def _amount(seconds: float) -> str:
    """Write a time with two digits that count."""
    least, unit = next((one for one in _UNITS if seconds >= one[0]), _UNITS[-1])
    count = seconds if unit == "s" else seconds / least
    return f"{float(f'{count:.2g}'):g} {unit}"
