"""Advice after a map: mostly on made-up figures."""

from __future__ import annotations

import os
import threading
import time
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from anymap import pmap
from anymap._engine.telemetry import advice, rates
from anymap._engine.telemetry.advice import Costs, advise
from anymap._engine.telemetry.measures import Timings
from anymap._host import run_queue
from anymap._worker.protocol import Answer
from anymap.progress import Finished


def test_where_the_work_is_less_than_the_fuss_serial_would_do() -> None:
    found = advise(Costs(busy=2.0, work=0.2, cpu=0.2), items=100_000, workers=4)
    assert found is not None
    assert found.text.startswith("serial would have taken 0.2 s instead of 2 s")
    assert "an item takes 2 us: nothing to gain" in found.text
    assert round(found.factor) == 10


def test_where_items_wait_threads_would_do() -> None:
    found = advise(Costs(busy=25.0, work=50.0, cpu=1.0), items=10_000, workers=2)
    assert found is not None
    assert "98%" in found.text
    assert "backend='threads', workers=32 would do them in 1.6 s" in found.text
    assert round(found.factor) == 16


def test_where_items_wait_for_a_cpu_that_others_have_nothing_is_advised() -> None:
    assert advise(Costs(busy=25.0, work=50.0, cpu=1.0, queued=48.5), items=10_000, workers=2) is None


def test_what_items_wait_for_besides_a_cpu_is_what_threads_would_save() -> None:
    found = advise(Costs(busy=25.0, work=50.0, cpu=1.0, queued=17.0), items=10_000, workers=2)
    assert found is not None
    assert "97%" in found.text
    assert "workers=32 would do them in 1 s" in found.text


def test_no_backend_is_advised_that_has_been_seen_to_be_slower() -> None:
    assert advise(Costs(25.0, 50.0, 1.0), items=10_000, workers=2, slower={"threads"}) is None
    assert advise(Costs(2.0, 0.2, 0.2), items=100_000, workers=4, slower={"serial"}) is None
    assert advise(Costs(2.0, 0.2, 0.2), items=100_000, workers=4, slower={"threads"}) is not None


def test_it_is_remembered_on_which_backends_a_function_took_longer() -> None:
    def func(x: int) -> int:
        return x

    for backend, seconds in ("serial", 3.0), ("threads", 1.0), ("serial", 2.0):
        rates.note_speed(backend, func, seconds)
    rates.note_speed("threads", lambda x: x, 9.0)
    assert rates.slower_backends(func, 1.5) == {"serial"}
    assert rates.slower_backends(func, 2.5) == set()
    assert rates.slower_backends(abs, 0.0) == set()


@pytest.mark.parametrize(("slower", "advised"), [(0.0, True), (1e9, False)])
def test_after_a_map_no_backend_is_advised_on_which_its_function_took_longer(
    slower: float, advised: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(advice, "_WORTH_A_WORD", 0.0)
    told: list[Finished] = []

    def func(x: int) -> int:
        return x

    rates.note_speed("serial", func, slower)
    pmap(func, range(3), backend="threads", workers=1, chunksize=1, progress=told_to(told))
    assert bool(told[0].advice) == advised


def told_to(told: list[Finished]) -> Any:
    def sink(event: Any) -> None:
        if isinstance(event, Finished):
            told.append(event)

    return sink


@pytest.mark.parametrize(("load", "queued"), [(0.5, 0.0), (1e6, 3.0)])
def test_where_the_system_does_not_tell_all_waiting_on_a_busy_machine_may_be_for_a_cpu(
    load: float, queued: float, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(os, "getloadavg", lambda: (load, 0.0, 0.0))
    timings = Timings()
    timings.note(Answer(1, [None], [], seconds=4.0, longest=4.0, cpu=1.0, worker="w", slot=0), 0)
    assert timings.costs().queued == queued


def test_the_wait_for_a_cpu_is_no_more_than_the_time_without_one(monkeypatch: pytest.MonkeyPatch) -> None:
    figures = iter([5.0, 5.2, 9.0])
    monkeypatch.setattr(run_queue, "_read", lambda: next(figures))
    monkeypatch.setattr(run_queue, "_last", threading.local())
    assert run_queue.seconds_within(2.0) == 2.0
    assert run_queue.seconds_within(2.0) == pytest.approx(0.2)
    assert run_queue.seconds_within(2.0) == 2.0
    monkeypatch.setattr(run_queue, "_read", lambda: None)
    assert run_queue.seconds_within(2.0) is None


@pytest.mark.skipif(not os.path.exists("/proc/thread-self/schedstat"), reason="the system does not tell")
def test_the_figure_of_the_system_goes_up() -> None:
    before = run_queue._read()
    assert before is not None
    while (now := run_queue._read()) == before:
        time.sleep(0.001)
    assert now is not None
    assert now > before


def test_no_more_threads_are_advised_than_there_are_items() -> None:
    found = advise(Costs(busy=5.0, work=10.0, cpu=0.1), items=5, workers=2)
    assert found is not None
    assert "workers=5 " in found.text


def test_work_that_is_well_divided_needs_no_advice() -> None:
    assert advise(Costs(busy=5.1, work=10.0, cpu=10.0), items=1000, workers=2) is None


def test_waiting_items_in_as_many_threads_need_no_advice() -> None:
    assert advise(Costs(busy=1.7, work=50.0, cpu=1.0), items=10_000, workers=32) is None


def test_a_map_of_a_moment_needs_no_advice() -> None:
    assert advise(Costs(busy=0.9, work=0.001, cpu=0.001), items=10, workers=2) is None
    assert advise(Costs(busy=9.0, work=0.0, cpu=0.0), items=0, workers=2) is None


@given(
    costs=st.builds(
        Costs, busy=st.floats(0, 1e6), work=st.floats(0, 1e6), cpu=st.floats(0, 1e6), queued=st.floats(0, 1e6)
    ),
    items=st.integers(0, 10**7),
    workers=st.integers(1, 1000),
)
def test_there_is_always_an_answer_and_it_promises_a_gain_or_nothing(costs: Costs, items: int, workers: int) -> None:
    found = advise(costs, items, workers)
    assert found is None or found.factor > 0
