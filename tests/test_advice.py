"""Advice after a map, on made-up figures: no clock is read."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from anymap._engine.advice import Costs, advise


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
    costs=st.builds(Costs, busy=st.floats(0, 1e6), work=st.floats(0, 1e6), cpu=st.floats(0, 1e6)),
    items=st.integers(0, 10**7),
    workers=st.integers(1, 1000),
)
def test_there_is_always_an_answer_and_it_promises_a_gain_or_nothing(costs: Costs, items: int, workers: int) -> None:
    found = advise(costs, items, workers)
    assert found is None or found.factor > 0
