"""What functions, arguments and results may be on every backend, and that nothing of them is left behind."""

from __future__ import annotations

import enum
import functools
import importlib
import os
import random
import re
import sys
import warnings
from collections import namedtuple
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np
import pytest

import anymap
from anymap import pmap

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from anymap.backends import Backend

pytestmark = pytest.mark.versions


def triple(x: int) -> int:
    return 3 * x


class Scale:
    """A callable object, whose methods are functions too."""

    def __init__(self, by: int) -> None:
        self.by = by

    def __call__(self, x: int) -> int:
        return self.by * x

    def method(self, x: int) -> int:
        return self.by * x

    @staticmethod
    def static(x: int) -> int:
        return 3 * x

    @classmethod
    def of_class(cls, x: int) -> int:
        return cls(3)(x)


def make_closure(by: int) -> Any:
    seen: list[int] = []

    def scale(x: int) -> int:
        seen.append(x)
        return by * x

    return scale


def make_recursive() -> Any:
    def total(x: int) -> int:
        return 0 if x == 0 else 3 + total(x - 1)

    return total


def with_default(x: int, by: int = 3, *, plus: int = 0) -> int:
    return by * x + plus


class WithSlots:
    __slots__ = ("by",)

    def __init__(self, by: int) -> None:
        self.by = by

    def __call__(self, x: int) -> int:
        return self.by * x


@functools.lru_cache
def remembered(x: int) -> int:
    return 3 * x


def make_cached() -> Any:
    @functools.lru_cache(maxsize=2)
    def remember(x: int) -> int:
        return 3 * x

    return remember


class WithCache:
    """Its method and its property are objects of functools, not functions."""

    @functools.lru_cache  # noqa: B019 - one of the kinds
    def method(self, x: int) -> int:
        return self.by * x

    @functools.cached_property
    def by(self) -> int:
        return 3


@functools.wraps(triple)
def wrapped(x: int) -> int:
    return triple(x)


FUNCTIONS = {
    "function": triple,
    "lambda": lambda x: 3 * x,
    "closure": make_closure(3),
    "recursive local function": make_recursive(),
    "partial of a function": functools.partial(with_default, by=2, plus=0),
    "partial of a lambda": functools.partial(lambda by, x: by * x, 3),
    "partial of a partial": functools.partial(functools.partial(with_default, by=1), by=3),
    "bound method": Scale(3).method,
    "callable object": Scale(3),
    "callable object with slots": WithSlots(3),
    "static method": Scale.static,
    "class method": Scale.of_class,
    "bound method of a builtin": (3).__mul__,
    "function with defaults": with_default,
    "cached function": remembered,
    "cached local function": make_cached(),
    "cached method": WithCache().method,
    "wrapped function": wrapped,
}
FUNCTIONS["partial of a function"] = functools.partial(with_default, by=3)


@pytest.mark.parametrize("kind", FUNCTIONS)
def test_the_function_may_be_a(backend: Backend, kind: str) -> None:
    assert pmap(FUNCTIONS[kind], range(5), backend=backend, workers=2) == [0, 3, 6, 9, 12]


def test_the_function_may_be_a_class(backend: Backend) -> None:
    scales = pmap(Scale, range(5), backend=backend, workers=2)
    assert [type(scale) for scale in scales] == [Scale] * 5
    assert [scale.by for scale in scales] == list(range(5))


def test_functions_may_be_items_and_results(backend: Backend) -> None:
    results = pmap(
        lambda pair: (pair[0](pair[1]), lambda y: pair[1] + y), [(triple, 1), (lambda x: -x, 2)], backend=backend
    )
    assert [value for value, _ in results] == [3, -2]
    assert [function(10) for _, function in results] == [11, 12]


# --- classes that no worker could import: here local ones; those of __main__ are in test_scripts ------------------------


def make_classes() -> dict[str, Any]:
    class Base:
        count = 0

        def __init__(self, value: int) -> None:
            type(self).count += 1
            self.value = value

        def doubled(self) -> Base:
            return type(self)(2 * self.value)

    class Derived(Base):
        def doubled(self) -> Base:
            return super().doubled()

    class Slotted:
        __slots__ = ("value",)

        def __init__(self, value: int) -> None:
            self.value = value

        def doubled(self) -> Slotted:
            return Slotted(2 * self.value)

    @dataclass
    class Data:
        value: int
        more: list[int] = field(default_factory=list)

        def doubled(self) -> Data:
            return Data(2 * self.value)

    @dataclass(frozen=True, slots=True)
    class Frozen:
        value: int

        def doubled(self) -> Frozen:
            return Frozen(2 * self.value)

    class Typed(NamedTuple):
        value: int

        def doubled(self) -> Typed:
            return Typed(2 * self.value)

    Plain = namedtuple("Plain", "value")  # noqa: PYI024 - the old kind is one of the kinds

    class WithDoubled(Plain):
        def doubled(self) -> Any:
            return type(self)(2 * self.value)

    class Color(enum.Enum):
        red = 1
        green = 2

        def doubled(self) -> Color:
            return Color(self.value * 2)

    class Other:
        def __init__(self, value: int) -> None:
            self.value = value

        def doubled(self) -> Both:
            return Both(2 * self.value)

    class Both:
        kinds: list[type]

        def __init__(self, value: int) -> None:
            self.value = value

        def doubled(self) -> Other:
            return Other(2 * self.value)

    Both.kinds = [Other, Both]

    class Meta(type):
        def __call__(cls, *args: Any) -> Any:
            made = super().__call__(*args)
            made.stamped = True
            return made

    class Made(metaclass=Meta):
        def __init__(self, value: int) -> None:
            self.value = value

        def doubled(self) -> Made:
            return Made(2 * self.value)

    return {
        found.__name__: found
        for found in (Base, Derived, Slotted, Data, Frozen, Typed, WithDoubled, Color, Both, Other, Made)
    }


@pytest.mark.parametrize(
    "name", ["Base", "Derived", "Slotted", "Data", "Frozen", "Typed", "WithDoubled", "Color", "Made"]
)
def test_results_are_instances_of_the_callers_own_class(backend: Backend, name: str) -> None:
    cls = make_classes()[name]
    [result] = pmap(lambda one: one.doubled(), [cls(1)], backend=backend)
    assert type(result) is cls
    assert result.value == 2
    # It may have been made out there only.
    [result] = pmap(cls, [2], backend=backend)
    assert type(result) is cls


def test_classes_that_refer_to_each_other_come_back_as_the_callers_own(backend: Backend) -> None:
    classes = make_classes()
    both, other = classes["Both"], classes["Other"]
    results = pmap(lambda one: one.doubled(), [both(1), other(2)], backend=backend)
    assert [type(result) for result in results] == [other, both]
    assert results[1].kinds == [other, both]


def test_an_enum_member_comes_back_as_itself(backend: Backend) -> None:
    color = make_classes()["Color"]
    results = pmap(lambda one: one, list(color), backend=backend)
    assert all(result is one for result, one in zip(results, color, strict=True))


def test_the_callers_classes_are_not_touched_by_what_comes_back() -> None:
    base = make_classes()["Base"]
    base.count = 100
    for name in ("processes", "pathos", "joblib"):
        results = pmap(base, range(10), backend=name, workers=2)
        assert [type(result) for result in results] == [base] * 10
        assert base.count == 100
        assert results[0].count == 100


def test_an_exception_class_that_no_worker_could_import_is_caught_as_itself(backend: Backend) -> None:
    class OwnError(Exception):
        def __init__(self, code: int, text: str) -> None:
            super().__init__(f"{code}: {text}")
            self.code = code

    def fail(x: int) -> None:
        raise OwnError(x, "text")

    with pytest.raises(OwnError) as caught:
        pmap(fail, [7], backend=backend)
    assert caught.value.code == 7
    assert str(caught.value) == "7: text"


# --- large data ---------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("size", [1_000, 100_000, 2_000_000], ids=["8 KB", "800 KB", "16 MB"])
def test_arrays_go_and_come_whole_and_may_be_written_to(backend: Backend, size: int) -> None:
    def fill(array: Any) -> Any:
        array += 1
        assert array.flags.writeable
        return array, array[::2]

    arrays = [np.arange(float(size)) + number for number in range(3)]
    if backend.traits.shares_memory:
        arrays = [array.copy() for array in arrays]
    results = pmap(fill, arrays, backend=backend, workers=2)
    for number, (whole, half) in enumerate(results):
        expected = np.arange(float(size)) + number + 1
        assert np.array_equal(whole, expected)
        assert np.array_equal(half, expected[::2])
        whole[0] = half[0] = 7
    # conftest sees to it that no file is left


@pytest.mark.processes
def test_the_callers_arrays_are_not_written_to() -> None:
    array = np.zeros(100_000)
    for name in ("processes", "pathos", "joblib"):
        [result] = pmap(lambda one: one.__iadd__(1), [array], backend=name)
        assert result.sum() == 100_000
        assert array.sum() == 0


def test_arrays_of_all_kinds_survive(backend: Backend) -> None:
    arrays = [
        np.asfortranarray(np.arange(40_000.0).reshape(200, 200)),
        np.arange(200_000)[::3],
        np.arange(100_000).reshape(100, 1000).T,
        np.array(["text", "more"]),
        np.array([{"an": "object"}, None], dtype=object),
        np.zeros((0, 5)),
        np.array(7.0),
        np.ma.masked_greater(np.arange(100_000.0), 5),
        np.zeros(30_000, dtype=[("a", "i4"), ("b", "f8")]),
    ]
    results = pmap(lambda array: array, arrays, backend=backend, workers=2)
    for array, result in zip(arrays, results, strict=True):
        assert type(result) is type(array)
        assert result.dtype == array.dtype
        assert result.shape == array.shape
        assert (result == array).all()


def test_one_array_in_many_items_is_right_each_time(backend: Backend) -> None:
    array = np.arange(50_000.0)
    results = pmap(lambda pair: pair[0].sum() + pair[1], [(array, number) for number in range(20)], backend=backend)
    assert results == [array.sum() + number for number in range(20)]


def test_results_outlive_the_map_its_workers_and_their_files() -> None:
    results = pmap(lambda x: np.full(100_000, x), range(3), backend="processes", workers=2)
    anymap.shutdown()
    assert [result.sum() for result in results] == [0, 100_000, 200_000]


BIG = bytes(65 * 2**20)
SMALL = bytes(1000)


@pytest.mark.parametrize("name", ["processes", "pathos", "joblib"])
def test_a_function_that_drags_much_along_is_reported_with_the_names_of_the_largest(name: str) -> None:
    big, small = BIG, SMALL

    def drag(x: int) -> int:
        return len(big) + len(small) + x

    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always", UserWarning)
        assert pmap(drag, [1], backend=name, workers=2) == [len(BIG) + 1001]
    [told] = [warning for warning in caught if warning.category is UserWarning]
    assert re.search(r"'.*drag' drags 65 MB along.*'big' \(65 MB\)", str(told.message))
    assert "small" not in str(told.message)
    assert told.filename == __file__


def test_a_function_that_drags_much_along_is_nobodys_business_where_memory_is_shared() -> None:
    big = BIG
    assert pmap(lambda x: len(big) + x, [1], backend="threads") == [len(BIG) + 1]


# --- warm workers -------------------------------------------------------------------------------------------------------


def count_calls(x: int) -> int:
    count_calls.calls = getattr(count_calls, "calls", 0) + 1  # type: ignore[attr-defined]
    return int(count_calls.calls)  # type: ignore[attr-defined]


def test_what_a_function_remembers_does_not_pass_into_the_next_map() -> None:
    def count(x: int, seen: list[int] = []) -> int:  # noqa: B006 - that is what is tested
        seen.append(x)
        count.calls = getattr(count, "calls", 0) + 1  # type: ignore[attr-defined]
        return len(seen) * 1000 + int(count.calls)  # type: ignore[attr-defined]

    for _ in range(3):
        assert pmap(count, range(5), backend="processes", workers=1) == [1001, 2002, 3003, 4004, 5005]


def test_what_a_callable_object_remembers_does_not_pass_into_the_next_map() -> None:
    class Sampler:
        def __init__(self) -> None:
            self.random = random.Random(7)

        def __call__(self, x: int) -> float:
            return self.random.random()

    sampler = Sampler()
    runs = [pmap(sampler, range(5), backend="processes", workers=1) for _ in range(3)]
    expected = random.Random(7)
    assert runs == [[expected.random() for _ in range(5)]] * 1 + [runs[0]] * 2


def test_attributes_of_a_class_do_not_pass_into_the_next_map() -> None:
    class Counter:
        made = 0

        def __init__(self, x: int) -> None:
            type(self).made += 1
            self.number = type(self).made

    for _ in range(3):
        results = pmap(Counter, range(4), backend="processes", workers=1)
        assert [result.number for result in results] == [1, 2, 3, 4]
        assert Counter.made == 0
    Counter.made = 10
    assert [result.number for result in pmap(Counter, range(2), backend="processes", workers=1)] == [11, 12]


def test_what_changes_between_two_maps_is_seen(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    def look(_: int) -> tuple[str, str, bool]:
        return os.environ.get("TEST_OF_ANYMAP_LOOK", ""), os.getcwd(), "/no/such/entry" in sys.path

    here = os.getcwd()
    assert pmap(look, [0], backend="processes", workers=1) == [("", here, False)]
    monkeypatch.setenv("TEST_OF_ANYMAP_LOOK", "seen")
    assert pmap(look, [0], backend="processes", workers=1) == [("seen", here, False)]
    monkeypatch.chdir(tmp_path)
    assert pmap(look, [0], backend="processes", workers=1) == [("seen", str(tmp_path), False)]
    monkeypatch.syspath_prepend("/no/such/entry")
    assert pmap(look, [0], backend="processes", workers=1) == [("seen", str(tmp_path), True)]
    monkeypatch.undo()
    assert pmap(look, [0], backend="processes", workers=1) == [("", here, False)]


@pytest.fixture
def module(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """Give the file of a module of the user's that can be imported here and in workers."""
    monkeypatch.syspath_prepend(tmp_path)
    monkeypatch.setattr(sys, "dont_write_bytecode", True)
    path = tmp_path / "edited_by_test.py"
    path.write_text("def answer(x):\n    return x + 1\n")
    yield path
    sys.modules.pop(path.stem, None)


@pytest.mark.parametrize("name", ["processes", "pathos"])
def test_an_edited_module_is_seen_by_the_next_map(module: Path, name: str) -> None:
    edited = importlib.import_module(module.stem)
    assert pmap(edited.answer, [1], backend=name, workers=1) == [2]
    module.write_text("def answer(x):\n    return x + 100\n")
    importlib.reload(edited)
    assert pmap(edited.answer, [1], backend=name, workers=1) == [101]


def test_modules_that_the_caller_can_import_are_imported_by_the_workers(backend: Backend, module: Path) -> None:
    if backend.traits.remote:
        pytest.skip("the workers of another's cluster have a path of their own")
    importlib.import_module(module.stem)
    assert pmap(lambda x: importlib.import_module("edited_by_test").answer(x), [1], backend=backend) == [2]


def test_no_warning_is_given_where_there_is_nothing_to_warn_of(backend: Backend) -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        if backend.traits.forks:
            warnings.filterwarnings("ignore", "This process .* is multi-threaded", DeprecationWarning)
        assert pmap(triple, range(5), backend=backend, workers=2) == [0, 3, 6, 9, 12]


@pytest.mark.full
def test_a_generator_of_numpys_goes_along_with_the_function_that_draws_from_it(backend: Backend) -> None:
    # It holds functions that Cython has made, whose type is in no module that can be imported.
    generator = np.random.default_rng(1)
    expected = np.random.default_rng(1).random()
    assert pmap(lambda _: generator.random(), [0], backend=backend, workers=1) == [expected]
