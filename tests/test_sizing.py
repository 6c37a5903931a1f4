"""Chunk sizes, on simulated durations: no clock is read."""

from __future__ import annotations

import functools
import heapq
from typing import TYPE_CHECKING

import pytest
from hypothesis import given
from hypothesis import strategies as st

from anymap._engine.sizing import ALL_SOON, EACH_SOON, RateEstimate, TargetDuration, budget, chunksize, target_seconds
from anymap._engine.telemetry import rates

if TYPE_CHECKING:
    from collections.abc import Callable

OVERHEAD = 0.0002


def simulate(
    durations: list[float], workers: int, target_duration: TargetDuration = ALL_SOON, rate: RateEstimate | None = None
) -> tuple[float, int, list[int]]:
    """Run a map on paper; return its end, the number of chunks, and their sizes."""
    rate = RateEstimate() if rate is None else rate
    free, flying, sizes, position = [0.0] * workers, [], [], 0
    heapq.heapify(free)
    while position < len(durations):
        start = heapq.heappop(free)
        while flying and flying[0][0] <= start:
            _, items, seconds, longest = heapq.heappop(flying)
            rate.note(items, seconds, longest, seconds + OVERHEAD)
        size = chunksize(rate, target_duration, workers, len(durations) - position)
        rate.weigh(size, 8 * size)
        taken, spent = 0, 0.0
        for duration in durations[position : position + size]:
            if spent > budget(rate, target_duration):
                break
            taken, spent = taken + 1, spent + duration
        chunk = durations[position : position + taken]
        heapq.heappush(flying, (start + spent + OVERHEAD, taken, spent, max(chunk)))
        heapq.heappush(free, start + spent + OVERHEAD)
        sizes.append(taken)
        position += taken
    return max(free), len(sizes), sizes


def test_it_starts_with_one_item_as_nothing_is_known() -> None:
    assert chunksize(RateEstimate(), EACH_SOON, 4, None) == 1


def test_short_items_make_large_chunks_and_long_ones_small() -> None:
    quick, slow = RateEstimate(), RateEstimate()
    for size in (1, 4, 16, 64, 256, 1024):
        quick.note(size, size * 1e-6, 1e-6, size * 1e-6 + OVERHEAD)
        slow.note(1, 0.5, 0.5, 0.5 + OVERHEAD)
    assert chunksize(quick, EACH_SOON, 2, None) > 1000
    assert chunksize(slow, EACH_SOON, 2, None) == 1


def test_a_chunk_runs_longer_where_sending_one_costs_more() -> None:
    pipe, cluster = RateEstimate(), RateEstimate()
    pipe.note(1, 0.001, 0.001, 0.0011)
    cluster.note(1, 0.001, 0.001, 0.004)
    assert target_seconds(cluster, EACH_SOON) > 5 * target_seconds(pipe, EACH_SOON)


def test_one_slow_item_makes_chunks_small_for_a_while() -> None:
    rate = RateEstimate()
    for size in (1, 4, 16, 64):
        rate.note(size, size * 1e-4, 1e-4, size * 1e-4 + OVERHEAD)
    before = chunksize(rate, EACH_SOON, 2, None)
    rate.note(64, 1.0, 0.9, 1.0 + OVERHEAD)
    assert chunksize(rate, EACH_SOON, 2, None) < before / 10


@given(
    seconds=st.floats(0, 10),
    items=st.integers(1, 5000),
    workers=st.integers(1, 64),
    remaining=st.none() | st.integers(1, 10**6),
    target_duration=st.sampled_from([EACH_SOON, ALL_SOON]),
)
def test_a_size_is_at_least_one_and_leaves_work_for_the_others(
    seconds: float, items: int, workers: int, remaining: int | None, target_duration: TargetDuration
) -> None:
    rate = RateEstimate()
    rate.note(items, seconds, seconds / items, seconds + OVERHEAD)
    size = chunksize(rate, target_duration, workers, remaining)
    assert size >= 1
    if remaining is not None:
        item = max(seconds / items, 1e-9)
        took = size * item / OVERHEAD / 1.01
        assert size <= -(-remaining // (2 * workers)) or took <= 1 or (took <= 8 and size <= remaining / workers)


def test_a_small_map_of_tiny_items_takes_few_chunks() -> None:
    _, chunks, _ = simulate([1e-6] * 20, 2)
    assert chunks <= 4


def same(count: int) -> list[float]:
    return [0.005] * count


def descending(count: int) -> list[float]:
    return [0.2 - 0.199 * position / count for position in range(count)]


def sudden(count: int) -> list[float]:
    return [1e-5] * (count // 2) + [0.05] * (count - count // 2)


@pytest.mark.parametrize("target_duration", [EACH_SOON, ALL_SOON], ids=["each soon", "all soon"])
@pytest.mark.parametrize(("durations", "limit"), [(same, 1.05), (descending, 1.10), (sudden, 1.15)])
def test_no_worker_waits_long_for_another(
    durations: Callable[[int], list[float]], limit: float, target_duration: TargetDuration
) -> None:
    given_durations = durations(2000)
    ideal = sum(given_durations) / 8
    end, _, _ = simulate(given_durations, 8, target_duration)
    assert end <= limit * ideal


@pytest.mark.parametrize("target_duration", [EACH_SOON, ALL_SOON], ids=["each soon", "all soon"])
def test_a_map_that_begins_with_far_longer_items_than_the_last_one_ended_with_is_not_misled(
    target_duration: TargetDuration,
) -> None:
    durations = [0.2 * 0.985**position for position in range(400)]
    last = RateEstimate()
    simulate(durations, 8, target_duration, last)
    end, _, _ = simulate(durations, 8, target_duration, last.for_next_map())
    assert end <= 1.05 * sum(durations) / 8


@pytest.mark.parametrize("target_duration", [EACH_SOON, ALL_SOON], ids=["each soon", "all soon"])
def test_what_another_map_has_measured_counts_until_a_chunk_of_this_one_is_back(
    target_duration: TargetDuration,
) -> None:
    last = RateEstimate()
    last.note(10, 0.01, 0.001, 0.011)
    rate = last.for_next_map()
    assert (rate.mean, budget(rate, target_duration)) == (0.001, 0.08)
    rate.note(1, 0.2, 0.2, 0.201)
    assert rate.mean == 0.2
    assert budget(rate, target_duration) > 0.08


def test_where_nobody_waits_for_single_results_there_are_fewer_chunks() -> None:
    soon, soon_chunks, _ = simulate(same(10_000), 8, EACH_SOON)
    late, late_chunks, _ = simulate(same(10_000), 8, ALL_SOON)
    assert late_chunks < soon_chunks / 2
    assert late <= soon


@pytest.mark.parametrize(
    ("remaining", "size"),
    [(100_000, 25_000), (4_000, 1_600), (3_000, 1_500), (300, 200), (100, 200)],
    ids=["half an even share", "eight times what it takes to send", "an even share", "what it takes to send", "all"],
)
def test_at_the_end_nothing_is_cut_up_that_is_hardly_longer_than_its_sending(remaining: int, size: int) -> None:
    rate = RateEstimate()
    rate.note(100_000, 0.1, 1e-6, 0.1 + OVERHEAD)
    assert chunksize(rate, ALL_SOON, 2, remaining) == pytest.approx(size, rel=0.01)


def test_a_million_tiny_items_take_few_chunks() -> None:
    _, chunks, sizes = simulate([1e-7] * 1_000_000, 2)
    assert chunks < 400
    assert sizes[0] == 1


def test_the_next_map_of_a_function_begins_with_what_the_last_one_measured() -> None:
    rate = RateEstimate()
    rate.note(4096, 0.001, 0.00001, 0.002)
    began = rate.for_next_map()
    assert 8 < chunksize(began, EACH_SOON, 2, None) <= 64
    slow = RateEstimate()
    slow.note(1, 2.0, 2.0, 2.001)
    assert chunksize(slow.for_next_map(), EACH_SOON, 2, None) == 1


def test_the_next_map_makes_as_large_chunks_as_the_last_once_its_items_weigh_as_little() -> None:
    last = RateEstimate()
    last.weigh(1000, 3000)
    last.note(1000, 0.001, 0.00001, 0.002)
    alike, heavier = last.for_next_map(), last.for_next_map()
    alike.weigh(8, 32)
    heavier.weigh(8, 8_000_000)
    assert chunksize(alike, EACH_SOON, 2, None) >= 1000
    assert chunksize(heavier, EACH_SOON, 2, None) <= 64


def test_large_items_travel_in_small_chunks_however_quick_they_are() -> None:
    quick = RateEstimate()
    for size in (1, 16, 256):
        quick.weigh(size, size * 8_000_000)
        quick.note(size, size * 1e-6, 1e-6, size * 1e-6 + OVERHEAD)
    assert chunksize(quick, EACH_SOON, 2, None) == 1
    results_only = RateEstimate()
    for size in (1, 16, 256):
        results_only.weigh(size, size * 2)
        results_only.note(size, size * 1e-6, 1e-6, size * 1e-6 + OVERHEAD)
        results_only.weigh(size, size * 1_000_000)
    assert 2 <= chunksize(results_only, EACH_SOON, 2, None) <= 16


def test_one_item_that_was_held_up_makes_no_small_chunks() -> None:
    rate = RateEstimate()
    rate.note(10_000, 0.005, 1e-6, 0.0052)
    undisturbed = chunksize(rate, EACH_SOON, 2, None)
    rate.note(10_000, 0.009, 0.004, 0.0092)
    assert chunksize(rate, EACH_SOON, 2, None) > undisturbed / 2


def test_a_map_that_sent_nothing_leaves_what_is_known() -> None:
    def func(x: int) -> int:
        return x

    rate = RateEstimate()
    rate.note(10, 0.1, 0.01, 0.2)
    rates.remember("processes", func, rate)
    rates.remember("processes", func, rates.recall("processes", func))
    assert rates.recall("processes", func).last is rate


def test_a_function_is_known_by_its_code() -> None:
    def make(number: int) -> Callable[[int], int]:
        return lambda x: x + number

    rate = RateEstimate()
    rate.note(10, 0.1, 0.01, 0.2)
    rates.remember("processes", make(1), rate)
    assert rates.recall("processes", make(2)).mean == rate.mean
    assert rates.recall("processes", functools.partial(make(3))).mean == rate.mean
    assert rates.recall("threads", make(2)).mean is None
    assert rates.recall("processes", lambda x: x).mean is None
    rates.remember("processes", abs, rate)
    assert rates.recall("processes", len).mean is None
