"""``pmap`` is ``map``, on every backend."""

from __future__ import annotations

import gc
import time
import weakref
from operator import add, mul
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest

import anymap
from anymap import pmap

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator

    from anymap.backends import Backend


def double(x: Any) -> Any:
    return x + x


def swap(pair: tuple[Any, Any]) -> tuple[Any, Any]:
    return pair[1], pair[0]


def nothing(x: object) -> None:
    return None


def fail_softly(x: int) -> Exception | int:
    """Give exceptions back as values: nothing has failed."""
    return ValueError(x) if x % 2 else x


class OldSequence:
    """A sequence of the kind that only has ``__getitem__``."""

    def __getitem__(self, index: int) -> int:
        if index == 5:
            raise IndexError
        return index


def countdown() -> Iterator[int]:
    yield from range(7, 0, -1)


NAMES = {"one": 1, "two": 2, "three": 3}

# Each entry makes its iterables anew: a generator serves once.
CASES: dict[str, tuple[Callable[..., Any], Callable[[], tuple[Iterable[Any], ...]]]] = {
    "list": (double, lambda: ([3, 1, 2],)),
    "range": (double, lambda: (range(50),)),
    "two iterables": (mul, lambda: (range(10), range(10, 20))),
    "three iterables": (pow, lambda: ([2, 3, 4], [5, 6, 7], [11, 12, 13])),
    "unequal lengths": (add, lambda: (range(100), [1, 2, 3])),
    "a container and a generator": (add, lambda: (range(100), countdown())),
    "empty": (double, lambda: ([],)),
    "an empty generator": (double, lambda: (iter(()),)),
    "one of two is empty": (add, lambda: ([1, 2], [])),
    "one item": (double, lambda: ([21],)),
    "generator": (double, lambda: (countdown(),)),
    "generator expression": (double, lambda: ((x * x for x in range(20)),)),
    "iterator": (double, lambda: (iter([1, 2, 3]),)),
    "dict": (double, lambda: (NAMES,)),
    "dict keys": (double, lambda: (NAMES.keys(),)),
    "dict values": (double, lambda: (NAMES.values(),)),
    "dict items": (swap, lambda: (NAMES.items(),)),
    "set": (double, lambda: ({5, 3, 9, 1},)),
    "frozenset": (double, lambda: (frozenset("abc"),)),
    "string": (str.upper, lambda: ("straße",)),
    "bytes": (double, lambda: (b"bytes",)),
    "numpy vector": (double, lambda: (np.arange(10.0),)),
    "old sequence": (double, lambda: (OldSequence(),)),
    "pairs as items": (swap, lambda: ([(1, 2), (3, 4)],)),
    "results of None": (nothing, lambda: (range(10),)),
    "items of None": (str, lambda: ([None, None],)),
    "nested containers": (len, lambda: ([[], [[]], {"a": (1, 2)}],)),
}  # fmt: skip


@pytest.mark.parametrize("case", CASES)
def test_equals_map(backend: Backend, case: str) -> None:
    func, iterables = CASES[case]
    expected = list(map(func, *iterables()))
    assert pmap(func, *iterables(), backend=backend, workers=2) == expected


@pytest.mark.parametrize("case", ["range", "two iterables", "empty", "generator", "dict items"])
def test_lazy_equals_map(backend: Backend, case: str) -> None:
    func, iterables = CASES[case]
    with pmap(func, *iterables(), backend=backend, workers=2, lazy=True) as results:
        assert list(results) == list(map(func, *iterables()))


@pytest.mark.parametrize("lazy", [False, True])
def test_unordered_is_a_permutation(backend: Backend, lazy: bool) -> None:
    results = list(pmap(double, range(300), backend=backend, workers=2, ordered=False, lazy=lazy))
    assert sorted(results) == [2 * x for x in range(300)]


def test_unordered_results_can_be_matched_with_their_items(backend: Backend) -> None:
    with pmap(double, range(300), backend=backend, workers=2, ordered=False, lazy=True) as results:
        assert dict(results.indexed()) == {x: 2 * x for x in range(300)}


def test_rows_of_an_array_come_and_go_as_arrays(backend: Backend) -> None:
    table = np.arange(12).reshape(4, 3)
    results = pmap(double, table, backend=backend, workers=2)
    assert [type(row) for row in results] == [np.ndarray] * 4
    assert np.array_equal(results, table * 2)


def test_exceptions_as_values_are_values(backend: Backend) -> None:
    results = pmap(fail_softly, range(6), backend=backend, workers=2)
    assert [type(value) for value in results] == [int, ValueError] * 3
    assert [value.args for value in results[1::2]] == [(1,), (3,), (5,)]
    assert all(anymap.failure(value) is None for value in results[1::2])


@pytest.mark.parametrize("chunksize", [1, 7, 1000])
def test_the_size_of_chunks_changes_nothing(backend: Backend, chunksize: int) -> None:
    assert pmap(double, range(100), backend=backend, workers=2, chunksize=chunksize) == [2 * x for x in range(100)]


@pytest.mark.parametrize("window", [1, 2, 13])
def test_the_size_of_the_window_changes_nothing(backend: Backend, window: int) -> None:
    assert pmap(double, iter(range(60)), backend=backend, workers=2, window=window) == [2 * x for x in range(60)]


@pytest.mark.parametrize("workers", [1, 3])
def test_the_number_of_workers_changes_nothing(backend: Backend, workers: int) -> None:
    assert pmap(double, range(40), backend=backend, workers=workers) == [2 * x for x in range(40)]


def test_many_small_items(backend: Backend) -> None:
    assert pmap(double, range(20_000), backend=backend, workers=2) == [2 * x for x in range(20_000)]


@pytest.mark.full
@pytest.mark.parametrize(
    ("name", "source"),
    [
        *((name, range) for name in ("serial", "threads", "processes", "pathos")),
        # Not serially: there each item is run before the next is asked for, which takes its time.
        *((name, lambda n: iter(range(n))) for name in ("threads", "processes", "pathos")),
    ],
)
def test_a_million_small_items(name: str, source: Callable[[int], Iterable[int]]) -> None:
    results = pmap(abs, source(1_000_000), backend=name, workers=2)
    assert len(results) == 1_000_000
    assert sum(results) == 499_999_500_000
    assert results[:3] == [0, 1, 2]


def test_a_list_is_taken_as_it_is_when_the_map_begins(backend: Backend) -> None:
    if not backend.traits.shares_memory:
        pytest.skip("its functions cannot change the caller's list")
    items = list(range(50))
    assert pmap(lambda x: items.clear() or x, items, backend=backend, workers=2) == list(range(50))


def test_a_range_may_be_longer_than_any_list() -> None:
    with pmap(abs, range(-(10**20), 10**20), backend="serial", lazy=True) as results:
        assert next(results) == 10**20


def test_text_and_bytes_of_all_sizes_come_back_as_they_were(backend: Backend) -> None:
    items = ["", "\ud800", "\0", "é" * 100_000, b"", b"\xff" * 100_000, bytearray(b"x" * 70_000)]
    assert pmap(double, items, backend=backend, workers=2) == [item + item for item in items]


def test_the_same_backend_instance_serves_many_maps(backend: Backend) -> None:
    for _ in range(3):
        assert pmap(double, range(10), backend=backend, workers=2) == [2 * x for x in range(10)]


def test_two_maps_take_turns_on_one_backend_instance(backend: Backend) -> None:
    with (
        pmap(double, range(50), backend=backend, workers=2, lazy=True) as doubled,
        pmap(str, range(50), backend=backend, workers=2, lazy=True) as words,
    ):
        assert list(zip(doubled, words, strict=True)) == [(2 * x, str(x)) for x in range(50)]


def test_needs_an_iterable() -> None:
    with pytest.raises(TypeError, match="at least one iterable"):
        pmap(double)


def test_needs_a_function() -> None:
    with pytest.raises(TypeError, match="function"):
        pmap(None, [1])  # type: ignore[call-overload]


def test_what_is_no_iterable_is_refused_at_once() -> None:
    with pytest.raises(TypeError, match="'int'"):
        pmap(double, 3)  # type: ignore[call-overload]


class Heavy:
    """Something that is held for no longer than it is needed."""

    def __call__(self, x: int) -> int:
        return x


@pytest.mark.timeout(20)
def test_what_a_map_was_given_is_free_when_it_has_ended(backend: Backend) -> None:
    gc.collect()
    gc.disable()
    try:
        function = Heavy()
        held = weakref.ref(function)
        assert pmap(function, range(20), backend=backend, workers=2) == list(range(20))
        del function
        # Threads that worked for it may still be about to end; the test's own time limit ends the wait.
        while held() is not None:
            time.sleep(0.001)
    finally:
        gc.enable()
