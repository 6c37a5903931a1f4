"""What would have been quicker, from what a map has measured. A pure function of numbers."""

from __future__ import annotations

from typing import NamedTuple

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


class Advice(NamedTuple):
    """One line for the user, and how many times quicker he might be."""

    text: str
    factor: float


def advise(costs: Costs, items: int, workers: int) -> Advice | None:
    """Return the choice that would have saved most; ``None`` where there is none to speak of."""
    if not items or costs.busy < _WORTH_A_WORD:
        return None
    found = [advice for advice in (_serial(costs, items), _threads(costs, items, workers)) if advice is not None]
    return max(found, key=lambda advice: advice.factor, default=None)


def _serial(costs: Costs, items: int) -> Advice | None:
    factor = costs.busy / max(costs.work, 1e-9)
    if factor <= 1:
        return None
    item = costs.work / items
    why = f"an item takes {_amount(item)}: nothing to gain from workers" if item < _TINY else "the items are too few"
    return Advice(f"serial would have taken {_amount(costs.work)} instead of {_amount(costs.busy)}: {why}", factor)


def _threads(costs: Costs, items: int, workers: int) -> Advice | None:
    many = min(items, _MANY_THREADS)
    if not costs.work or costs.cpu > _WAITING * costs.work or many <= workers:
        return None
    least = max(costs.work / many, costs.cpu)
    waits = f"items wait for {1 - costs.cpu / costs.work:.0%} of their time"
    text = f"{waits}: backend='threads', workers={many} would do them in {_amount(least)}"
    return Advice(text, costs.busy / max(least, 1e-9))


def _amount(seconds: float) -> str:
    """Write a time with two digits that count."""
    least, unit = next((one for one in _UNITS if seconds >= one[0]), _UNITS[-1])
    count = seconds if unit == "s" else seconds / least
    return f"{float(f'{count:.2g}'):g} {unit}"
