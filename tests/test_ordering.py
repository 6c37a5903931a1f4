"""The rule for landing."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from anymap._engine.ordering import AsFinished, Batch, InOrder


def batches(sizes: list[int]) -> list[Batch]:
    made, start = [], 0
    for size in sizes:
        made.append(Batch(start, list(range(start, start + size)), {}))
        start += size
    return made


def drain(landing: InOrder | AsFinished) -> list[int]:
    values: list[int] = []
    while (batch := landing.pop()) is not None:
        values += batch.values
    return values


@given(sizes=st.lists(st.integers(1, 5), max_size=12), data=st.data())
def test_in_order_hands_out_the_order_of_the_input_whatever_the_order_of_arrival(
    sizes: list[int], data: st.DataObject
) -> None:
    landing, got = InOrder(), []
    for batch in data.draw(st.permutations(batches(sizes))):
        landing.add(batch)
        got += drain(landing)
    assert got == list(range(sum(sizes)))


@given(sizes=st.lists(st.integers(1, 5), max_size=12), data=st.data())
def test_as_finished_hands_out_at_once_what_has_come(sizes: list[int], data: st.DataObject) -> None:
    landing = AsFinished()
    for batch in data.draw(st.permutations(batches(sizes))):
        landing.add(batch)
        assert drain(landing) == batch.values
