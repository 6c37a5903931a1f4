"""The part of the exam on what may be mapped: anything that can be called, wherever it was defined."""

from __future__ import annotations

import functools
import os
from typing import Any

from anymap.testing import _samples as samples
from anymap.testing._exam import Exam, promises
from anymap.testing._verdicts import expect, expect_equal

_TYPED_IN = """
OFFSET = 10

def shift(x):
    return x + OFFSET

class Point:
    made = 0

    def __init__(self, x):
        self.x = x

    def moved(self):
        return Point(self.x + 1)

class Spoiled(Exception):
    pass

def make_point(x):
    Point.made += 1
    return Point(x)

def moved(point):
    return point.moved()

def spoil(x):
    raise Spoiled(x)
"""


def _typed_in() -> dict[str, Any]:
    """Return functions and classes as if they had been typed into ``__main__``: no worker can import them."""
    namespace: dict[str, Any] = {"__name__": "__main__"}
    exec(_TYPED_IN, namespace)  # noqa: S102 - our own text
    return namespace


@promises
class Functions(Exam):
    """Whatever can be called."""

    def test_a_lambda_can_be_mapped(self) -> None:
        expect_equal(self.map(lambda x: x + 10, range(5)), [10, 11, 12, 13, 14], "a lambda")

    def test_a_closure_can_be_mapped(self) -> None:
        expect_equal(self.map(samples.make_closure(10), range(5)), [10, 11, 12, 13, 14], "a closure")

    def test_a_partial_can_be_mapped(self) -> None:
        expect_equal(self.map(functools.partial(pow, 2), range(5)), [1, 2, 4, 8, 16], "a partial")

    def test_a_bound_method_can_be_mapped(self) -> None:
        expect_equal(self.map(samples.Adder(10).add, range(5)), [10, 11, 12, 13, 14], "a bound method")

    def test_an_object_that_can_be_called_can_be_mapped(self) -> None:
        expect_equal(self.map(samples.Adder(10), range(5)), [10, 11, 12, 13, 14], "a callable object")

    def test_a_builtin_can_be_mapped(self) -> None:
        expect_equal(self.map(str.upper, ["a", "b"]), ["A", "B"], "a method of a builtin type")

    def test_a_function_of_main_can_be_mapped(self) -> None:
        expect_equal(self.map(_typed_in()["shift"], range(5)), [10, 11, 12, 13, 14], "a function and its global")

    def test_results_of_a_class_of_main_are_of_the_callers_own_class(self) -> None:
        main = _typed_in()
        made = self.map(main["make_point"], range(5))
        expect(all(type(point) is main["Point"] for point in made), "results are of a copy of the class")
        again = self.map(main["moved"], made)
        expect_equal([point.x for point in again], [1, 2, 3, 4, 5], "items of a class of __main__")
        expect(all(type(point) is main["Point"] for point in again), "results are of a copy of the class")

    def test_a_class_of_main_keeps_the_callers_attributes(self) -> None:
        main = _typed_in()
        main["Point"].made = 1000
        self.map(main["make_point"], range(5))
        wanted = 1005 if self.place().pid == os.getpid() else 1000
        expect_equal(main["Point"].made, wanted, "an attribute that was 1000, and grows by 1 in each of 5 calls")

    def test_an_error_of_a_class_of_main_is_of_the_callers_own_class(self) -> None:
        main = _typed_in()
        (error,) = self.map(main["spoil"], [1], on_error="return")
        expect(type(error) is main["Spoiled"], f"the error is of {type(error)}, a copy of the class")
