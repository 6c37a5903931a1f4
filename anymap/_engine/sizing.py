"""How many items to send at once, from how long items have taken. Pure functions of numbers."""

from __future__ import annotations

import math
from dataclasses import dataclass

_GROWTH, _LEAP = 4, 16
"""A chunk has at most so many times the items of the largest one that has come back; the second holds as long as that
one took longer to send than to run, and little can be lost."""
_TRUSTED = 2
"""The largest chunk that has come back, as far as the next map of the same function is concerned before it is known
what its items weigh: they may be others, and much larger."""
_AS_HEAVY, _LIGHT = 2, 64
"""Items are like those of the last map if they weigh at most so many times as much; or so many bytes, whatever those did."""
_HEAVIEST = 8 * 1024 * 1024
"""Bytes of a chunk's items."""
_SHORTEST = 0.02
"""Seconds that a chunk should run at least."""
_ON_TRUST = 0.08
"""Seconds after which a chunk hands back what it has not begun if it was cut by what another map had measured."""
_WORTH_HELP = 8
"""No chunk is cut to less than so many times what it takes to send, unless an even share of what is left is less."""
_SMOOTHING = 0.3
"""The weight of the newest chunk in the mean."""
_SPREAD = 8
"""The slowest item counts an eighth: one that is far off the mean makes chunks small."""


@dataclass(frozen=True, slots=True)
class TargetDuration:
    """How long chunks should run."""

    overhead_share: float
    """So long that sending one costs no more than this share of it."""
    longest: float
    """But no longer than so many seconds."""
    patience: int
    """A chunk that runs so many times longer than it should gives back what it has not begun."""
    largest: int
    """No chunk has more items."""


EACH_SOON = TargetDuration(overhead_share=0.01, longest=0.2, patience=4, largest=16384)
"""The caller waits for each result, or their number is not known: then no chunk is cut shorter at the end."""
ALL_SOON = TargetDuration(overhead_share=0.0025, longest=0.4, patience=2, largest=65536)
"""What counts is when the last one is there. Retries and events of single items may wait for their chunk so much longer."""


@dataclass(slots=True)
class RateEstimate:
    """What has been measured so far."""

    mean: float | None = None
    """Seconds per item, recent chunks weighing more."""
    longest: float = 0.0
    """Seconds that the slowest recent item took."""
    largest: int = 0
    """Items in the largest chunk that came back."""
    noted: int = 0
    """Chunks of this map that came back."""
    overhead: float = 0.001
    """Seconds that a chunk was under way without running, at its best."""
    weight: float = 0.0
    """Bytes per item that went one way, in the heaviest recent chunk."""
    last: RateEstimate | None = None
    """What the last map of the same function has measured, until it is known what the items of this one weigh."""

    def for_next_map(self) -> RateEstimate:
        """Return with what to begin another map of the same function."""
        return RateEstimate(
            self.mean, self.longest, min(self.largest, _TRUSTED), overhead=self.overhead, weight=self.weight, last=self
        )

    def weigh(self, items: int, nbytes: int) -> None:
        """Take in what a chunk of ``items`` weighs that is about to be sent, or what its results do."""
        newest = nbytes / items
        self.weight = max(newest, self.weight * (1 - _SMOOTHING))
        last, self.last = self.last, None
        if last is not None and newest <= max(_AS_HEAVY * last.weight, _LIGHT):
            self.largest = max(self.largest, last.largest)

    def note(self, items: int, seconds: float, longest: float, under_way: float) -> None:
        """Take in a chunk of ``items`` that ran ``seconds`` and came back ``under_way`` after it was sent."""
        if not items:
            return
        newest = seconds / items
        # What another map has measured counts until there is something of this one's own.
        self.mean = newest if self.mean is None or not self.noted else self.mean + _SMOOTHING * (newest - self.mean)
        self.noted += 1
        self.longest = max(longest, self.longest * (1 - _SMOOTHING))
        self.overhead = min(self.overhead if self.largest else math.inf, max(under_way - seconds, 0.0))
        self.largest = max(self.largest, items)


def target_seconds(rate: RateEstimate, target_duration: TargetDuration) -> float:
    """Return how long a chunk should run."""
    return min(max(rate.overhead / target_duration.overhead_share, _SHORTEST), target_duration.longest)


def budget(rate: RateEstimate, target_duration: TargetDuration) -> float:
    """Return after how many seconds a chunk hands back the items it has not begun."""
    return target_duration.patience * target_seconds(rate, target_duration) if rate.noted else _ON_TRUST


def chunksize(rate: RateEstimate, target_duration: TargetDuration, workers: int, remaining: int | None) -> int:
    """Return how many items the next chunk should have; ``remaining`` is ``None`` where the end is not known."""
    if rate.mean is None:
        return 1
    target = target_seconds(rate, target_duration)
    # What is no longer than half a chunk is no reason to keep others waiting for less.
    item = max(rate.mean, (rate.longest - target / 2) / _SPREAD, 1e-9)
    growth = _LEAP if item * rate.largest < rate.overhead else _GROWTH
    size = min(int(target / item), growth * rate.largest, target_duration.largest)
    # To send one large thing takes long enough for the message around it not to count, and memory for no more than that.
    size = min(size, int(_HEAVIEST / max(rate.weight, 1.0)))
    if remaining is not None:
        size = min(size, _share(remaining / workers, rate.overhead / item))
    return max(size, 1)


def _share(even: float, overhead: float) -> int:
    """Return how much of what is left to take at once: ``even`` items if all took as many, ``overhead`` to send a chunk."""
    # Guided self-scheduling (Polychronopoulos and Kuck, 1987) with half an even share, so that others can help a late worker.
    # But help has to be called: for what runs no longer than that takes it gains nothing, up to eight times that little.
    return max(math.ceil(even / 2), int(min(_WORTH_HELP * overhead, even)), int(overhead))
