"""Medians, and how sure one may be of them."""

from __future__ import annotations

import statistics
from math import comb
from typing import TYPE_CHECKING, NamedTuple

if TYPE_CHECKING:
    from collections.abc import Sequence

CONFIDENCE = 0.95


class Interval(NamedTuple):
    """The median of a sample, and an interval that contains that of what it was drawn from."""

    median: float
    low: float
    high: float
    confidence: float
    """How likely that is. Below :data:`CONFIDENCE` where the sample is too small for it."""


def median_interval(sample: Sequence[float]) -> Interval:
    """Return the median with the narrowest interval between two order statistics that are as far from either end.

    It supposes nothing of how the values are distributed: the true median lies below the k-th smallest of n values with
    the chance that fewer than k of n coins show heads (David and Nagaraja, Order Statistics, 7.1). Nine values give the
    second smallest and the second largest, with a confidence of 96 %.

    >>> median_interval([5, 3, 8, 1, 9, 2, 7, 4, 6])
    Interval(median=5, low=2, high=8, confidence=0.9609375)
    """
    ordered, count = sorted(sample), len(sample)
    rank = 1
    while rank < (count + 1) // 2 and _confidence(count, rank + 1) >= CONFIDENCE:
        rank += 1
    return Interval(statistics.median(ordered), ordered[rank - 1], ordered[-rank], _confidence(count, rank))


def _confidence(count: int, rank: int) -> float:
    """Return the chance that the median lies between the ``rank``-th smallest and the ``rank``-th largest."""
    return max(0.0, 1.0 - 2 * sum(comb(count, heads) for heads in range(rank)) / 2**count)


def paired_ratio(ours: Sequence[float], theirs: Sequence[float]) -> Interval:
    """Return the ratio within each round that both have run."""
    return median_interval([one / other for one, other in zip(ours, theirs, strict=False)])
