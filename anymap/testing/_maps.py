"""The part of the exam on what a map gives: what the builtin ``map`` gives, whatever runs it."""

from __future__ import annotations

from collections import Counter
from functools import partial
from typing import TYPE_CHECKING, Any

from anymap.progress import Finished, TaskProgress
from anymap.testing import _samples as samples
from anymap.testing._exam import Exam, promises
from anymap.testing._verdicts import applies_if, expect, expect_equal, fail

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable

    from anymap.progress import Event

_NAMES = {"one": 1, "two": 2, "three": 3}
_INPUTS: dict[str, Callable[[], Iterable[Any]]] = {
    "a list": lambda: [3, 1, 2],
    "a tuple": lambda: (3, 1, 2),
    "a range": lambda: range(7),
    "a generator": lambda: (x * x for x in range(20)),
    "an iterator": lambda: iter([1, 2, 3]),
    "a dict": lambda: _NAMES,
    "the keys of a dict": _NAMES.keys,
    "the values of a dict": _NAMES.values,
    "a set": lambda: {5, 3, 9, 1},
    "a frozenset": lambda: frozenset("abc"),
    "text": lambda: "straße",
    "bytes": lambda: b"bytes",
    "lists as items": lambda: [[1], [], [2, [3]]],
}


@promises
class Maps(Exam):
    """Equal to ``map``, in every form."""

    def test_a_map_gives_what_the_builtin_map_gives(self) -> None:
        expect_equal(self.map(samples.square, range(50)), [x * x for x in range(50)], "the squares")

    def test_several_iterables_are_zipped_and_the_shortest_ends_it(self) -> None:
        got = self.map(samples.pack, range(100), "abcde", iter([1.5, 2.5, 3.5]))
        expect_equal(got, [(0, "a", 1.5), (1, "b", 2.5), (2, "c", 3.5)], "three iterables")

    def test_an_empty_input_gives_an_empty_result(self) -> None:
        expect_equal(self.map(samples.square, []), [], "a list")
        expect_equal(list(self.map(samples.square, iter(()), lazy=True)), [], "a lazy map")

    def test_one_item_is_enough(self) -> None:
        expect_equal(self.map(samples.square, [9]), [81], "one item")

    def test_any_iterable_is_an_input(self) -> None:
        for name, make in _INPUTS.items():
            expect_equal(self.map(samples.double, make()), [x + x for x in make()], name)

    def test_numpy_arrays_are_inputs_items_and_results(self) -> None:
        numpy = _numpy()
        applies_if(numpy, "numpy is not installed")
        expect_equal(self.map(samples.double, numpy.arange(10)), [2 * x for x in range(10)], "the items of an array")
        large = numpy.arange(100_000.0).reshape(2, -1)
        got = self.map(samples.double, large)
        expect(all(map(numpy.array_equal, got, 2 * large)), "rows of a large array come back with other contents")

    def test_none_is_a_result(self) -> None:
        expect_equal(self.map(samples.nothing, range(5)), [None] * 5, "results of None")

    def test_an_exception_that_is_returned_is_a_result(self) -> None:
        got = self.map(samples.error_as_value, range(6))
        expect_equal([type(value) for value in got], [int, ValueError] * 3, "types of the results")

    def test_many_small_items_come_through(self) -> None:
        got = self.map(samples.square, range(self.many))
        expect_equal(got, [x * x for x in range(self.many)], f"{self.many} squares")

    def test_large_items_and_results_come_through_whole(self) -> None:
        large = [bytes([number]) * 3_000_000 for number in range(4)]
        got = self.map(samples.double, large)
        expect([part + part for part in large] == got, "3 MB of bytes come back as others, or doubled wrong")

    def test_the_chunksize_makes_no_difference(self) -> None:
        for chunksize in (1, 3, 100):
            got = self.map(samples.square, range(20), chunksize=chunksize)
            expect_equal(got, [x * x for x in range(20)], f"chunks of {chunksize}")

    def test_unordered_results_are_the_same_in_some_order(self) -> None:
        got = self.map(samples.square, range(200), ordered=False)
        expect_equal(Counter(got), Counter(x * x for x in range(200)), "how often there is each result")

    def test_a_lazy_map_gives_the_same_in_the_same_order(self) -> None:
        with self.map(samples.square, iter(range(200)), lazy=True) as got:
            expect_equal(list(got), [x * x for x in range(200)], "a lazy map")

    def test_unordered_lazy_results_say_which_item_they_are_of(self) -> None:
        with self.map(samples.square, range(200), lazy=True, ordered=False) as got:
            expect_equal(dict(got.indexed()), {x: x * x for x in range(200)}, "results by their index")

    def test_a_function_may_map_itself(self) -> None:
        expect_equal(self.map(samples.sum_of_squares, range(5)), [0, 0, 1, 5, 14], "maps inside of a map")

    def test_progress_counts_every_item_once(self) -> None:
        events: list[Event] = []
        self.map(samples.square, range(30), progress=events.append)
        match events[-1]:
            case Finished(complete=True) as last:
                counts = last.done, last.failed, last.lost, last.total
                expect_equal(counts, (30, 0, 0, 30), "done, failed, lost, total")
            case last:
                fail(f"the last event is {last}")

    def test_what_items_show_of_their_own_progress_arrives(self) -> None:
        events: list[Event] = []
        got = self.map(samples.sum_of_tracked, range(5), progress=events.append)
        ends = {event.index: event.done for event in events if isinstance(event, TaskProgress) and event.ended}
        expect_equal(got, [0, 0, 1, 3, 6], "the results")
        expect_equal(ends, {x: x for x in range(5)}, "how far each item said it was, by its index")

    def test_two_maps_at_once_on_one_instance_do_not_disturb_each_other(self) -> None:
        candidate = self.make_backend()
        left = self.map(samples.square, range(40), backend=candidate, lazy=True)
        right = self.map(samples.double, range(60), backend=candidate, lazy=True)
        with left, right:
            pairs = [(next(left), next(right)) for _ in range(20)]
            expect_equal(pairs, [(x * x, 2 * x) for x in range(20)], "results taken by turns")
            left.close()
            expect_equal(list(right), [2 * x for x in range(20, 60)], "one map after the other was left")

    def test_maps_run_in_several_threads_at_once(self) -> None:
        candidate = self.make_backend()
        functions = [partial(samples.pack, number) for number in range(4)]
        got = self.in_threads(partial(self.map, function, range(50), backend=candidate) for function in functions)
        wanted = [[(number, x) for x in range(50)] for number in range(4)]
        expect_equal(got, wanted, "four maps in four threads")


def _numpy() -> Any:
    try:
        import numpy  # noqa: ICN001, PLC0415 - only where it is there anyway
    except ModuleNotFoundError:
        return None
    return numpy
